"""Changes in a policies file that leave everything else in it as people wrote it, comments included."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from learners.policies import Policies
from learners.policies_file import parse_policies
from steersman.errors import ConfigError

_LIST = "quarantined"


def change(path: Path, edit: Callable[[str], str]) -> Policies:
    """Change a policies file in one step; it is checked before.

    Parameters
    ----------
    path
        The file; of a link, what it leads to is changed.
    edit
        From the text of the file to the new one.

    Raises
    ------
    ConfigError
        When the file cannot be read or written, would not be valid, or was changed by somebody else meanwhile.
    """
    real = path.resolve()
    before = _read(real)
    after = edit(before)
    policies = parse_policies(after, str(path))
    if after == before:
        return policies
    try:
        handle, name = tempfile.mkstemp(prefix=f".{real.name}.", dir=real.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(after)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, real.stat().st_mode & 0o7777)
            if _read(real) != before:
                raise ConfigError(f"{path} was changed by somebody else meanwhile: try again")
            os.replace(name, real)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}): make the change where the file comes from; --dry-run shows it"
        ) from error
    return policies


def listed(text: str, policies: Iterable[tuple[str, str]], source: str, note: str) -> str:
    """The text with a source in the list ``quarantined`` of policies, given by tenant and name, with a note beside it."""
    document = _parsed(text)
    for table in _tables(document, policies):
        reward = table.get("reward")
        if reward is None:
            reward = table["reward"] = tomlkit.table()
        before = reward.get(_LIST, [])
        if source in before:
            continue
        array = tomlkit.array()
        for one, said in [*((str(one), _note(before, str(one))) for one in before), (source, note)]:
            array.add_line(one, comment=said or None)
        array.add_line(indent="")
        reward[_LIST] = array
    return tomlkit.dumps(document)


def lifted(text: str, policies: Iterable[tuple[str, str]], source: str) -> str:
    """The text without a source in the list ``quarantined`` of policies, given by tenant and name."""
    document = _parsed(text)
    for table in _tables(document, policies):
        before = table.get("reward", {}).get(_LIST, [])
        left = [str(one) for one in before if one != source]
        if len(left) == len(before):
            continue
        if not left:
            del table["reward"][_LIST]
            continue
        array = tomlkit.array()
        for one in left:
            array.add_line(one, comment=_note(before, one) or None)
        array.add_line(indent="")
        table["reward"][_LIST] = array
    return tomlkit.dumps(document)


def notes(path: Path, policy: tuple[str, str]) -> dict[str, str]:
    """Who is in quarantine in a policy, given by tenant and name, and what stands beside each in the file."""
    return {
        str(one): _note(before, str(one))
        for table in _tables(_parsed(_read(path)), [policy])
        for before in [table.get("reward", {}).get(_LIST, [])]
        for one in before
    }


def _note(array: Any, source: str) -> str:
    """The comment beside an item of an array of the file; empty for an array that is new."""
    text = array.as_string() if hasattr(array, "as_string") else ""
    found = re.search(rf"^\s*{re.escape(tomlkit.item(source).as_string())}\s*,?\s*#\s*(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _tables(document: Any, policies: Iterable[tuple[str, str]]) -> list[Any]:
    wanted = set(policies)
    return [table for table in document["policy"] if (table.get("tenant", "default"), table["name"]) in wanted]


def _parsed(text: str) -> Any:
    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:
        raise ConfigError(f"the policies file is not TOML: {error}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); name your policies file with --policies") from error
