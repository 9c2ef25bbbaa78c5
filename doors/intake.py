"""What both doors do with a body: decode, map, encode, count. Everything but the waiting for Kafka."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeVar

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from doors.feedback import event_of_feedback, read_feedback
from doors.mapped import Mapped, Rules
from doors.otlp import decode, decode_json, decode_protobuf
from doors.publisher import Record
from doors.refused import Refused
from doors.spans import events_of_logs, events_of_spans
from doors.tenancy import TenantMismatch, letter, mismatch
from steersman.clock import SYSTEM_CLOCK, Clock
from steersman.codec import Codec

M = TypeVar("M")


@dataclass
class Taken:
    """What a body came to.

    Attributes
    ----------
    records
        To publish.
    kinds
        Kind of the event of each.
    ids
        Event id of each.
    mapped
        What became of the spans or log records; of feedbacks only the count.
    letters
        For the dead-letter topic: events that name another tenant than their sender's.
    """

    records: list[Record] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    mapped: Mapped = field(default_factory=Mapped)
    letters: list[Record] = field(default_factory=list)


class Intake:
    """Turns bodies into records of the trace topic.

    Parameters
    ----------
    topic
        The trace topic.
    codec
        Codec of ``trace_event``.
    rules
        What to make of spans; the tenant is that of each request.
    max_spans
        Most spans or log records of one body.
    dead_letter_topic
        Where events go that name another tenant than their sender's.
    clock
        Time of feedback that does not say when it was.
    """

    def __init__(
        self,
        topic: str,
        codec: Codec,
        rules: Rules,
        *,
        max_spans: int,
        dead_letter_topic: str,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._topic = topic
        self._dead_letter_topic = dead_letter_topic
        self._codec = codec
        self._rules = rules
        self._max_spans = max_spans
        self._clock = clock

    def spans(self, body: bytes, tenant: str, *, named: str = "", json: bool | None = None) -> Taken:
        """Take an ``ExportTraceServiceRequest``.

        Parameters
        ----------
        body
            The request.
        tenant
            Of whoever sent it.
        named
            Tenant that the request names beside its body; empty when it names none.
        json
            Whether it is JSON or protobuf; None finds out by itself.

        Raises
        ------
        Refused
            With the status and the reason; `TenantMismatch` where all of it names another tenant.
        """
        request = self._decode(body, ExportTraceServiceRequest, json)
        count = sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
        self._check(count, "spans")
        return self._encode(events_of_spans(request, replace(self._rules, tenant=tenant, named=named)), "spans")

    def logs(self, body: bytes, tenant: str, *, named: str = "", json: bool | None = None) -> Taken:
        """Take an ``ExportLogsServiceRequest``, of which only evaluations are used; raises as `spans`."""
        request = self._decode(body, ExportLogsServiceRequest, json)
        count = sum(len(s.log_records) for r in request.resource_logs for s in r.scope_logs)
        self._check(count, "log records")
        return self._encode(events_of_logs(request, replace(self._rules, tenant=tenant, named=named)), "log records")

    def feedback(self, body: bytes, tenant: str, *, named: str = "") -> Taken:
        """Take one feedback or a list of them, all or none; raises as `spans`."""
        now_us = self._clock.now_us()
        mapped = Mapped(self._rules.redactor)
        for index, item in enumerate(read_feedback(body)):
            event = event_of_feedback(
                item,
                tenant=tenant,
                capture_content=self._rules.capture_content,
                now_us=now_us,
                redactor=self._rules.redactor,
            )
            if other := next((said for said in (item.tenant, named) if said and said != tenant), ""):
                aside = Mapped(events=[event])
                mapped.turn_away(aside, mismatch(f"item {index}", other, tenant))
                continue
            mapped.events.append(event)
            mapped.taken += 1
            if not self._rules.capture_content and (item.comment or item.correction is not None):
                mapped.counters["content_dropped"] += 1
        if mapped.strangers:  # all or none
            raise TenantMismatch("; ".join(mapped.problems), self._letters(mapped))
        return self._encode(mapped, "feedbacks")

    def _decode(self, body: bytes, kind: type[M], json: bool | None) -> M:
        how = decode if json is None else decode_json if json else decode_protobuf
        return how(body, kind, 3 * self._max_spans)

    def _check(self, count: int, what: str) -> None:
        if count > self._max_spans:
            raise Refused(
                413, "too_many", f"{count} {what} in one request, {self._max_spans} are taken: send smaller batches"
            )

    def _encode(self, mapped: Mapped, what: str) -> Taken:
        if mapped.refused and not mapped.taken:
            if mapped.strangers:
                raise TenantMismatch("; ".join(mapped.problems), self._letters(mapped))
            raise Refused(400, "no_usable_item", f"none of the {what} can be used: {'; '.join(mapped.problems)}")
        taken = Taken(mapped=mapped, letters=self._letters(mapped))
        for event in mapped.events:
            taken.records.append(Record(self._topic, event["trace_id"].encode(), self._codec.encode(event)))
            taken.kinds.append(event["kind"])
            taken.ids.append(event["event_id"])
        return taken

    def _letters(self, mapped: Mapped) -> list[Record]:
        return [letter(self._dead_letter_topic, self._codec, event, why) for event, why in mapped.strangers]
