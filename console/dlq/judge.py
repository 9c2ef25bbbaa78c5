"""Whether a dead letter may be replayed, and whether that would help. Decided before anything is written.

Records go back only to topics whose readers drop what they have had: the trace topic (by event id), the reward topic (by
provenance), the Collector's topic (its ids are made of trace and span ids). To write an old record to a compacted topic would
hide a newer one, and a topic that is not this deployment's is named by headers that anybody may have written.

A record that would fail again is left where it is: a flood of them would make the workers stop (`DlqLimit`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from console.dlq.letter import Letter
from learners.policies import Policies
from steersman.codec import Codec
from steersman.errors import DecodeError, InvalidRecord
from steersman.topics import Topics
from streams.dead_letters import DeadLetterStage
from streams.events import validate
from streams.partition_log import LogRecord


@dataclass(frozen=True)
class Verdict:
    """What is to become of a letter.

    Attributes
    ----------
    replay
        Whether it goes back.
    why
        What keeps it, or what is not known about it.
    firm
        Whether it stays even when it is forced.
    """

    replay: bool
    why: str = ""
    firm: bool = False


class Judge:
    """Says what is to become of letters.

    Parameters
    ----------
    topics
        Names of the deployment's topics.
    collector_topic
        Topic of the Collector's exporter; empty for none.
    partitions
        Topic -> partition count, of the topics that exist.
    policies
        The policies that workers have now.
    codecs
        By contract name: trace_event, reward.
    """

    def __init__(
        self,
        topics: Topics,
        collector_topic: str,
        partitions: Mapping[str, int],
        policies: Policies,
        codecs: Mapping[str, Codec],
    ) -> None:
        self._topics = topics
        self._collector = collector_topic
        self._partitions = partitions
        self._policies = policies
        self._codecs = codecs

    @property
    def allowed(self) -> Collection[str]:
        """Topics that records may go back to."""
        return {self._topics.trace, self._topics.reward, self._collector} - {""}

    def of(self, letter: Letter, record: LogRecord) -> Verdict:
        """Judge a letter by its headers and its bytes."""
        if letter.source is None:
            return Verdict(False, "its headers do not say which record failed", firm=True)
        topic, partition, _ = letter.source
        if topic not in self.allowed:
            why = f"records of {topic} do not go back: it is no topic of events, rewards or spans of this deployment"
            return Verdict(False, why, firm=True)
        if partition >= self._partitions.get(topic, 0):
            return Verdict(False, f"{topic} has no partition {partition} any more", firm=True)
        if letter.truncated:
            return Verdict(False, "only the beginning of it was kept", firm=True)
        if letter.mark:
            return Verdict(False, f"it was replayed to {letter.mark}")
        if letter.stage == DeadLetterStage.JOIN:
            return Verdict(False, "the join has counted the event; only what it led to could not be written")
        if topic == self._collector:
            return Verdict(True, "whether it can be read now is seen when it is")
        if reason := self._fault(topic, record):
            return Verdict(False, f"it would fail again: {reason}")
        late = topic == self._topics.reward
        return Verdict(True, "a learner that has had a later reward of its partition drops it" if late else "")

    def _fault(self, topic: str, record: LogRecord) -> str:
        contract = "trace_event" if topic == self._topics.trace else "reward"
        try:
            event = self._codecs[contract].decode(record.value, record.headers)
            if contract == "trace_event":
                validate(event, self._policies)
            elif self._policies.get(event["tenant"], event["policy"]) is None:
                return f"unknown_policy: {event['tenant']}/{event['policy']} is in no policy file"
        except (DecodeError, InvalidRecord) as error:
            return str(error)
        return ""
