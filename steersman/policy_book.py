"""The policies a process holds: which record counts, which does not, and the copies on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

from steersman.clock import Clock
from steersman.codec import Codec, Headers, SchemaIds
from steersman.errors import DecodeError, SnapshotError
from steersman.held import Held
from steersman.policy_cache import PolicyCache
from steersman.policy_guard import PolicyGuard, Refused
from steersman.scoring import Scorer
from steersman.signing import PolicyVerifier
from steersman.snapshot import PolicySnapshot
from steersman.throttle import Throttle

OnChange = Callable[[Held], None]
Rank = tuple[int, int, int]
Candidate = tuple[Rank, dict[str, Any], bytes]
"""A record's rank, the record, and its bytes as they are kept on disk."""
# How many of the highest versions of a policy are kept while records are only collected, in case the highest turns
# out to be unusable.
_CANDIDATES = 3


class PolicyBook:
    """Policies of one tenant, each at the highest (epoch, version) that was any good.

    Written to by one thread at a time; `get` may be called from any.

    Parameters
    ----------
    tenant : str
        Whose policies; records of others are passed over.
    policies : collection of str, optional
        Names of the policies wanted; all when not given.
    cache : PolicyCache, optional
        The copies on disk.
    registry : SchemaIds, optional
        Schema registry, needed only to read records written with one.
    clock : Clock
        Source of time.
    throttle : Throttle
        For warnings.
    verifier : PolicyVerifier, optional
        Checks signatures, of records and of copies on disk; they are not looked at when not given.
    guard : PolicyGuard
        What this service does not let a policy do.

    Attributes
    ----------
    counts : Counter
        What happened to records, copies and callbacks. A record or copy that is not followed is counted under
        ``refused:<reason>`` (signature, guard) or ``bad:<reason>`` (cannot be read); ``unverified:<reason>`` counts
        those followed though their signature is not good (mode ``warn``).
    """

    def __init__(
        self,
        tenant: str,
        policies: Collection[str] | None,
        cache: PolicyCache | None,
        registry: SchemaIds | None,
        clock: Clock,
        throttle: Throttle,
        verifier: PolicyVerifier | None = None,
        guard: PolicyGuard | None = None,
    ) -> None:
        self._prefix = f"{tenant}/".encode()
        self._wanted = None if policies is None else frozenset(self._prefix + name.encode() for name in policies)
        self._cache = cache
        self._codec = Codec("policy_snapshot", registry=registry)
        self._own_codec = Codec("policy_snapshot")
        self._clock = clock
        self._throttle = throttle
        self._verifier = verifier
        self._guard = guard or PolicyGuard()
        self._held: dict[str, Held] = {}
        self._unsaved: dict[str, bytes] = {}
        self._candidates: dict[str, list[Candidate]] | None = None
        self.callbacks: list[OnChange] = []
        self.counts: Counter[str] = Counter()

    def get(self, policy: str) -> Held | None:
        """The newest good snapshot of a policy, or None."""
        return self._held.get(policy)

    def held(self) -> dict[str, Held]:
        """All policies held, by name."""
        return dict(sorted(self._held.copy().items()))

    def collect(self) -> None:
        """From now on keep only the best records, and make nothing of them before `settle`.

        A topic that was not compacted yet may hold thousands of versions, of which only the last one matters.
        """
        self._candidates = {}

    def settle(self) -> None:
        """Hold the best of the records collected."""
        candidates, self._candidates = self._candidates or {}, None
        for best in candidates.values():
            for rank, record, kept in best:
                if self._apply(rank, record, kept):
                    break

    def abandon(self) -> None:
        """Forget what was collected: it will be read again."""
        self._candidates = None

    def read(self, key: object, value: bytes | None, headers: Headers) -> None:
        """Look at one record of the policy topic, whatever it is; counted once it has been dealt with."""
        self._read(key, value, headers)
        self.counts["records"] += 1

    def _read(self, key: object, value: bytes | None, headers: Headers) -> None:
        if not isinstance(key, bytes) or not key.startswith(self._prefix):
            self.counts["other_tenant" if key else "bad:no_key"] += 1
            return
        if self._wanted is not None and key not in self._wanted:
            self.counts["other_policy"] += 1
            return
        if value is None:
            self.counts["tombstones"] += 1
            return
        try:
            record = self._codec.decode(value, headers)
            name = _checked_name(record, key)
            kept = self._codec.as_single_object(value, headers)
        except DecodeError as error:
            self._bad(error.reason, error)
            return
        # Before anything else is made of it: forged versions must not crowd out the good ones while records are collected.
        if not self._trusted(self._codec, key, value, headers):
            return
        rank = (record["epoch"], record["version"], record["created_at"])
        if self._candidates is None:
            self._apply(rank, record, kept)
        else:
            best = self._candidates.setdefault(name, [])
            best.append((rank, record, kept))
            best.sort(key=_rank_of, reverse=True)
            del best[_CANDIDATES:]

    def _trusted(self, codec: Codec, key: bytes, value: bytes, headers: Headers) -> bool:
        """Whether a record may be followed, as far as its signature goes."""
        if self._verifier is None:
            return True
        verdict = self._verifier.check(codec, key, value, headers)
        if not verdict.reason:
            return True
        name = key.decode(errors="replace")
        if self._verifier.mode == "warn":
            self.counts[f"unverified:{verdict.reason}"] += 1
            self._throttle.warn("policy %s is followed though its signature is not good: %s", name, verdict.reason)
            return True
        self.counts[f"refused:{verdict.reason}"] += 1
        self._throttle.warn(
            "a record of policy %s is refused, the last good one stays: it is %s. Does the learner sign with a key that "
            "this service trusts (%s)?",
            name,
            "not signed" if verdict.reason == "unsigned" else f"not signed by a trusted key ({verdict.reason})",
            ", ".join(self._verifier.key_ids),
        )
        return False

    def _apply(self, rank: Rank, record: dict[str, Any], kept: bytes, received_us: int | None = None) -> bool:
        """Hold a snapshot unless a higher one is held; False when it is bad."""
        name = record["policy"]
        held = self._held.get(name)
        if held is not None and rank <= held.rank:
            self.counts["repeated" if rank == held.rank else "older"] += 1
            return True
        try:
            snapshot = PolicySnapshot.from_record(record)
            now_us = self._clock.now_us()
            new = Held(snapshot, Scorer(snapshot), now_us if received_us is None else received_us)
            self._guard.check(new, held, now_us)
        except Refused as error:
            self.counts[f"refused:{error.reason}"] += 1
            self._throttle.warn("a policy is refused, the last good one stays: %s", error)
            return False
        except SnapshotError as error:
            self._bad("snapshot", error)
            return False
        except Exception as error:  # weights that no one foresaw; the last good ones stay
            self._bad(f"scorer:{type(error).__name__}", error)
            return False
        self._held[name] = new
        if received_us is None:
            self._unsaved[name] = kept
        self.counts["applied"] += 1
        for callback in list(self.callbacks):
            try:
                callback(new)
            except Exception as error:  # the application's; it must not stop the following
                self.counts["callback_errors"] += 1
                self._throttle.warn("a callback for policy %s raised: %r", name, error)
        return True

    def _bad(self, reason: str, error: Exception) -> None:
        self.counts[f"bad:{reason}"] += 1
        self._throttle.warn("a policy record is unusable, the last good one stays: %s", error)

    def load(self) -> None:
        """Hold what is on disk."""
        if self._cache is None:
            return
        try:
            for value, current_us in self._cache.load():
                try:
                    record = self._own_codec.decode(value)
                    key = self._prefix + record["policy"].encode()
                    _checked_name(record, key)
                except DecodeError as error:
                    self._bad(f"disk:{error.reason}", error)
                    continue
                if self._wanted is not None and key not in self._wanted:
                    continue
                if not self._trusted(self._own_codec, key, value, ()):
                    continue
                rank = (record["epoch"], record["version"], record["created_at"])
                if self._apply(rank, record, value, current_us):
                    self.counts["from_disk"] += 1
        except OSError as error:
            self.counts["disk_errors"] += 1
            self._throttle.warn("the kept policies cannot be read: %s", error)

    def save(self) -> None:
        """Write to disk what changed since the last time."""
        if self._cache is None:
            self._unsaved.clear()
            return
        while self._unsaved:
            name, kept = self._unsaved.popitem()
            try:
                self._cache.save(name, self._readable(name, kept))
                self.counts["saved"] += 1
            except (OSError, ValueError) as error:
                self.counts["disk_errors"] += 1
                self._throttle.warn("policy %s cannot be kept on disk: %s", name, error)

    def _readable(self, name: str, kept: bytes) -> bytes:
        """Bytes that this version can read without a registry; encoding anew costs a record its signature."""
        try:
            self._own_codec.frame(kept)
        except DecodeError:
            return self._own_codec.encode(self._held[name].snapshot.to_record())
        return kept

    def touch(self, now_us: int) -> None:
        """Note on disk that all copies are current at this time."""
        if self._cache is None:
            return
        for name in list(self._held):
            try:
                self._cache.touch(name, now_us)
            except OSError:  # removed by someone: written again with the next version
                self.counts["disk_errors"] += 1


def _rank_of(candidate: Candidate) -> Rank:
    return candidate[0]


def _checked_name(record: Mapping[str, Any], key: bytes) -> str:
    """The policy's name; DecodeError when the record is not the one that its key says."""
    name: str = record["policy"]
    if f"{record['tenant']}/{name}".encode() != key:
        raise DecodeError("key_mismatch", f"{record['tenant']}/{name} under the key {key!r}")
    return name
