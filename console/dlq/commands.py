"""The commands `steersman dlq list`, `show` and `replay`; what they do is in `console.dlq.letters`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.options import DEFAULT_POLICIES, Brokers, Json
from console.target import resolve

app = typer.Typer(no_args_is_help=True, help="Look at records that could not be processed, and replay them.")

Stage = Annotated[
    list[str] | None, typer.Option(help="DESERIALIZE, VALIDATE, JOIN, LEARN or SINK; repeat it for several.")
]
Reason = Annotated[list[str] | None, typer.Option(help="Reason, e.g. unknown_policy; repeat it for several.")]
Source = Annotated[
    list[str] | None, typer.Option("--topic", help="Topic of the record that failed; repeat it for several.")
]
Since = Annotated[
    str | None,
    typer.Option(help="First Kafka timestamp of the record that failed: ISO 8601 (UTC), or 2h for 2 hours ago."),
]
Until = Annotated[str | None, typer.Option(help="Timestamp to stop before, as for --since.")]
Offsets = Annotated[
    list[str] | None,
    typer.Option(help="Place in the dead-letter topic: 2:17, 2:17-40, 2:17- or 2: ; repeat it for several."),
]


@app.command(
    "list",
    epilog="Examples: steersman dlq list --stage VALIDATE --since 2h · steersman dlq list --summary · steersman dlq list --json | jq .reason",
)
def list_letters(
    stage: Stage = None,
    reason: Reason = None,
    topic: Source = None,
    since: Since = None,
    until: Until = None,
    offsets: Offsets = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Counts by stage, reason and topic instead of letters.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many letters, the newest.")] = 100,
    brokers: Brokers = None,
    as_json: Json = False,
) -> None:
    """List dead letters, one for each record that failed, and whether they were replayed."""
    from console.dlq import letters

    asked = letters.Asked(stage, reason, topic, since, until, offsets)
    letters.show_all(resolve(brokers), asked, summary=summary, limit=limit, as_json=as_json)


@app.command("show", epilog="Examples: steersman dlq show 2:17 · steersman dlq show 2:17 --json")
def show_letter(
    letter: Annotated[
        str, typer.Argument(help="Id of the letter, as listed: PARTITION:OFFSET of the dead-letter topic.")
    ],
    content: Annotated[
        bool,
        typer.Option("--content", help="Also the record's bytes, decoded where they can be. They may hold prompts."),
    ] = False,
    brokers: Brokers = None,
    as_json: Json = False,
) -> None:
    """Show one dead letter: what failed, where, why, its headers, and with --content what is in it."""
    from console.dlq import letters

    letters.show_one(letter, brokers, content=content, as_json=as_json)


@app.command(
    "replay",
    epilog="Examples: steersman dlq replay --reason unknown_policy · steersman dlq replay --reason unknown_policy --yes · "
    "steersman dlq replay --offsets 2:17 --yes",
)
def replay_letters(
    stage: Stage = None,
    reason: Reason = None,
    topic: Source = None,
    since: Since = None,
    until: Until = None,
    offsets: Offsets = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without it nothing is written, only said.")] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also letters that were replayed before or that would fail again; repeats are dropped by their readers.",
        ),
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many letters, in the order of the log.")] = None,
    file: Annotated[
        Path, typer.Option("--policies", envvar="STEERSMAN_POLICIES", help="The policies file that workers use.")
    ] = DEFAULT_POLICIES,
    brokers: Brokers = None,
    as_json: Json = False,
) -> None:
    """Write dead letters back to the topics they came from; a dry run without --yes. Each takes effect once, however often it is replayed."""
    from console.dlq import letters

    asked = letters.Asked(stage, reason, topic, since, until, offsets)
    letters.replay(resolve(brokers), asked, file, yes=yes, force=force, limit=limit, as_json=as_json)
