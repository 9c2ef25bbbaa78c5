"""What producers say they sent, against what the log holds.

A producer ledger is a file of JSON lines, one per record handed to Kafka: `event_id`, `outcome` (acked, refused, or
unknown when no answer came), `partition` and `offset` of what was acknowledged, `poison` for bytes that no reader can
decode (they have no id).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from console.verify.equations import LISTED, Equation
from console.verify.records import Place
from steersman.errors import ConfigError

NAME = "acknowledged records are in Kafka, and nothing that no producer sent"
OUTCOMES = ("acked", "refused", "unknown")


@dataclass
class ProducerLedger:
    """All producer ledgers together.

    Attributes
    ----------
    acked
        Id of what was acknowledged at a place; None for poison.
    claimed_twice
        Places that were acknowledged more than once.
    unplaced
        Ids acknowledged without an offset.
    unknown, unknown_poison
        Ids without an answer, and how much poison got none.
    outcomes
        Lines by outcome.
    """

    acked: dict[Place, str | None] = field(default_factory=dict)
    claimed_twice: list[Place] = field(default_factory=list)
    unplaced: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    unknown_poison: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Take one line in; ValueError or KeyError when it is none."""
        outcome, poison = entry["outcome"], bool(entry.get("poison"))
        if outcome not in OUTCOMES:
            raise ValueError(f"outcome {outcome!r} is none of {', '.join(OUTCOMES)}")
        identity = None if poison else str(entry["event_id"])
        self.outcomes[outcome] += 1
        if outcome == "acked":
            place = int(entry["partition"]), int(entry["offset"])
            if place[1] < 0:
                if identity is None:
                    self.unknown_poison += 1
                else:
                    self.unplaced.add(identity)
            elif place in self.acked:
                self.claimed_twice.append(place)
            else:
                self.acked[place] = identity
        elif outcome == "unknown":
            if identity is None:
                self.unknown_poison += 1
            else:
                self.unknown.add(identity)


def read_ledgers(files: Iterable[Path]) -> ProducerLedger:
    """Read producer ledgers.

    Raises
    ------
    ConfigError
        Names the file and line that cannot be read. A last line that was cut off, as a killed producer leaves it, is
        passed over.
    """
    ledger = ProducerLedger()
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(f"producer ledger {file}: {e}") from e
        for number, line in enumerate(lines, start=1):
            try:
                ledger.add(json.loads(line))
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as e:
                if number == len(lines) and not line.endswith("\n"):
                    continue
                raise ConfigError(
                    f"producer ledger {file}, line {number}: {type(e).__name__}: {e}; a line is a JSON object with "
                    "event_id, outcome, partition, offset"
                ) from e
    return ledger


def compare_producers(
    ledger: ProducerLedger | None,
    log: Iterable[tuple[Place, str | None, bool]],
    held: Mapping[int, tuple[int, int]],
) -> Equation:
    """Check that acknowledged records are in the log, and that the log holds only what producers sent.

    An id that was acknowledged at one place may be at others, too: librdkafka, when its producer epoch has been renewed after
    an error, sends again what may have been written already, and the broker cannot know it for a repetition. Such records are
    counted as ``written_again``; that they count once is for the other equations.

    Parameters
    ----------
    ledger
        What the producers say; None when nobody gave their ledgers.
    log
        Place and id (None: unreadable) of every record that was read, and whether it is in the range: only then
        must a producer have sent it.
    held
        By partition, the first offset that was read and the one after the last; what was acknowledged elsewhere is not
        asked for.
    """
    if ledger is None:
        return Equation("E1", NAME, {"of": "producers"}, {"of": "Kafka"}, True, [], "no producer ledger given")
    missing = {p: i for p, i in ledger.acked.items() if p[0] not in held or held[p[0]][0] <= p[1] < held[p[0]][1]}
    unplaced, unknown_poison, asked = set(ledger.unplaced), ledger.unknown_poison, len(missing)
    differing = [f"{_text(place)}: acknowledged more than once" for place in ledger.claimed_twice]
    sent_ids = set(ledger.acked.values())
    n = extra = again = 0
    for place, identity, counted in log:
        n += counted
        if place in ledger.acked:
            sent = ledger.acked[place]
            missing.pop(place, None)
            if sent != identity:
                extra += 1
                differing.append(f"{identity} at {_text(place)}: {sent or 'poison'} was acknowledged there")
        elif identity is not None and (identity in ledger.unknown or identity in ledger.unplaced):
            unplaced.discard(identity)
        elif identity is None and unknown_poison:
            unknown_poison -= 1
        elif not counted:
            continue
        elif identity is not None and identity in sent_ids:
            again += 1
        else:
            extra += 1
            differing.append(f"{identity or 'unreadable record'} at {_text(place)}: no producer sent it")
    differing += [
        f"{identity or 'poison'} at {_text(place)}: acknowledged, not in Kafka" for place, identity in missing.items()
    ]
    differing += [f"{identity}: acknowledged, not in Kafka" for identity in sorted(unplaced)]
    return Equation(
        "E1",
        NAME,
        {"of": "producers", "n": asked + len(ledger.unplaced), **{k: ledger.outcomes[k] for k in OUTCOMES}},
        {"of": "Kafka", "n": n, "missing": len(missing) + len(unplaced), "not_sent": extra, "written_again": again},
        not differing,
        differing[:LISTED],
        f"{again} written again by producers' clients: they count once" if again else "",
    )


def _text(place: Place) -> str:
    return f"{place[0]}@{place[1]}"
