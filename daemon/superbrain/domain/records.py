"""What is told of single requests: the record that a worker or the gateway makes of one.

Most requests leave no record. One is made of a configured share, of those that fail, as far as a
rate allows, and of those that belong to a trace which is recorded. The daemon makes lines of the
inference log and spans of them: the processes that serve have neither files nor a network.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from superbrain.domain.told import Nanoseconds

TraceId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
SpanId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
NoSpanId = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{16})?$")]


class RecordPolicy(msgspec.Struct, frozen=True):
    """Of which requests records are made, and what is in them.

    Attributes:
        log: whether there is an inference log.
        log_share: the share of all requests that it has a line of.
        failures_per_s: of how many failed requests a second one process makes lines beside that.
        payload_bytes: how much of a request's inputs a line may hold; 0 for nothing.
        traces: whether spans are made.
        trace_ratio: the share of traces to begin, of requests that belong to none.
    """

    log: bool = False
    log_share: float = 0.0
    failures_per_s: float = 0.0
    payload_bytes: int = 0
    traces: bool = False
    trace_ratio: float = 0.0

    @property
    def on(self) -> bool:
        """Whether there is any record to be made."""
        return self.log or self.traces


class TensorRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is told of a tensor.

    `sha256` is of the bytes as they travel, which for numbers are the array's own.
    """

    name: str
    datatype: str
    shape: list[int]
    sha256: str = ""
    payload: bytes | None = None


class StageRecord(msgspec.Struct, frozen=True):
    """How long a request was in each stage; `domain.durations` says what they mean."""

    queue_ns: Nanoseconds
    preprocess_ns: Nanoseconds
    engine_ns: Nanoseconds
    postprocess_ns: Nanoseconds


class SpanRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where in a trace a request is: its own span, and the one it is part of, if there is one."""

    trace_id: TraceId
    span_id: SpanId
    parent_id: NoSpanId = ""


class RequestRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request, as the process saw it that answered it, or passed it on.

    Attributes:
        at_ns: when it came, in nanoseconds since 1970.
        duration_ns: from then to its answer.
        request_id: as the host's log has it.
        by: "worker" or "gateway", whichever made this record.
        road: "lane" for one that came to the worker directly, "gateway" for any other.
        error: the code it was answered with; empty when it was answered well.
        logged: whether it is for the inference log.
        trace_id: of the trace that its caller named, recorded or not.
        span: where it is in a trace that is recorded.
    """

    at_ns: Nanoseconds
    duration_ns: Nanoseconds
    request_id: str
    model: str
    by: str
    road: str
    version: str = ""
    deployment: int = 0
    rung: str = ""
    error: str = ""
    logged: bool = False
    inputs: list[TensorRecord] = []
    outputs: list[TensorRecord] = []
    stages: StageRecord | None = None
    trace_id: str = ""
    span: SpanRecord | None = None


class StepRecord(msgspec.Struct, frozen=True):
    """One step of a deployment: from when to when (nanoseconds since 1970), and why it failed."""

    name: str
    began_ns: int
    ended_ns: int
    error: str = ""


class InferenceLogPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The inference log: where it goes, of which requests it has lines, how large it grows.

    Attributes:
        to: "file", "journal", or empty for no such log.
        share: of all requests, at random.
        failures_per_s: how many failed ones a second of each process are there beside that.
        payload_bytes: how much of a request's inputs a line may hold; 0: nothing of them.
        path: the file; empty for one in the state folder.
        file_mib: how large it gets before it is put aside.
        files: how many are kept, the one that is written included.
    """

    to: str = ""
    share: float = 0.01
    failures_per_s: float = 10.0
    payload_bytes: int = 0
    path: str = ""
    file_mib: int = 16
    files: int = 4


class TracesPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Spans: where they go, and how many traces begin here.

    Attributes:
        endpoint: URL of an OTLP collector; empty: what OpenTelemetry's variables say, if anything.
        protocol: "http/protobuf" or "grpc".
        ratio: the share of requests without a trace of their own that one is begun for.
    """

    endpoint: str = ""
    protocol: str = "http/protobuf"
    ratio: float = 0.0


def record_policy(log: InferenceLogPolicy, traces: TracesPolicy, *, exported: bool) -> RecordPolicy:
    """Say of which requests the processes that serve have to tell."""
    return RecordPolicy(
        log=bool(log.to),
        log_share=log.share if log.to else 0.0,
        failures_per_s=log.failures_per_s if log.to else 0.0,
        payload_bytes=log.payload_bytes if log.to else 0,
        traces=exported,
        trace_ratio=traces.ratio if exported else 0.0,
    )
