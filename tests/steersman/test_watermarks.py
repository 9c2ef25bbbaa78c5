"""Asking for the ends of a partition that has no leader yet."""

from __future__ import annotations

from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from steersman.watermarks import ask_watermarks

PLACE = TopicPartition("t", 0)


class Answers:
    """Gives one answer after the other, and then the last again."""

    def __init__(self, *answers: int | tuple[int, int] | None) -> None:
        self._answers = list(answers)
        self.asked = 0

    def get_watermark_offsets(self, place: TopicPartition, timeout: float) -> Any:
        assert place is PLACE
        assert timeout > 0
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, int):
            raise KafkaException(KafkaError(answer))
        return answer


def ask(answers: Answers, timeout_s: float = 5.0) -> tuple[int, int]:
    return ask_watermarks(cast(Consumer, answers), PLACE, timeout_s)


def test_a_partition_without_a_leader_is_asked_for_again() -> None:
    answers = Answers(KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART, (3, 9))
    assert ask(answers) == (3, 9)
    assert answers.asked == 3


@pytest.mark.parametrize("code", [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._ALL_BROKERS_DOWN])
def test_what_time_does_not_heal_is_raised_at_once(code: int) -> None:
    answers = Answers(code, (0, 0))
    with pytest.raises(KafkaException) as raised:
        ask(answers)
    assert raised.value.args[0].code() == code
    assert answers.asked == 1


def test_after_the_time_the_last_answer_is_raised() -> None:
    with pytest.raises(KafkaException) as raised:
        ask(Answers(KafkaError.LEADER_NOT_AVAILABLE), 0.25)
    assert raised.value.args[0].code() == KafkaError.LEADER_NOT_AVAILABLE
    with pytest.raises(KafkaException) as raised:
        ask(Answers(None))
    assert raised.value.args[0].code() == KafkaError._TIMED_OUT
