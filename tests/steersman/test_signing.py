"""Keys, signatures and what a subscriber makes of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steersman import contracts
from steersman.codec import Codec
from steersman.errors import ConfigError, DecodeError
from steersman.policy_book import PolicyBook
from steersman.policy_cache import PolicyCache
from steersman.policy_guard import PolicyGuard
from steersman.scoring import Scorer
from steersman.signing import (
    PolicySigner,
    PolicyVerifier,
    SignatureMode,
    generate_keys,
    load_private_key,
    load_public_key,
    verifier_for,
)
from steersman.snapshot import PolicySnapshot
from steersman.subscriber import PolicySubscriber
from steersman.throttle import Throttle
from tests.steersman.conftest import ManualClock

ROOT = Path(__file__).resolve().parents[2]
TOPIC = "steersman.policy.v1"
KEY = b"default/research/retrieval"
POLICY = "research/retrieval"
CODEC = Codec("policy_snapshot")
Make = Callable[..., PolicySnapshot]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for name in ("old", "new", "stranger"):
        generate_keys(tmp_path / f"{name}.key", tmp_path / f"{name}.pub")
    return tmp_path


def book(
    keys: Path, *trusted: str, mode: SignatureMode = "require", cache: PolicyCache | None = None, **guard: Any
) -> PolicyBook:
    verifier = PolicyVerifier(TOPIC, [keys / f"{name}.pub" for name in trusted], mode)
    clock = ManualClock()
    return PolicyBook("default", None, cache, None, clock, Throttle(clock=clock), verifier, PolicyGuard(**guard))


def signed(keys: Path, name: str, snapshot: PolicySnapshot) -> bytes:
    return PolicySigner(TOPIC, keys / f"{name}.key").encode(CODEC, snapshot.key.encode(), snapshot.to_record())


def version(of: PolicyBook) -> int | None:
    held = of.get(POLICY)
    return None if held is None else held.snapshot.version


def test_during_a_change_of_keys_either_signature_is_good(keys: Path, make_snapshot: Make) -> None:
    both = book(keys, "old", "new")
    both.read(KEY, signed(keys, "old", make_snapshot(version=1)), ())
    both.read(KEY, signed(keys, "new", make_snapshot(version=2)), ())
    assert version(both) == 2
    after = book(keys, "new")
    after.read(KEY, signed(keys, "old", make_snapshot(version=3)), ())
    assert version(after) is None
    assert after.counts["refused:signature"] == 1


def test_warn_follows_and_counts(keys: Path, make_snapshot: Make) -> None:
    lax = book(keys, "old", mode="warn")
    lax.read(KEY, CODEC.encode(make_snapshot(version=1).to_record()), ())
    lax.read(KEY, signed(keys, "stranger", make_snapshot(version=2)), ())
    assert version(lax) == 2
    assert lax.counts["unverified:unsigned"] == lax.counts["unverified:signature"] == 1


def test_forgeries_do_not_crowd_out_the_good_one_while_records_are_collected(keys: Path, make_snapshot: Make) -> None:
    one = book(keys, "old")
    one.collect()
    one.read(KEY, signed(keys, "old", make_snapshot(version=7)), ())
    for v in range(1000, 1010):
        one.read(KEY, signed(keys, "stranger", make_snapshot(version=v)), ())
    one.settle()
    assert version(one) == 7
    assert one.counts["refused:signature"] == 10


def test_a_copy_on_disk_is_checked_as_well(keys: Path, make_snapshot: Make, tmp_path: Path) -> None:
    cache = PolicyCache(tmp_path / "cache", "default")
    writer = book(keys, "old", cache=cache)
    writer.read(KEY, signed(keys, "old", make_snapshot(version=7)), ())
    writer.save()
    reader = book(keys, "old", cache=cache)
    reader.load()
    assert version(reader) == 7
    assert reader.counts["from_disk"] == 1
    (file,) = (tmp_path / "cache").iterdir()
    record = CODEC.decode(file.read_bytes())
    for changed in (record | {"version": 8}, record | {"signature": b""}):
        file.write_bytes(CODEC.encode(changed))
        reader = book(keys, "old", cache=cache)
        reader.load()
        assert version(reader) is None
    file.write_bytes(b"\xc3\x01" + bytes(2 << 20))
    reader = book(keys, "old", cache=cache)
    reader.load()
    assert reader.counts["bad:disk:too_large"] == 1


def test_a_retired_record_is_obeyed_past_every_bound(keys: Path, make_snapshot: Make) -> None:
    strict = book(keys, "old", allowed={POLICY: {"model": ["s", "m"], "top_k": [2, 8]}}, min_floor=0.02)
    strict.read(KEY, signed(keys, "old", make_snapshot(version=1)), ())
    retired = make_snapshot(version=2, stage="RETIRED", floor=0.0, not_after=1)
    strict.read(KEY, CODEC.encode(retired.to_record()), ())
    strict.read(KEY, None, ())
    assert version(strict) == 1
    strict.read(KEY, signed(keys, "old", retired), ())
    held = strict.get(POLICY)
    assert held is not None
    assert held.snapshot.stage == "RETIRED"
    assert strict.counts["refused:unsigned"] == strict.counts["tombstones"] == 1


def test_a_step_too_long_waits_for_the_next_epoch(keys: Path, make_snapshot: Make) -> None:
    one = book(keys, "old", max_step=0.2)
    one.read(KEY, signed(keys, "old", make_snapshot(version=1)), ())
    tensors = {name: -100 * t if name == "weights.quality" else t for name, t in make_snapshot().tensors.items()}
    one.read(KEY, signed(keys, "old", make_snapshot(version=2, tensors=tensors)), ())
    assert version(one) == 1
    assert one.counts["refused:step"] == 1
    one.read(KEY, signed(keys, "old", make_snapshot(epoch=2, version=0, tensors=tensors)), ())
    assert version(one) == 0


def test_a_rollback_is_no_step_too_long_and_a_promotion_may_be(keys: Path, make_snapshot: Make) -> None:
    one = book(keys, "old", max_step=0.3)
    steps = [("SHADOW", 1.0, 1), ("CANARY", 0.1, 2), ("LIVE", 0.9, 2), ("LIVE", 0.2, 4), ("SHADOW", 1.0, 5)]
    for number, (stage, share, held) in enumerate(steps, start=1):
        one.read(KEY, signed(keys, "old", far(make_snapshot, version=number, stage=stage, canary_share=share)), ())
        assert version(one) == held, number
    bold = book(keys, "old", max_step=0.3)
    bold.read(KEY, signed(keys, "old", far(make_snapshot, version=1)), ())
    bold.read(KEY, signed(keys, "old", far(make_snapshot, version=2, stage="SHADOW")), ())
    assert version(bold) == 2


def far(make_snapshot: Make, **fields: Any) -> PolicySnapshot:
    """A policy whose choices are far from its baseline."""
    plain = make_snapshot()
    scorer = Scorer(plain)
    chances = scorer.score(plain.features.encode({})).propensity
    return make_snapshot(**fields, baseline=plain.arms.labels[int(chances.argmin())])


def test_every_version_of_the_contract_can_be_signed_for(keys: Path, make_snapshot: Make) -> None:
    value = signed(keys, "old", make_snapshot())
    schema, content, body = CODEC.without("signature", value)
    assert schema == contracts.digest(contracts.schema("policy_snapshot"))
    assert len(content) == 64
    assert len(body) == len(value) - 10 - 65
    with pytest.raises(DecodeError) as refused:
        CODEC.without("signature", value[:10] + bytes((value[10] | 0x80, 0)) + value[11:])
    assert refused.value.reason == "not_canonical"


def test_the_mode_is_require_as_soon_as_there_are_keys(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verifier_for(TOPIC) is None
    monkeypatch.setenv("STEERSMAN_POLICY_KEYS", f"{keys / 'old.pub'}, {keys / 'new.pub'}")
    made = verifier_for(TOPIC)
    assert made is not None
    assert (made.mode, len(made.key_ids)) == ("require", 2)
    monkeypatch.setenv("STEERSMAN_POLICY_SIGNATURES", "warn")
    assert (made := verifier_for(TOPIC)) is not None
    assert made.mode == "warn"
    assert verifier_for(TOPIC, mode="off") is None
    monkeypatch.setenv("STEERSMAN_POLICY_SIGNATURES", "maybe")
    with pytest.raises(ConfigError, match="require, warn, off"):
        PolicySubscriber("127.0.0.1:1")
    monkeypatch.delenv("STEERSMAN_POLICY_KEYS")
    monkeypatch.setenv("STEERSMAN_POLICY_SIGNATURES", "require")
    with pytest.raises(ConfigError, match="STEERSMAN_POLICY_KEYS"):
        PolicySubscriber("127.0.0.1:1")


def test_key_files_are_private_and_never_overwritten(keys: Path) -> None:
    private = keys / "old.key"
    assert private.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="never overwritten"):
        generate_keys(private, keys / "other.pub")
    with pytest.raises(ConfigError, match="never overwritten"):
        generate_keys(keys / "other.key", keys / "old.pub")
    assert not (keys / "other.key").exists()
    with pytest.raises(ConfigError, match="is a private key"):
        load_public_key(private)
    (keys / "old.pub").chmod(0o600)
    with pytest.raises(ConfigError, match="not an unencrypted private key"):
        load_private_key(keys / "old.pub")
    private.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        PolicySigner(TOPIC, private)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_public_key(keys / "nothing.pub")
    secret = private.read_text().splitlines()[1]
    private.write_text(f"-----BEGIN PRIVATE KEY-----\n{secret[:-8]}\n-----END PRIVATE KEY-----\n")
    private.chmod(0o600)
    with pytest.raises(ConfigError) as shown:
        load_private_key(private)
    assert secret[:8] not in str(shown.value)


def test_keys_without_the_package_are_a_start_up_error_that_says_what_to_install(keys: Path) -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from steersman import ConfigError, PolicySubscriber\n"
        "try: PolicySubscriber('127.0.0.1:1')\n"
        "except ConfigError as error: print(error)\n"
    )
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "STEERSMAN_POLICY_KEYS": str(keys / "old.pub")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert "pip install 'steersman[signed]'" in done.stdout
