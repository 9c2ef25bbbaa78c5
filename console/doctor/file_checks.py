"""Checks of settings and files: environment, policies, prices, tokens, signing keys."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from console.doctor.finding import Finding, fine, problem, warning
from learners.policies_file import load_policies
from serving.settings import service_settings, unknown_names
from steersman.errors import ConfigError
from steersman.prices import PriceTable
from steersman.signing import KEYS_VARIABLE, MAX_KEYS, key_id, load_private_key, load_public_key, verifier_for
from steersman.topics import Topics


def settings_checks() -> Iterator[Finding]:
    """Read the settings of every service as it would."""
    further: dict[str, Callable[[Any], object]] = {
        "worker": lambda s: s.topics, "doors": lambda s: s.tokens(), "page": lambda s: (s.token, s.endpoints),
    }  # fmt: skip
    for name, kind in service_settings().items():
        try:
            further.get(name, lambda _: None)(kind.read())
        except ConfigError as error:
            yield problem("settings", f"the {name} refuses to start: {error}", "correct or unset it")
        else:
            yield fine("settings", f"the {name} can read its settings")
    for name, hint in unknown_names().items():
        fix = f"rename it{f', perhaps to {hint}' if hint else ''}, or remove it"
        yield problem("settings.unknown", f"{name} is known to no service, and none starts with it", fix)


def policy_checks(file: Path) -> Iterator[Finding]:
    """Read the policies file as workers do."""
    try:
        policies = load_policies(file)
    except ConfigError as error:
        yield problem("policies", str(error), "correct the file; running workers keep the last good one meanwhile")
        return
    if not len(policies):
        yield warning("policies", f"{file} holds no policy: nothing will be learned", "add a [[policy]]")
        return
    yield fine("policies", f"{file}: {len(policies)} policies")


def price_checks(file: Path | None) -> Iterator[Finding]:
    """Read the price table as workers do."""
    if file is None:
        return
    try:
        table = PriceTable.load(file)
    except ConfigError as error:
        yield problem("prices", str(error), "'steersman prices check FILE' says more; correct the file")
        return
    yield fine("prices", f"{file}: {len(table)} entries")


def key_checks(private: Path | None, topics: Topics) -> Iterator[Finding]:
    """Look at the keys that policies are signed and checked with: there, of the right form and mode, and a pair.

    Parameters
    ----------
    private
        File of the workers' private key; None when policies go out unsigned.
    topics
        Names.
    """
    named = [Path(part.strip()) for part in os.environ.get(KEYS_VARIABLE, "").split(",") if part.strip()]
    trusted: set[str] = set()
    broken = False
    for path in named:
        try:
            trusted.add(key_id(load_public_key(path)))
        except ConfigError as error:
            broken = True
            yield problem("keys.public", str(error), f"name the public keys in {KEYS_VARIABLE}, comma-separated")
            continue
        if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            fix = f"chmod go-w {path}"
            yield problem("keys.public", f"others than its owner may write {path}, and so say whom agents obey", fix)
    try:
        if not broken:
            verifier_for(topics.policy)
    except ConfigError as error:
        yield problem("keys.mode", str(error), f"see 'steersman policy keygen'; at most {MAX_KEYS} keys")
    if private is None:
        if trusted:
            fix = "set STEERSMAN_POLICY_SIGNING_KEY for the workers"
            yield warning(
                "keys.private", f"agents here ask for signatures ({KEYS_VARIABLE}), workers here sign nothing", fix
            )
        elif not named:
            yield fine("keys", "none are set: policies are not signed")
        return
    try:
        own = key_id(load_private_key(private).public_key())
    except ConfigError as error:
        yield problem(
            "keys.private", str(error), "correct STEERSMAN_POLICY_SIGNING_KEY, or make a pair: steersman policy keygen"
        )
        return
    if private.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield problem("keys.private", f"others than its owner may write {private}", f"chmod 600 {private}")
    if trusted and own not in trusted:
        yield problem(
            "keys.pair",
            f"workers sign with key {own}, agents trust {', '.join(sorted(trusted))}: every policy would be refused",
            f"add the public key of {private} to {KEYS_VARIABLE} everywhere, or sign with a key that is trusted",
        )
    elif not broken:
        yield fine("keys", f"policies are signed with key {own}{', which is trusted' if trusted else ''}")
