"""What a child may tell: messages that break their bounds are none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from superbrain.domain import ctl
from superbrain.domain.ctl_build import Built
from superbrain.domain.durations import BOUNDS_NS, Histogram
from superbrain.domain.proof import CaseTime, OutputFigures, Proof, Timing
from superbrain.domain.records import RequestRecord, SpanRecord
from superbrain.wire.lane import MOST_OUTSTANDING, Hello
from superbrain.wire.sentences import MOST_CHARACTERS

NAN, INFINITE = float("nan"), float("inf")
FIGURES = [OutputFigures("one", "y", "", True, "exact")]


def received(message: msgspec.Struct) -> Any:  # noqa: ANN401
    return msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=type(message))


def record(span: SpanRecord) -> RequestRecord:
    return RequestRecord(1, 1, "a", "m", "worker", "lane", span=span)


@pytest.mark.parametrize("number", [NAN, INFINITE, -INFINITE, 1e300])
@pytest.mark.parametrize(
    "made",
    [
        lambda number: ctl.Proven(Proof("cpu", FIGURES, [CaseTime("one", number)])),
        lambda number: ctl.Timed(Timing(3, number, 1.0, 1.0)),
        lambda number: ctl.Timed(Timing(3, 1.0, 1.0, number)),
        lambda number: ctl.WorkerPong(executing_s=number),
        lambda number: ctl.WorkerPong(longest_s=number),
        lambda number: ctl.WorkerPong(latency_ms=ctl.Quantiles(p99=number)),
        Built,
    ],
)
def test_a_figure_that_is_no_number_is_refused(made: Any, number: float) -> None:  # noqa: ANN401
    with pytest.raises(msgspec.ValidationError, match="Expected `float`"):
        received(made(number))


@pytest.mark.parametrize("number", [-1, 1 << 63])
@pytest.mark.parametrize(
    "made",
    [
        lambda number: ctl.WorkerPong(requests=number),
        lambda number: ctl.WorkerPong(batched_requests=number),
        lambda number: ctl.WorkerPong(latency=Histogram([number] * (len(BOUNDS_NS) + 1))),
        lambda number: ctl.Records([], left_out=number),
    ],
)
def test_a_count_below_zero_or_beyond_all_bounds_is_refused(made: Any, number: int) -> None:  # noqa: ANN401
    with pytest.raises(msgspec.ValidationError, match="Expected `int`"):
        received(made(number))


@pytest.mark.parametrize("buckets", [1, len(BOUNDS_NS), len(BOUNDS_NS) + 2])
def test_a_histogram_that_cannot_be_added_to_others_is_refused(buckets: int) -> None:
    odd = Histogram([1] * buckets)
    for fields in ({"latency": odd}, {"stages": {"queue": odd}}):
        body = msgspec.msgpack.encode({"type": "WorkerPong"} | fields)
        with pytest.raises(msgspec.ValidationError, match=f"found {buckets}"):
            msgspec.msgpack.decode(body, type=ctl.WorkerPong)


def test_a_stage_that_there_is_not_is_refused() -> None:
    body = msgspec.msgpack.encode({"type": "WorkerPong", "stages": {"x" * 1000: Histogram()}})
    with pytest.raises(msgspec.ValidationError, match="Invalid enum value"):
        msgspec.msgpack.decode(body, type=ctl.WorkerPong)


@pytest.mark.parametrize(
    "span",
    [
        SpanRecord("no hex", "0" * 16),
        SpanRecord("0" * 32, "0" * 15),
        SpanRecord("0" * 32, "0" * 16, "x"),
    ],
)
def test_ids_that_no_trace_has_are_refused(span: SpanRecord) -> None:
    with pytest.raises(msgspec.ValidationError, match="matching regex"):
        received(record(span))


def test_what_an_honest_child_tells_is_taken_as_it_is() -> None:
    pong = ctl.WorkerPong(
        requests=7,
        executing_s=-1e-9,  # two clocks, one after the other
        latency=Histogram([1] * (len(BOUNDS_NS) + 1), 5),
        stages={"queue": Histogram()},
    )
    told = record(SpanRecord("0a" * 16, "0b" * 8))
    for message in (pong, ctl.WorkerPong(), told, ctl.Failed("X", "short", "mend")):
        assert received(message) == message


@pytest.mark.parametrize("received_from", [received, lambda message: message])
def test_sentences_are_kept_as_long_as_a_person_reads(received_from: Any) -> None:  # noqa: ANN401
    long = "begins " + "x" * 1_000_000 + " ends \ud800"
    failed = received_from(ctl.Failed("X", long, long))
    figures = received_from(OutputFigures("one", "y", "", False, "exact", long))
    pong = received_from(ctl.WorkerPong(last_error=long))
    for text in (failed.message, failed.mend, figures.reason, pong.last_error):
        assert text.startswith("begins x")
        assert text.endswith("x ends ?")
        assert "characters left out" in text
        assert len(text) <= MOST_CHARACTERS


@pytest.mark.parametrize("window", [0, -1, MOST_OUTSTANDING + 1, 1 << 63])
def test_a_greeting_asks_for_a_window_that_can_be_kept(window: int) -> None:
    body = msgspec.json.encode(Hello("m", "1", 1, window))
    with pytest.raises(msgspec.ValidationError, match="window"):
        msgspec.json.decode(body, type=Hello)
