"""Schema ids from a Confluent-compatible schema registry. Optional: everything works without one.

Wraps ``confluent_kafka.schema_registry``, whose further packages are only needed when a registry is used
(``pip install attrs cachetools certifi httpx2 authlib``). Subjects follow the TopicName strategy,
``<topic>-value``. Services never register anything (the client's ``auto.register.schemas=False``): a
deployment does, once, with `register`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from steersman import contracts
from steersman.errors import ConfigError, SteersmanError, Unreachable
from steersman.topics import Topics

COMPATIBILITY = "FULL_TRANSITIVE"
RETRY_S = 30.0
"""How long an answer "no" or no answer at all is believed; unit: seconds."""
MAX_UNKNOWN = 256
"""Most unknown ids asked for within that time; further ones are refused unasked, so that a producer of
garbage cannot turn every record into a request; unit: count."""


@dataclass(frozen=True)
class Registered:
    """A version of a contract in the registry."""

    subject: str
    version: int
    schema_id: int


@dataclass(frozen=True)
class Audited:
    """What the registry lacks of one contract.

    Attributes
    ----------
    subject
        Its subject.
    wanted, missing
        Versions that should be there, and those that are not; unit: count.
    compatibility
        Level of the subject; empty when it has none of its own.
    """

    subject: str
    wanted: int
    missing: int
    compatibility: str


class Registry:
    """Look schema ids up, each at most once.

    Parameters
    ----------
    url
        Base URL, e.g. ``http://registry:8081``; credentials may be part of it.
    topics
        Topics whose subjects count.
    timeout_s
        Of one request; unit: seconds.
    retry_s
        How long a negative answer is kept; unit: seconds.
    clock
        Monotonic time; unit: seconds.

    Raises
    ------
    ConfigError
        The packages are missing, or the URL is not one.
    """

    def __init__(
        self,
        url: str,
        *,
        topics: Topics | None = None,
        timeout_s: float = 2.0,
        retry_s: float = RETRY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            from confluent_kafka import schema_registry
        except ImportError as error:
            raise ConfigError(
                f"a schema registry is set ({_bare(url)}) but its client cannot be imported ({error}): "
                "pip install attrs cachetools certifi httpx2 authlib, or unset STEERSMAN_REGISTRY_URL"
            ) from error
        self._module: Any = schema_registry
        try:
            self._client: Any = schema_registry.SchemaRegistryClient(
                {"url": url, "timeout": timeout_s, "max.retries": 0}
            )
        except ValueError:
            raise ConfigError(f"STEERSMAN_REGISTRY_URL {_bare(url)!r} is not a URL of http or https") from None
        self._where = f"schema registry at {_bare(url)}"
        self._subjects = subjects(topics or Topics())
        self._retry_s = retry_s
        self._clock = clock
        self._ids: dict[str, int] = {}
        self._refused: dict[tuple[str, object], float] = {}
        self.failures = 0
        """Requests that failed for another reason than "not found"; unit: count."""

    def id_for(self, name: str) -> int | None:
        """Id under which the current version of a contract is registered, None when unknown for now."""
        known = self._ids.get(name)
        if known is not None:
            return known
        found = self._ask((name, "current"), lambda: self._lookup(name, contracts.schema(name)))
        if found is not None:
            self._ids[name] = found.schema_id
        return None if found is None else found.schema_id

    def schema_by_id(self, name: str, schema_id: int) -> Mapping[str, Any] | None:
        """Writer schema with that id, if registered for this contract's topic.

        The caller keeps what it gets: every id is asked for once, and after a "no" once per `retry_s`.
        """
        found: Mapping[str, Any] | None = self._ask(
            (name, schema_id), lambda: self._of_subject(name, self._client.get_schema(schema_id).schema_str)
        )
        return found

    def schema_by_guid(self, name: str, guid: str) -> Mapping[str, Any] | None:
        """Writer schema with that GUID, if registered for this contract's topic."""
        found: Mapping[str, Any] | None = self._ask(
            (name, guid), lambda: self._of_subject(name, self._client.get_schema_by_guid(guid).schema_str)
        )
        return found

    def register(self) -> list[Registered]:
        """Register every released version and the current one of every contract, and ask for FULL_TRANSITIVE.

        For deployments; repeating it changes nothing.

        Returns
        -------
        list of Registered
            One entry per contract and version.

        Raises
        ------
        Unreachable
            The registry does not answer.
        SteersmanError
            It refuses a schema, e.g. because the subject holds an incompatible one.
        """
        done: list[Registered] = []
        for name, subject in self._subjects.items():
            for number, written in enumerate(_distinct(name), start=1):
                try:
                    if number == 1:
                        self._client.set_compatibility(subject, COMPATIBILITY)
                    self._client.register_schema(subject, self._schema(written))
                    entry = self._lookup(name, written)
                except self._module.SchemaRegistryError as error:
                    raise SteersmanError(
                        f"{self._where} refuses version {number} of {name} under {subject}: {error}"
                    ) from error
                except Exception as error:  # the HTTP library's own family of transport errors
                    raise Unreachable(self._where, f"{error}; is it running?") from error
                done.append(entry)
        return done

    def audit(self) -> list[Audited]:
        """Say of every contract which versions the registry lacks, without changing anything.

        Raises
        ------
        Unreachable
            The registry does not answer.
        """
        done: list[Audited] = []
        for name, subject in self._subjects.items():
            wanted = _distinct(name)
            missing = sum(self._answer(partial(self._lookup, name, written)) is None for written in wanted)
            level = self._answer(partial(self._client.get_compatibility, subject))
            done.append(Audited(subject, len(wanted), missing, str(level or "")))
        return done

    def _answer(self, request: Callable[[], Any]) -> Any:
        """Answer of the registry, None for "not found"."""
        try:
            return request()
        except self._module.SchemaRegistryError as error:
            if getattr(error, "http_status_code", None) == 404:
                return None
            raise Unreachable(self._where, str(error)) from error
        except Exception as error:  # the HTTP library's own family of transport errors
            raise Unreachable(self._where, f"{error}; is it running?") from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, key: tuple[str, object], request: Callable[[], Any]) -> Any:
        now = self._clock()
        until = self._refused.get(key)
        if until is not None and now < until:
            return None
        if until is None and len(self._refused) >= MAX_UNKNOWN:
            self._refused = {k: t for k, t in self._refused.items() if now < t}
            if len(self._refused) >= MAX_UNKNOWN:
                return None
        try:
            answer = request()
        except Exception as error:  # an agent or a worker goes on without; the count says so
            if getattr(error, "http_status_code", None) != 404:
                self.failures += 1
            answer = None
        if answer is None:
            self._refused[key] = now + self._retry_s
        else:
            self._refused.pop(key, None)
        return answer

    def _lookup(self, name: str, written: Mapping[str, Any]) -> Registered:
        found = self._client.lookup_schema(self._subjects[name], self._schema(written))
        return Registered(found.subject, found.version, found.schema_id)

    def _of_subject(self, name: str, text: str) -> Mapping[str, Any]:
        written = json.loads(text)
        self._lookup(name, written)  # answers 404 for a schema of another subject
        if not isinstance(written, dict):
            raise ValueError(f"{name}: not a record schema")
        return written

    def _schema(self, written: Mapping[str, Any]) -> Any:
        return self._module.Schema(json.dumps(written), schema_type="AVRO")


def from_environment(topics: Topics) -> Registry | None:
    """Return the registry of ``STEERSMAN_REGISTRY_URL``, None where that is not set.

    Raises
    ------
    ConfigError
        As `Registry`.
    """
    url = os.environ.get("STEERSMAN_REGISTRY_URL")
    return Registry(url, topics=topics) if url else None


def subjects(topics: Topics) -> dict[str, str]:
    """Subject per contract, by the TopicName strategy."""
    return {
        "trace_event": f"{topics.trace}-value",
        "reward": f"{topics.reward}-value",
        "rollup": f"{topics.rollup}-value",
        "alert": f"{topics.alert}-value",
        "policy_snapshot": f"{topics.policy}-value",
        "ledger": f"{topics.audit}-value",
        "policy_act": f"{topics.control}-value",
    }


def _distinct(name: str) -> list[dict[str, Any]]:
    """Released versions and the current one, without repeating what is the same."""
    released = contracts.versions(name)
    current = contracts.schema(name)
    return released if released and released[-1] == current else [*released, current]


def _bare(url: str) -> str:
    """URL without credentials, fit for messages."""
    scheme, _, rest = url.rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if scheme else rest.rpartition("@")[2]


def main() -> int:
    """``python -m steersman.registry``: register all contracts at STEERSMAN_REGISTRY_URL; returns the exit code."""
    url = os.environ.get("STEERSMAN_REGISTRY_URL")
    if not url:
        print("STEERSMAN_REGISTRY_URL is not set; nothing to register")
        return 0
    try:
        registry = Registry(url, topics=Topics(os.environ.get("STEERSMAN_TOPIC_PREFIX") or "steersman"), timeout_s=10.0)
        try:
            for entry in registry.register():
                print(f"{entry.subject} version {entry.version}: id {entry.schema_id}")
        finally:
            registry.close()
    except SteersmanError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 3 if isinstance(error, Unreachable) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
