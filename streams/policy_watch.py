"""What is published of every policy, as the policy topic says: learners look there for whoever took their place."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from confluent_kafka import Message

from learners.lineage import Head, head_of, newest
from steersman.codec import Codec
from steersman.errors import DecodeError
from steersman.headers import headers_of
from steersman.signing import PolicyVerifier
from streams.topic_watch import TopicWatch


class PolicyWatch(TopicWatch):
    """Follows the policy topic on a thread of its own and keeps the newest head of every policy.

    Parameters
    ----------
    brokers
        Comma-separated `host:port` list.
    topic
        The policy topic.
    codec
        Codec of ``policy_snapshot``.
    kafka
        librdkafka settings that win over ours.
    verifier
        Checks signatures, or nobody does: a forged head could otherwise silence the learner.
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
        self._heads: Mapping[str, Head] = MappingProxyType({})

    @property
    def heads(self) -> Mapping[str, Head]:
        """Newest head by policy key ("tenant/policy"); another object after every change, never changed itself."""
        return self._heads

    def take(self, message: Message) -> None:
        """Take note of a snapshot."""
        key, value, headers = message.key(), message.value(), headers_of(message)
        if not isinstance(key, bytes) or value is None:
            return  # a tombstone says nothing about who learns
        try:
            record = self._codec.decode(value, headers)
        except DecodeError as error:
            self._throttle.warn("a record of policy topic %s cannot be read and is passed over: %s", self._topic, error)
            return
        name = f"{record['tenant']}/{record['policy']}"
        if name.encode() != key:
            self._throttle.warn("a record of policy topic %s has the key of another policy", self._topic)
            return
        if self._verifier is not None and (reason := self._verifier.check(self._codec, key, value, headers).reason):
            self._throttle.warn("a record of policy %s in %s has no good signature: %s", name, self._topic, reason)
            if self._verifier.mode == "require":
                return
        held = self._heads.get(name)
        head = newest(held, head_of(record))
        if head != held:
            self._heads = MappingProxyType({**self._heads, name: head})
