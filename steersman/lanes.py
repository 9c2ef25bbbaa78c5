"""Which traces follow a policy while only a share of them does: the same answer in every process, and for the learner.

It depends on the trace id and the policy's name alone, so all decisions of a trace by one policy agree, policies
are independent of each other, and a larger share holds all traces of a smaller one. Nobody has to log it: who knows the trace id
can tell.
"""

from __future__ import annotations

import hashlib


def in_share(trace_id: str, policy: str, share: float) -> bool:
    """Tell whether a trace is among the share (0 to 1) of the traces that follow the policy."""
    if share >= 1.0:
        return True
    digest = hashlib.blake2b(f"{trace_id}/{policy}".encode(), digest_size=8, person=b"canary").digest()
    return int.from_bytes(digest, "big") < int(share * 2**64)
