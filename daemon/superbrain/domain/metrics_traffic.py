"""The metrics of requests: in the workers, by version and stage, and in the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from superbrain.domain.durations import STAGES
from superbrain.domain.health import Health
from superbrain.domain.metric import Metric, Row, of_host, of_model, of_version

_OUTCOMES: Final = {
    "ok": "ok",
    "caller_error": "caller_errors",
    "internal_error": "internal_errors",
    "expired": "expired",
    "refused": "refused",
}


def _requests(health: Health) -> Iterator[Row]:
    for model in health.models:
        for facts in model.versions:
            for outcome, field in _OUTCOMES.items():
                yield (model.name, facts.version, outcome), getattr(facts, field)


def _stages(health: Health) -> Iterator[Row]:
    for model in health.models:
        for facts in model.versions:
            for stage in STAGES:
                yield (model.name, facts.version, stage), facts.stages.get(stage)


METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        "superbrain_requests_total",
        "counter",
        ("model", "version", "outcome"),
        "Requests that workers have answered, whichever road they came, by how they ended.",
        _requests,
    ),
    Metric(
        "superbrain_request_duration_seconds",
        "histogram",
        ("model", "version", "stage"),
        "Where the time of requests that ended well went in the worker: queue, preprocess, engine "
        "and postprocess, which add up to superbrain_request_latency_seconds.",
        _stages,
    ),
    of_version(
        "superbrain_request_latency_seconds",
        "histogram",
        "Time from a request's arrival in the worker to its answer, of those that ended well.",
        lambda facts: facts.latency,
    ),
    of_version(
        "superbrain_runs_total",
        "counter",
        "Executions, each of one request or of several together.",
        lambda facts: facts.runs,
    ),
    of_version(
        "superbrain_batches_total",
        "counter",
        "Executions of several requests together.",
        lambda facts: facts.batches,
    ),
    of_version(
        "superbrain_batched_requests_total",
        "counter",
        "Requests that were executed together with others.",
        lambda facts: facts.batched_requests,
    ),
    of_model(
        "superbrain_queued_requests",
        "gauge",
        "Requests that wait in the workers.",
        lambda model: model.queued,
    ),
    of_host(
        "superbrain_gateway_up",
        "gauge",
        "1 while the process runs that owns the public socket.",
        lambda health: health.gateway.running,
    ),
    of_host(
        "superbrain_gateway_restarts_total",
        "counter",
        "How often it was started again.",
        lambda health: health.gateway.restarts,
    ),
    of_host(
        "superbrain_gateway_malformed_total",
        "counter",
        "Messages that were none.",
        lambda health: health.gateway.malformed,
    ),
    of_host(
        "superbrain_gateway_dropped_clients_total",
        "counter",
        "Clients that were given up because they do not read.",
        lambda health: health.gateway.dropped,
    ),
    of_model(
        "superbrain_gateway_requests_total",
        "counter",
        "Requests that came by the gateway.",
        lambda model: model.gateway.requests,
    ),
    of_model(
        "superbrain_gateway_errors_total",
        "counter",
        "Those that were answered with an error, by a worker or by the gateway itself.",
        lambda model: model.gateway.errors,
    ),
    of_model(
        "superbrain_gateway_redispatched_total",
        "counter",
        "Those that were sent again, as their worker made room or died.",
        lambda model: model.gateway.redispatched,
    ),
    of_model(
        "superbrain_gateway_latency_seconds",
        "histogram",
        "Time from a client's message to a worker's answer, waiting in the gateway included.",
        lambda model: model.gateway.latency,
    ),
    of_model(
        "superbrain_gateway_waiting_requests",
        "gauge",
        "Requests that wait in the gateway.",
        lambda model: model.waiting,
    ),
    of_model(
        "superbrain_gateway_outstanding_requests",
        "gauge",
        "Requests that a worker has from the gateway.",
        lambda model: model.outstanding,
    ),
)
