"""The command line: every command of `steersman`, and the services' own.

Commands are of the type Any: whose click it is that typer brings has changed from version to version.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import typer

from console.children import ROOT
from console.main import app
from manual.reference.markdown import code, table

_HEAD = """# The `steersman` command

`bin/steersman` of a checkout or image. Exit codes: 0 ok, 1 failed, 2 usage, 3 unreachable, 4 problems found, 130 Ctrl-C.
Addresses come from the command line, else `STEERSMAN_BROKERS` and `STEERSMAN_CLICKHOUSE_URL`, else the file of `STEERSMAN_CONFIG`, else a running
`steersman up` or demo, else `127.0.0.1:9092` and `http://127.0.0.1:8123`. With `--json` a command prints one JSON object, or one a line.
"""
_SERVICES = """# The services' command lines

`steersman up` starts all of these; a deployment starts them one by one (`docker-compose.yml`). Their settings: [Settings](settings.md).
"""


def page() -> str:
    """Return the page of the `steersman` command."""
    root = typer.main.get_command(app)
    parts = [_HEAD]
    for path, command in commands(root):
        parts.append(_command(path, command))
    return "\n".join(parts)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that does something, with its words."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, child in inner.items():
        if not child.hidden:
            yield from commands(child, (*path, name))


def _command(path: tuple[str, ...], command: Any) -> str:
    name = " ".join(path)
    with command.context_class(command, info_name=f"steersman {name}") as context:
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        rows = []
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context)
            if record is not None and "--help" not in parameter.opts:
                rows.append((code(record[0].replace("*", "").strip()), record[1].replace(f"{ROOT}/", "")))
            elif record is None and parameter.param_type_name == "argument":
                rows.append((code(parameter.make_metavar(context)), getattr(parameter, "help", None) or ""))
    parts = [f"## {name}", "", (command.help or "").strip(), "", f"`{usage}`", ""]
    if rows:
        parts.append(table(("option", "says"), rows))
    if command.epilog:
        _, _, examples = command.epilog.partition(":")
        parts += ["Examples:", "", "```text", *(example.strip() for example in examples.split(" · ")), "```", ""]
    return "\n".join(parts)


def services() -> str:
    """Return the page of the services."""
    # Only here: they bring Faust, aiohttp and the like.
    from doors.__main__ import main as doors
    from page.__main__ import main as live_page
    from sinks.__main__ import main as sinks
    from streams.__main__ import main as streams

    calls: list[tuple[str, Callable[[list[str]], int], list[str]]] = [
        ("streams", streams, ["worker"]),
        ("streams", streams, ["topics"]),
        ("streams", streams, ["reset"]),
        ("sinks", sinks, ["run"]),
        ("sinks", sinks, ["migrate"]),
        ("doors", doors, []),
        ("page", live_page, []),
    ]
    parts = [_SERVICES]
    for module, main, words in calls:
        parts.append(f"## python -m {' '.join([module, *words])}\n\n```text\n{_help(main, words)}```\n")
    return "\n".join(parts)


def _help(main: Callable[[list[str]], int], words: list[str]) -> str:
    said = io.StringIO()
    plain = {"COLUMNS": "110", "NO_COLOR": "1"}
    with mock.patch.dict(os.environ, plain), contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return said.getvalue()
