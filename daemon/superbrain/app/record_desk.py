"""Where records of requests and deployments end: as lines of the inference log, and as spans.

Workers and gateway send them over their control channels. They are passed on from a thread, one
batch after the other; while a disk is slow they wait, up to a bound. Nothing here can hold the
daemon up, and a file or a collector that does not take them is said once.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from superbrain.app import record_settings
from superbrain.domain import deployment as life
from superbrain.domain.health import Problem
from superbrain.host.events import Event
from superbrain.host.inference_log import InferenceLog
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superbrain.app.config import Config
    from superbrain.deploy.journal import Journal
    from superbrain.domain.ctl import Records
    from superbrain.domain.deployment import Deployment
    from superbrain.domain.records import RecordPolicy, RequestRecord, StepRecord, TensorRecord
    from superbrain.host.span_export import SpanExport

log = logging.getLogger(__name__)

MOST_RECORDS: Final = 8192
MOST_BYTES: Final = 32 << 20
SAY_AGAIN_S: Final = 60.0
CLOSE_PATIENCE_S: Final = 3.0
Line = dict[str, Any]


class RecordDesk:
    """Takes records and passes them on.

    Args:
        journal: knows when a deployment began.
        lines: the file of the inference log; None for none.
        spans: makes spans; None for none.
        to_journal: whether lines are log records instead.
    """

    def __init__(
        self,
        journal: Journal,
        lines: InferenceLog | None = None,
        spans: SpanExport | None = None,
        *,
        to_journal: bool = False,
    ) -> None:
        self._journal = journal
        self._lines = lines
        self._spans = spans
        self._to_journal = to_journal
        self._waiting: list[tuple[str, RequestRecord]] = []
        self._waiting_bytes = 0  # of payload
        self._news = asyncio.Event()
        self._left_out = self._said = 0
        self._said_at_s = -SAY_AGAIN_S
        self._trouble = ""

    # --- requests -----------------------------------------------------------------------------

    def take(self, process: str, told: Records) -> None:
        """Take what a process tells."""
        self._left_out += told.left_out
        for record in told.records:
            size = sum(len(tensor.payload or b"") for tensor in record.inputs)
            if len(self._waiting) < MOST_RECORDS and self._waiting_bytes + size <= MOST_BYTES:
                self._waiting.append((process, record))
                self._waiting_bytes += size
            else:
                self._left_out += 1
        self._news.set()
        self._say_left_out()

    def _say_left_out(self) -> None:
        spans_left_out = self._spans.left_out if self._spans is not None else 0
        count = self._left_out + spans_left_out - self._said
        now_s = time.monotonic()
        if count and now_s - self._said_at_s >= SAY_AGAIN_S:
            event(log, Event.RECORDS_LEFT_OUT, logging.WARNING, records=count)
            self._said, self._said_at_s = self._said + count, now_s

    async def run(self) -> None:
        """Pass records on for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._pass_on()
            except Exception as error:  # noqa: BLE001 - a record is never worth the daemon
                event(log, Event.TASK_FAILED, logging.ERROR, task="records", exc_info=error)

    async def _pass_on(self) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if not waiting:
            return
        try:
            await asyncio.to_thread(self._pass_all_on, waiting)
        except OSError as error:
            path = self._lines.path if self._lines is not None else ""
            found = f"the inference log {path} cannot be written: {error.strerror}"
            if found != self._trouble:
                event(log, Event.INFERENCE_LOG_FAILED, logging.ERROR, found)
            self._trouble = found
        else:
            self._trouble = ""

    def _pass_all_on(self, told: Sequence[tuple[str, RequestRecord]]) -> None:
        """Make spans and lines; in a thread, so that the daemon goes on meanwhile."""
        if self._spans is not None:
            for process, record in told:
                self._spans.request(process, record)
        lines = [line(process, record) for process, record in told if record.logged]
        if self._to_journal:
            for found in lines:
                event(log, Event.INFERENCE, **found)
        elif self._lines is not None:
            self._lines.write(lines)

    def problems(self) -> list[Problem]:
        """Say what is not written."""
        mend = "Make room on that disk, or let the service write there; see docs/traces.md"
        return [Problem("warning", "inference log", self._trouble, mend)] if self._trouble else []

    async def close(self) -> None:
        """Write and send what waits, for a bounded time."""
        await self._pass_on()
        if self._lines is not None:
            self._lines.close()
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close, CLOSE_PATIENCE_S)

    # --- deployments --------------------------------------------------------------------------

    def step(self, deployment: Deployment, record: StepRecord) -> None:
        """Take one step of a deployment: a span within its trace."""
        if self._spans is None:
            return
        trace_id, root_id, _ = self._trace(deployment)
        self._spans.span(
            record.name,
            (trace_id, "", root_id),
            (record.began_ns, record.ended_ns),
            _attributes(deployment),
            error=record.error,
        )

    def stepped(self, after: Deployment, happened: life.Event) -> None:
        """Take note that a deployment has ended, or serves: the span of the whole."""
        if self._spans is None:
            return
        served = isinstance(happened, life.Switched)
        if not served and after.state not in _ENDED_UNSERVED:
            return
        trace_id, root_id, began_ns = self._trace(after)
        reason = happened.reason if isinstance(happened, life.Bad) else None
        self._spans.span(
            f"deploy {after.name}",
            (trace_id, root_id, ""),
            (began_ns, time.time_ns()),
            _attributes(after) | {"superbrain.deployment.state": after.state},
            error=reason.code if reason is not None else "",
        )

    def _trace(self, deployment: Deployment) -> tuple[str, str, int]:
        """Give a deployment's trace, the span of the whole, and when it began.

        They follow from what the journal has of it, so a restart in the middle changes nothing.
        """
        began = self._journal.began(deployment.id) or dt.datetime.now(dt.UTC)
        seed = f"{deployment.digest} {deployment.id} {began.isoformat()}"
        found = hashlib.sha256(seed.encode()).hexdigest()
        return found[:32], found[32:48], int(began.timestamp() * 1e6) * 1000


_ENDED_UNSERVED: Final = (life.State.REJECTED, life.State.FAILED, life.State.ABANDONED)


def _attributes(deployment: Deployment) -> dict[str, str | int | float]:
    return {
        "superbrain.model.name": deployment.name,
        "superbrain.model.version": deployment.version,
        "superbrain.deployment.id": deployment.id,
        "superbrain.deployment.attempt": deployment.attempt,
        "superbrain.bundle.digest": deployment.digest,
        "superbrain.rung": deployment.rung,
    }


def line(process: str, record: RequestRecord) -> Line:
    """Give the line of the inference log that a request has."""
    at = dt.datetime.fromtimestamp(record.at_ns / 1e9, tz=dt.UTC)
    found: Line = {
        "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "request_id": record.request_id,
        "model": record.model,
        "version": record.version,
        "rung": record.rung,
        "deployment": record.deployment,
        "process": process,
        "road": record.road,
        "status": "error" if record.error else "ok",
        "error": record.error,
        "ms": _milliseconds(record),
        "inputs": [_tensor(tensor) for tensor in record.inputs],
        "outputs": [_tensor(tensor) for tensor in record.outputs],
        "trace": record.trace_id or (record.span.trace_id if record.span is not None else ""),
    }
    return {name: value for name, value in found.items() if value not in ("", 0, [])}


def _milliseconds(record: RequestRecord) -> dict[str, float]:
    found = {"total": record.duration_ns}
    if record.stages is not None:
        found |= {
            "queue": record.stages.queue_ns,
            "preprocess": record.stages.preprocess_ns,
            "engine": record.stages.engine_ns,
            "postprocess": record.stages.postprocess_ns,
        }
    return {name: round(took_ns / 1e6, 3) for name, took_ns in found.items()}


def _tensor(tensor: TensorRecord) -> Line:
    found: Line = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
    if tensor.sha256:
        found["sha256"] = tensor.sha256
    if tensor.payload is not None:
        found["payload"] = base64.b64encode(tensor.payload).decode()
    return found


def record_desk(config: Config, journal: Journal) -> tuple[RecordDesk, RecordPolicy]:
    """Make what records end at, and say of which requests there are any.

    Raises:
        TracesUnavailable: spans are to be exported, and the packages for it are missing.
    """
    wanted, traces = config.inference_log, config.traces
    file, spans = None, None
    if wanted.to == "file":
        file = InferenceLog(config.inference_log_path, wanted.file_mib << 20, wanted.files)
    if record_settings.exported(traces):
        record_settings.check_packages(traces)
        from superbrain.host.span_export import SpanExport, otlp

        spans = SpanExport(otlp(traces.endpoint, record_settings.protocol(traces)))
    desk = RecordDesk(journal, file, spans, to_journal=wanted.to == "journal")
    return desk, record_settings.policy(wanted, traces)
