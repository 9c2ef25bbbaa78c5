"""The acts of operators, as the control topic says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import Message

from learners.acts import Act
from steersman.codec import Codec
from steersman.errors import DecodeError
from steersman.headers import headers_of
from steersman.signing import PolicyVerifier
from streams.control import NO_ACTS, ControlLog, act_of
from streams.topic_watch import TopicWatch


class ControlWatch(TopicWatch):
    """Follows the control topic on a thread of its own.

    Parameters
    ----------
    brokers
        Comma-separated `host:port` list.
    topic
        The control topic.
    codec
        Codec of ``policy_act``.
    kafka
        librdkafka settings that win over ours.
    verifier
        Checks the signatures of snapshots that acts bring along, or nobody does.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        *,
        codec: Codec,
        kafka: Mapping[str, Any] | None = None,
        verifier: PolicyVerifier | None = None,
    ) -> None:
        super().__init__(brokers, topic, kafka)
        self._codec = codec
        self._verifier = verifier
        self._acts: dict[str, list[tuple[int, Act]]] = {}
        self._told: set[str] = set()
        self._ids: set[str] = set()
        self._log = NO_ACTS
        self._news = False

    @property
    def log(self) -> ControlLog:
        """Acts and answers so far; another object after every change, never changed itself."""
        return self._log

    def take(self, message: Message) -> None:
        """Take note of an act, or of what became of one."""
        key, value, headers, offset = message.key(), message.value(), headers_of(message), message.offset()
        if value is None or offset is None:
            return
        try:
            record = self._codec.decode(value, headers)
        except DecodeError as error:
            self._throttle.warn(
                "a record of control topic %s cannot be read and is passed over: %s", self._topic, error
            )
            return
        name = f"{record['tenant']}/{record['policy']}"
        if name.encode() != key:
            self._throttle.warn("a record of control topic %s has the key of another policy", self._topic)
            return
        if record["outcome"] in ("APPLIED", "REFUSED"):
            self._told.add(record["act_id"])
        elif record["outcome"] == "ASKED" and record["act_id"] not in self._ids:
            # What has been seen may be repeated, or read again after the connection was lost.
            self._ids.add(record["act_id"])
            self._acts.setdefault(name, []).append((offset, act_of(record, self._verifier)))
        self._news = True

    def rest(self) -> None:
        """Show what has come."""
        if self._news:
            self._news = False
            acts = {name: tuple(found) for name, found in self._acts.items()}
            self._log = ControlLog(acts, frozenset(self._told))
