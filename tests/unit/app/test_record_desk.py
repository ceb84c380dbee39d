"""Where records end: lines, spans of deployments, and what is said when they cannot be told."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from superbrain.app.record_desk import MOST_RECORDS, RecordDesk, line
from superbrain.deploy.journal import Journal
from superbrain.domain import deployment as life
from superbrain.domain.ctl import Records
from superbrain.domain.deployment import Deployment, Reason, State
from superbrain.domain.records import (
    RequestRecord,
    SpanRecord,
    StageRecord,
    StepRecord,
    TensorRecord,
)
from superbrain.host.inference_log import InferenceLog

AT = dt.datetime(2026, 3, 1, 9, 30, tzinfo=dt.UTC)
RECORD = RequestRecord(
    at_ns=int(AT.timestamp() * 1e9) + 125_000_000,
    duration_ns=3_500_000,
    request_id="a-1",
    model="adder",
    by="worker",
    road="lane",
    version="3.0.0",
    deployment=7,
    rung="onnxruntime:cpu",
    logged=True,
    inputs=[TensorRecord("x", "FP32", [1, 4], payload=b"four")],
    outputs=[TensorRecord("y", "FP32", [1, 4], "abcd")],
    stages=StageRecord(500_000, 1_000_000, 2_000_000, 0),
)


class Spans:
    """Keeps what is to be exported."""

    def __init__(self) -> None:
        self.made: list[tuple[Any, ...]] = []
        self.left_out = 0

    def request(self, process: str, record: RequestRecord) -> None:
        self.made.append((process, record))

    def span(self, name: str, ids: Any, times: Any, attributes: Any, *, error: str = "") -> None:  # noqa: ANN401
        self.made.append((name, ids, times, error))

    def close(self, patience_s: float) -> None:
        self.made.append(("closed",))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite")
    yield journal
    journal.close()


def deployed(journal: Journal, at: dt.datetime = AT) -> Deployment:
    return journal.create(
        Deployment(0, "adder", "3.0.0", 3, "ab" * 32, ("onnxruntime:cpu",), source="x"), at
    )


def desk(journal: Journal, **options: Any) -> tuple[RecordDesk, Spans]:  # noqa: ANN401
    spans: Any = Spans()
    return RecordDesk(journal, spans=spans, **options), spans


def test_a_line_is_for_people_and_programs_and_leaves_out_what_is_empty() -> None:
    assert line("worker 1", RECORD) == {
        "at": "2026-03-01T09:30:00.125Z",
        "request_id": "a-1",
        "model": "adder",
        "version": "3.0.0",
        "rung": "onnxruntime:cpu",
        "deployment": 7,
        "process": "worker 1",
        "road": "lane",
        "status": "ok",
        "ms": {"total": 3.5, "queue": 0.5, "preprocess": 1.0, "engine": 2.0, "postprocess": 0.0},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "payload": "Zm91cg=="}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 4], "sha256": "abcd"}],
    }


def test_a_line_of_one_that_was_refused_has_its_code_and_its_trace() -> None:
    refused = RequestRecord(
        1, 2_000_000, "", "nobody", "gateway", "gateway", error="NOT_FOUND", logged=True
    )
    found = line("gateway", refused)
    assert (found["status"], found["error"], found["ms"]) == ("error", "NOT_FOUND", {"total": 2.0})
    assert not {"request_id", "version", "deployment", "inputs", "trace"} & found.keys()
    traced = RequestRecord(1, 2, "a", "m", "worker", "lane", span=SpanRecord("ef" * 16, "12" * 8))
    assert line("worker 1", traced)["trace"] == "ef" * 16


def test_lines_are_written_and_only_of_those_that_were_picked(
    journal: Journal, tmp_path: Path
) -> None:
    async def scene() -> None:
        path = tmp_path / "inference.jsonl"
        made = RecordDesk(journal, InferenceLog(path, 1 << 20, 2))
        unpicked = RequestRecord(1, 2, "b-1", "adder", "worker", "lane")
        made.take("worker 1", Records([RECORD, unpicked, RECORD]))
        await made.close()
        found = [json.loads(text) for text in path.read_text().splitlines()]
        assert [one["request_id"] for one in found] == ["a-1", "a-1"]

    asyncio.run(scene())


def test_a_file_that_cannot_be_written_is_a_problem_until_it_can(
    journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        path = tmp_path / "folder" / "inference.jsonl"
        path.parent.mkdir()
        path.mkdir()
        made = RecordDesk(journal, InferenceLog(path, 1 << 20, 2))
        for _ in range(2):
            made.take("worker 1", Records([RECORD]))
            await made._pass_on()
        (problem,) = made.problems()
        assert (problem.severity, problem.subject) == ("warning", "inference log")
        assert str(path) in problem.message
        path.rmdir()
        made.take("worker 1", Records([RECORD]))
        await made._pass_on()
        assert made.problems() == []
        await made.close()

    asyncio.run(scene())
    said = [record.superbrain_event for record in caplog.records]  # type: ignore[attr-defined]
    assert said == ["inference_log_failed"]


def test_lines_that_wait_have_a_bound_and_those_left_out_are_said_once_a_while(
    journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "superbrain")

    async def scene() -> None:
        made = RecordDesk(journal, InferenceLog(tmp_path / "x.jsonl", 1 << 20, 2))
        made.take("worker 1", Records([RECORD] * (MOST_RECORDS + 5), left_out=3))
        made.take("worker 1", Records([], left_out=1))
        assert len(made._waiting) == MOST_RECORDS

    asyncio.run(scene())
    (said,) = caplog.records
    assert said.superbrain_fields == {"records": 8}  # type: ignore[attr-defined]


def test_to_the_journal_a_line_is_an_event(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "superbrain")

    async def scene() -> None:
        made, _ = desk(journal, to_journal=True)
        made.take("worker 1", Records([RECORD]))
        await made._pass_on()

    asyncio.run(scene())
    (said,) = caplog.records
    assert said.superbrain_event == "inference"  # type: ignore[attr-defined]
    assert said.superbrain_fields["model"] == "adder"  # type: ignore[attr-defined]


def test_the_steps_of_a_deployment_are_one_trace_also_across_a_restart(journal: Journal) -> None:
    deployment = deployed(journal)

    async def scene() -> list[Spans]:
        found = []
        for _ in range(2):  # the second is the daemon after a restart
            made, spans = desk(journal)
            made.step(deployment, StepRecord("prove", 10, 20))
            found.append(spans)
        made.stepped(deployment, life.Switched())
        return found

    before, after = asyncio.run(scene())
    assert before.made == after.made[:1]
    name, (trace_id, _, root_id), times, error = before.made[0]
    assert (name, times, error) == ("prove", (10, 20), "")
    whole = after.made[1]
    assert (whole[0], whole[1]) == ("deploy adder", (trace_id, root_id, ""))
    assert whole[2][0] == int(AT.timestamp() * 1e9)


def test_two_deployments_of_one_bundle_are_two_traces(journal: Journal) -> None:
    async def scene() -> set[str]:
        made, spans = desk(journal)
        for _ in range(2):
            made.step(deployed(journal), StepRecord("verify", 1, 2))
        return {ids[0] for _, ids, _, _ in spans.made}

    assert len(asyncio.run(scene())) == 2


@pytest.mark.parametrize(
    ("state", "happened", "spans"),
    [
        (State.PROBATION, life.Switched(), [""]),
        (State.REJECTED, life.Mismatched(Reason("GOLDEN_MISMATCH", "x")), ["GOLDEN_MISMATCH"]),
        (State.FAILED, life.StageFailed(Reason("DIED", "x")), ["DIED"]),
        (State.LIVE, life.Stable(), []),
        (State.RETIRED, life.Drained(), []),
        (State.BUILDING, life.StageFailed(Reason("DIED", "x")), []),
    ],
)
def test_the_whole_ends_when_it_serves_or_never_will(
    journal: Journal, state: State, happened: life.Event, spans: list[str]
) -> None:
    after = msgspec.structs.replace(deployed(journal), state=state)

    async def scene() -> list[str]:
        made, exported = desk(journal)
        made.stepped(after, happened)
        return [error for _, _, _, error in exported.made]

    assert asyncio.run(scene()) == spans


def test_a_record_that_cannot_be_passed_on_costs_no_other_one(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> list[str]:
        made, exported = desk(journal)
        real, taken = exported.request, []

        def request(process: str, record: RequestRecord) -> None:
            if record.request_id == "bad":
                raise ValueError("no record")
            taken.append(record.request_id)
            real(process, record)

        exported.request = request  # type: ignore[method-assign]
        running = asyncio.create_task(made.run())
        for name in ("bad", "good"):
            made.take("worker 1", Records([msgspec.structs.replace(RECORD, request_id=name)]))
            for _ in range(1000):
                if not made._waiting and not made._news.is_set():
                    break
                await asyncio.sleep(0)
        await made.close()
        assert not running.done()
        running.cancel()
        return taken

    assert asyncio.run(scene()) == ["good"]
    assert "task_failed" in [getattr(one, "superbrain_event", "") for one in caplog.records]
