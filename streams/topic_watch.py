"""Following a topic of one partition from its beginning, on a thread of its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from steersman.bad_batch import end_of_batch, is_bad, why
from steersman.errors import Unreachable
from steersman.kafka_config import follower_config, kafka_logger
from steersman.throttle import Throttle
from steersman.watermarks import ask_watermarks

_POLL_S = 0.1
_ASK_S = 5.0
_RETRY_S = 0.5
_PARTITION = 0


class TopicWatch:
    """Follows a topic; what comes of its records is up to `take` and `rest`, which are called on the thread.

    Parameters
    ----------
    brokers
        Comma-separated `host:port` list.
    topic
        The topic; only its partition 0 is read.
    kafka
        librdkafka settings that win over ours.
    """

    def __init__(self, brokers: str, topic: str, kafka: Mapping[str, Any] | None = None) -> None:
        self._brokers = brokers
        self._topic = topic
        self._config = follower_config(brokers, kafka)
        self._throttle = Throttle()
        self._asked = 0  # how many times somebody wanted the topic read to its end
        self._answered = 0
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, message: Message) -> None:
        """Take note of a record."""
        raise NotImplementedError

    def rest(self) -> None:
        """Take note that nothing more has come for now."""

    def read_to_end(self, timeout_s: float) -> None:
        """Read to where the topic ends now. Starts the thread.

        Raises
        ------
        Unreachable
            When that takes longer than `timeout_s`.
        """
        with self._changed:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name=f"watch-{self._topic}", daemon=True)
                self._thread.start()
            self._asked += 1
            mine = self._asked
            if not self._changed.wait_for(lambda: self._answered >= mine or self._stop.is_set(), timeout_s):
                raise Unreachable(
                    f"the end of topic {self._topic} at {self._brokers}",
                    f"It could not be read within {timeout_s:g} s; look at the broker",
                )

    def close(self) -> None:
        """Stop following."""
        with self._changed:
            self._stop.set()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(_ASK_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            consumer = Consumer(self._config, logger=kafka_logger)
            try:
                self._follow(consumer)
            except (KafkaException, Unreachable) as error:
                self._throttle.warn("topic %s at %s: %s", self._topic, self._brokers, error)
                self._stop.wait(_RETRY_S)
            finally:
                with contextlib.suppress(KafkaException):
                    consumer.close()

    def _follow(self, consumer: Consumer) -> None:
        """Read the topic from its beginning and stay on it, until told to stop or an error makes a fresh start needful."""
        place = TopicPartition(self._topic, _PARTITION)
        consumer.assign([TopicPartition(self._topic, _PARTITION, OFFSET_BEGINNING)])
        asked, end, position, at_end = 0, 0, 0, False
        while not self._stop.is_set():
            if self._asked > max(asked, self._answered):
                asked = self._asked
                _, end = ask_watermarks(consumer, place, _ASK_S)
            message = consumer.poll(_POLL_S)
            if message is not None:
                error = message.error()
                if error is None:
                    self.take(message)
                    at_end, position = False, (message.offset() or 0) + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    at_end, position = True, max(position, message.offset() or 0)
                elif is_bad(error):
                    base, past = end_of_batch(self._config, message)
                    self._throttle.warn("a batch of topic %s is passed over: %s", self._topic, why(base, past).decode())
                    consumer.seek(TopicPartition(self._topic, _PARTITION, past))
                    at_end, position = False, past
                elif error.fatal() or not error.retriable():
                    raise KafkaException(error)
            # The embedded broker reports an end a few records early, so a moment's silence is waited for as well.
            answer = asked > self._answered and (position > end or (position == end and (at_end or message is None)))
            if answer or at_end or message is None:
                self.rest()
            if answer:
                with self._changed:
                    self._answered = asked
                    self._changed.notify_all()
