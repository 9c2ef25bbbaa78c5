"""What `steersman verify` prints: a line per equation with both numbers, then the ids that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from console.output import out, print_json
from console.verify.equations import Equation
from console.verify.span import Span


def as_document(span: Span, equations: Sequence[Equation]) -> dict[str, Any]:
    """Return the JSON form."""
    start, end = span.text
    return {"ok": _ok(equations), "from": start, "to": end, "equations": [asdict(one) for one in equations]}


def show(span: Span, equations: Sequence[Equation], *, as_json: bool) -> int:
    """Print the result; returns 0, or 4 when an equation does not hold."""
    if as_json:
        print_json(as_document(span, equations))
        return 0 if _ok(equations) else 4
    start, end = span.text
    out.print(f"from {start or 'the beginning'} to {end or 'the end'} (UTC, Kafka timestamps)", highlight=False)
    for one in equations:
        out.print(_line(one), style=None if one.ok else "red", markup=False, highlight=False, soft_wrap=True)
        for item in one.differing:
            out.print(f"      {item}", markup=False, highlight=False, soft_wrap=True)
    wrong = [one.id for one in equations if not one.ok]
    if wrong:
        out.print(f"NOT equal: {', '.join(wrong)}", style="red", markup=False, highlight=False)
    else:
        out.print("every equation holds", highlight=False)
    return 4 if wrong else 0


def _ok(equations: Sequence[Equation]) -> bool:
    return all(one.ok for one in equations)


def _line(one: Equation) -> str:
    head = f"{one.id:<4}{'ok ' if one.ok else 'NOT'}  {one.name}"
    if one.left.get("n") is None:
        return f"{head}: {one.note}"
    sign = "=" if one.ok else "vs"
    text = f"{head}: {one.left['n']:,} {sign} {one.right['n']:,}"
    if one.left.get("amount") or one.right.get("amount"):
        text += f", amount {one.left['amount']:,} {sign} {one.right['amount']:,} micro-USD"
    more = {
        k: v
        for side in (one.left, one.right)
        for k, v in side.items()
        if k not in ("of", "n", "amount", "id_sum", "id_xor")
    }
    if more:
        text += f" ({', '.join(f'{k} {v:,}' for k, v in more.items())})"
    if not one.ok and one.left["n"] == one.right["n"] and one.left.get("amount") == one.right.get("amount"):
        text += ", but not the same ones"
    return f"{text}; {one.note}" if one.note else text
