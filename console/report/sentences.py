"""What the numbers say, in sentences. Pure."""

from __future__ import annotations

from console.report.figures import Change, PolicyFigures
from console.report.words import number, share, signed_interval

VERDICTS = {
    "better": ("better", "good"),
    "worse": ("worse", "bad"),
    "level": ("not to be told apart", "dim"),
    "no-control": ("no control group", "dim"),
    "idle": ("decided nothing", "dim"),
}
"""Word of the verdict -> how it is said in short, and the class of its colour."""


def verdict(policy: PolicyFigures) -> tuple[str, str]:
    """One word for how the policy does against its baseline, and the sentence to it."""
    word = str(policy.shaped["verdict"]["word"])
    change = policy.changes.get("utility")
    if word == "idle":
        return word, "It decided nothing in this time: all went to the baseline."
    if word == "no-control" or change is None:
        return word, "There are too few judged decisions of a control group (HOLDOUT) to compare with."
    gain = f"{signed_interval(change.difference)} utility a decision"
    if change.sure:
        return (
            "better" if change.difference.mean > 0 else "worse"
        ), f"{'Better' if change.difference.mean > 0 else 'Worse'} than the baseline: {gain}."
    return "level", f"Not to be told apart from the baseline: {gain}."


def change_text(measure: str, change: Change | None, unit: str) -> str:
    """A change in per cent where that means something, else in its unit."""
    if change is None:
        return "–"
    if measure in ("latency", "cost") and change.share is not None:
        return f"{share(change.share.mean, signed=True)} ± {share(change.share.half)}"
    return signed_interval(change.difference, unit)


def change_style(measure: str, change: Change | None) -> str:
    """Class of the colour of a change: good, bad, or nothing when chance explains it."""
    if change is None or not change.sure:
        return ""
    good = change.difference.mean < 0 if measure in ("latency", "cost") else change.difference.mean > 0
    return "good" if good else "bad"


def worth(above: float, below: float, unit: str) -> str:
    """For which prices a corner of the front is the best, in words."""
    if below == float("inf") and above <= 0:
        return "at every price"
    if below == float("inf"):
        return f"a {unit} is worth more than {number(above)} quality"
    if above <= 0:
        return f"a {unit} is worth less than {number(below)} quality"
    return f"a {unit} is worth {number(above)} to {number(below)} quality"
