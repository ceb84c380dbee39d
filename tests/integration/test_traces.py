"""One request, from the program's own span to the stages in the worker, and what is told of it.

The receiver decodes what it gets with OpenTelemetry's official messages (tests/support/otlp.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from superbrain.client import AsyncClient, Client
from superbrain.host.span_export import SpanExport, otlp
from superbrain.wire.errors import InvalidArgument, NotFound
from superbrain.wire.trace_context import new_trace_id
from tests.support.appliance import Appliance
from tests.support.otlp import Receiver, Span
from tests.support.processes import until
from tests.support.releases import go_live, release

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

X = {"x": np.arange(4, dtype=np.float32).reshape(1, 4)}
WRONG = {"x": np.zeros((1, 5), np.float32)}
STAGES = ["queue", "preprocess", "engine", "postprocess"]
INTERNAL, SERVER, CLIENT = 1, 2, 3
PATIENCE_S = 60.0
SETTINGS = """
[inference_log]
to = "file"
share = 0.0
[traces]
endpoint = "{url}"
"""


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Appliance]:
    settings = SETTINGS.format(url=receiver.url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with Appliance(tmp_path_factory.mktemp("traces"), settings=settings) as appliance:
            go_live(appliance, 1)
            yield appliance


@pytest.fixture
def tracer(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[trace.Tracer]:
    """Let this program use OpenTelemetry, with the same collector."""
    provider = TracerProvider()
    exporter = OTLPSpanExporter(f"{receiver.url}/v1/traces")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield provider.get_tracer("program")
    provider.shutdown()


def on_lane(client: Client) -> None:
    """Ask until the worker is asked directly."""

    def there() -> bool:
        client.infer("adder", X, traceparent="")
        lanes = client._connection()._link._lanes
        return lanes is not None and any(model.usable for model in lanes._models.values())

    until(there, "a lane")


def trace_id_of(span: trace.Span) -> str:
    return f"{span.get_span_context().trace_id:032x}"


def under(spans: list[Span], parent: Span) -> list[Span]:
    found = [span for span in spans if span.parent_id == parent.span_id]
    return sorted(found, key=lambda span: (span.began_ns, span.ended_ns))


def lines(host: Appliance) -> list[dict[str, Any]]:
    path = host.root / "state/inference/inference.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def lines_of(host: Appliance, trace_id: str) -> list[dict[str, Any]]:
    return [line for line in lines(host) if line.get("trace") == trace_id]


# --- requests -------------------------------------------------------------------------------------


def test_on_a_lane_client_worker_and_stages_are_one_trace(
    host: Appliance, receiver: Receiver, tracer: trace.Tracer
) -> None:
    with host.client() as client:
        on_lane(client)
        with tracer.start_as_current_span("page") as page:
            client.infer("adder", X)
    spans = receiver.wait_for(trace_id_of(page), "page", *["infer adder"] * 2, *STAGES)
    (root,) = [span for span in spans if span.name == "page"]
    (asked,) = under(spans, root)
    assert asked.kind == CLIENT
    (worker,) = under(spans, asked)
    assert (worker.kind, worker.attributes["superbrain.road"]) == (SERVER, "lane")
    assert worker.attributes["superbrain.model.version"] == "1.0.0"
    assert worker.attributes["superbrain.rung"] == "onnxruntime:cpu"
    assert worker.resource["service.name"] == "superbrain"
    stages = under(spans, worker)
    assert [span.name for span in stages] == STAGES
    assert stages[0].began_ns == worker.began_ns
    assert stages[-1].ended_ns == worker.ended_ns
    assert asked.began_ns <= worker.began_ns
    assert worker.ended_ns <= asked.ended_ns


def test_through_the_gateway_it_stands_between_client_and_worker(
    host: Appliance, receiver: Receiver, tracer: trace.Tracer
) -> None:
    with host.client(lanes=False) as client, tracer.start_as_current_span("page") as page:
        client.infer("adder", X)
    spans = receiver.wait_for(trace_id_of(page), "page", *["infer adder"] * 3, *STAGES)
    (asked,) = under(spans, next(span for span in spans if span.name == "page"))
    (gateway,) = under(spans, asked)
    (worker,) = under(spans, gateway)
    assert (asked.kind, gateway.kind, worker.kind) == (CLIENT, SERVER, INTERNAL)
    assert gateway.attributes["superbrain.process"] == "gateway"
    assert [span.name for span in under(spans, worker)] == STAGES
    assert gateway.began_ns <= worker.began_ns
    assert worker.ended_ns <= gateway.ended_ns


def test_asyncio_and_shared_memory_are_part_of_it_too(
    host: Appliance, receiver: Receiver, tracer: trace.Tracer
) -> None:
    async def ask() -> None:
        async with AsyncClient(host.endpoint) as client:
            await client.infer("adder", X)

    with tracer.start_as_current_span("page") as page:
        asyncio.run(ask())
        with host.client() as client:
            client.wait_ready("adder")
            with client.buffers("adder", x=(1, 4)) as buffers:
                buffers["x"][:] = X["x"]
                assert buffers.infer()["y"][0, 3] == 4
            client.submit("adder", X).result()
    receiver.wait_for(trace_id_of(page), "page", *STAGES * 3)


@pytest.mark.parametrize("lanes", [True, False])
def test_a_caller_may_name_the_trace_and_its_failure_has_the_code(
    host: Appliance, receiver: Receiver, lanes: bool
) -> None:
    trace_id = new_trace_id()
    traceparent = f"00-{trace_id}-00f067aa0ba902b7-01"
    with host.client(lanes=lanes) as client:
        if lanes:
            on_lane(client)
        with pytest.raises(InvalidArgument):
            client.infer("adder", WRONG, traceparent=traceparent)
    spans = receiver.wait_for(trace_id, *["infer adder"] * (1 if lanes else 2), "preprocess")
    served = [span for span in spans if span.name == "infer adder"]
    assert served[0].parent_id == "00f067aa0ba902b7"
    assert {span.error for span in served} == {"INVALID_ARGUMENT"}
    assert {span.attributes["error.type"] for span in served} == {"INVALID_ARGUMENT"}
    until(lambda: len(lines_of(host, trace_id)) == 1, "its line")
    (line,) = lines_of(host, trace_id)
    assert (line["status"], line["error"]) == ("error", "INVALID_ARGUMENT")
    assert line["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [1, 5]}]
    assert line["road"] == ("lane" if lanes else "gateway")


def test_what_the_gateway_refuses_is_told_by_itself(host: Appliance, receiver: Receiver) -> None:
    trace_id = new_trace_id()
    with host.client() as client, pytest.raises(NotFound):
        client.infer("nobody", X, traceparent=f"00-{trace_id}-00f067aa0ba902b7-01")
    (span,) = receiver.wait_for(trace_id, "infer nobody")
    assert (span.error, span.kind) == ("NOT_FOUND", SERVER)
    until(lambda: len(lines_of(host, trace_id)) == 1, "its line")
    assert lines_of(host, trace_id)[0]["process"] == "gateway"


@pytest.mark.parametrize("lanes", [True, False])
@pytest.mark.parametrize("flags", ["00", "zz"])
def test_what_is_not_sampled_or_malformed_is_answered_and_not_exported(
    host: Appliance, receiver: Receiver, lanes: bool, flags: str
) -> None:
    trace_id, marker = new_trace_id(), new_trace_id()
    with host.client(lanes=lanes) as client:
        if lanes:
            on_lane(client)
        for _ in range(2):
            text = f"00-{trace_id}-00f067aa0ba902b7-{flags}"
            assert client.infer("adder", X, traceparent=text)["y"][0, 3] == 4
        client.infer("adder", X, traceparent=f"00-{marker}-00f067aa0ba902b7-01")
    receiver.wait_for(marker, *STAGES)  # it came later, so nothing of the others is still to come
    assert receiver.of(trace_id) == []


# --- deployments ----------------------------------------------------------------------------------


def test_a_deployment_is_a_trace_of_its_steps(host: Appliance, receiver: Receiver) -> None:
    until(
        lambda: any(span.name == "deploy adder" for span in receiver.spans),
        "its line",
    )
    root = next(span for span in receiver.spans if span.name == "deploy adder")
    spans = receiver.wait_for(root.trace_id, "verify", "build", "load", "prove", "swap")
    assert [span.name for span in under(spans, root)][:5] == [
        "verify",
        "build",
        "load",
        "prove",
        "swap",
    ]
    assert (root.parent_id, root.error) == ("", "")
    assert root.attributes["superbrain.model.version"] == "1.0.0"
    assert all(root.began_ns <= span.began_ns <= span.ended_ns for span in spans[1:])


def test_one_that_fails_has_its_reason_on_the_step_and_on_the_whole(
    host: Appliance, receiver: Receiver
) -> None:
    host.drop(release(host, 2, name="wrong", golden_error=1.0))
    host.wait_ended("wrong", "2.0.0", "REJECTED")
    until(
        lambda: any(span.name == "deploy wrong" for span in receiver.spans),
        "its line",
    )
    root = next(span for span in receiver.spans if span.name == "deploy wrong")
    steps = {span.name: span.error for span in under(receiver.of(root.trace_id), root)}
    assert steps == {"verify": "", "build": "", "load": "", "prove": "GOLDEN_MISMATCH"}
    assert root.error == "GOLDEN_MISMATCH"
    assert root.attributes["superbrain.deployment.state"] == "REJECTED"


# --- logs -----------------------------------------------------------------------------------------


def test_log_lines_about_a_deployment_bear_its_id(host: Appliance) -> None:
    concerned = (
        "bundle_taken",
        "worker_confined",
        "worker_started",
        "proof_passed",
        "worker_ready",
        "model_switched",
        "deployment_advanced",
    )
    for name in concerned:
        found = host.logged(name)
        assert found, name
        assert all(line["deployment"] > 0 for line in found), name


def test_a_collector_that_refuses_costs_nothing_and_is_said_once(
    host: Appliance, receiver: Receiver
) -> None:
    before = len(host.logged("spans_not_taken"))
    receiver.refuses = True
    try:
        asked = receiver.requests
        with host.client() as client:

            def refused_thrice() -> bool:
                traceparent = f"00-{new_trace_id()}-00f067aa0ba902b7-01"
                assert client.infer("adder", X, traceparent=traceparent)["y"][0, 3] == 4
                return receiver.requests >= asked + 3

            until(refused_thrice, "its line")
    finally:
        receiver.refuses = False
    assert len(host.logged("spans_not_taken")) == before + 1
    trace_id = new_trace_id()
    with host.client() as client:
        client.infer("adder", X, traceparent=f"00-{trace_id}-00f067aa0ba902b7-01")
    receiver.wait_for(trace_id, *STAGES[-1:])
    until(lambda: len(host.logged("spans_taken_again")) > 0, "its line")


# --- the rest of the configuration ----------------------------------------------------------------


def test_a_share_of_all_is_written_with_digests_and_payload_only_as_configured(
    tmp_path: Path,
) -> None:
    settings = '\n[inference_log]\nto = "file"\nshare = 1.0\npayload_bytes = 16\n'
    with Appliance(tmp_path, settings=settings) as appliance:
        go_live(appliance, 1)
        with appliance.client() as client:
            for _ in range(20):
                answer = client.infer("adder", X)
        until(lambda: len(lines(appliance)) == 20, "its line")
        assert appliance.stop() == 0
        roads = {line["road"] for line in lines(appliance)}
        line = lines(appliance)[-1]
        path = appliance.root / "state/inference/inference.jsonl"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert roads == {"lane", "gateway"}
    assert line["outputs"][0]["sha256"] == hashlib.sha256(answer["y"].tobytes()).hexdigest()
    assert line["inputs"][0]["payload"] == "AAAAAAAAgD8AAABAAABAQA=="
    assert (line["model"], line["status"], line["deployment"]) == ("adder", "ok", 1)
    assert set(line["ms"]) == {"total", *STAGES}
    assert line["request_id"]


def test_grpc_is_the_other_way_to_the_same_receiver(receiver: Receiver) -> None:
    trace_id = new_trace_id()
    export = SpanExport(otlp(receiver.grpc_url, "grpc"))
    export.span("mine", (trace_id, "", ""), (1, 2), {"superbrain.model.name": "adder"})
    export.close(PATIENCE_S)
    (span,) = receiver.of(trace_id)
    assert (span.name, span.began_ns, span.ended_ns) == ("mine", 1, 2)
