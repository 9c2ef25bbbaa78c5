"""``python -m tests.manual.policy_block FILE``: a page's piece of a policies file is one that the workers would take.

What a piece leaves out is filled in: the policy, or what a policy must have. A piece with passwords is of a users file, and one that the
gateway would take.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from console.gateway.users import read_users
from learners.policies_file import load_policies

POLICY = '[[policy]]\nname = "a/b"\n'
BASELINE = "baseline = { knob = 1 }\n"
KNOBS = "\n[policy.knobs]\nknob = [1, 2]\n"


def completed(text: str) -> str:
    """Return a policies file that holds the piece.

    >>> "[[policy]]" in completed("[policy.sessions]")
    True
    """
    if not re.search(r"^\[\[policy\]\]", text, re.M):
        text = f"{POLICY}{BASELINE}{KNOBS}\n{text}"
    elif not re.search(r"^baseline\b", text, re.M):
        text = re.sub(r"^\[\[policy\]\]$", f"[[policy]]\n{BASELINE.strip()}", text, flags=re.M) + KNOBS
    return text


def main(file: str) -> int:
    """Load it; returns 0, or raises what the workers would."""
    text = Path(file).read_text()
    if re.search(r"^password", text, re.M):
        Path(file).chmod(0o600)
        read_users(Path(file))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "policies.toml"
        whole.write_text(completed(text))
        (spec, *_) = load_policies(whole)
    print(f"{spec.name}: {len(spec.arms)} arms, learner {spec.learner}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
