"""The metrics of models: what serves, its workers, its incidents and its deployments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, get_args

from superbrain.domain.deployment import UNFINISHED, State
from superbrain.domain.health import Health, IncidentKind, ModelState
from superbrain.domain.metric import Metric, Row, of_model, of_served, ratio


def _model_info(health: Health) -> Iterator[Row]:
    for model in health.models:
        if model.version:
            yield (model.name, model.version, model.rung, model.runtime, model.digest), 1


def _states(health: Health) -> Iterator[Row]:
    for model in health.models:
        for state in get_args(ModelState):
            yield (model.name, state), model.state == state


def _deployments(health: Health) -> Iterator[Row]:
    for model in health.models:
        for state in State:
            yield (model.name, str(state)), model.deployments.get(state, 0)


def _progress(health: Health) -> Iterator[Row]:
    for model in health.models:
        candidate = model.candidate
        if candidate is not None and candidate.state in UNFINISHED:
            yield (model.name, candidate.version, candidate.state), ratio(candidate.percent)


def _incidents(health: Health) -> Iterator[Row]:
    for model in health.models:
        for kind in get_args(IncidentKind):
            yield (model.name, kind), model.incident_counts.get(kind, 0)


METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        "superbrain_model_info",
        "gauge",
        ("model", "version", "rung", "runtime", "digest"),
        "Always 1: what serves.",
        _model_info,
    ),
    Metric(
        "superbrain_model_state",
        "gauge",
        ("model", "state"),
        "1 for the state that a model is in: ready, starting, degraded or unavailable.",
        _states,
    ),
    of_served(
        "superbrain_model_live_timestamp_seconds",
        "gauge",
        "Since when this version serves.",
        lambda model: model.live_since,
    ),
    of_served(
        "superbrain_model_proof_timestamp_seconds",
        "gauge",
        "When the processes that serve were proven.",
        lambda model: model.proof.at if model.proof else None,
    ),
    of_served(
        "superbrain_model_reproof_timestamp_seconds",
        "gauge",
        "When a golden case was last reproduced by a serving process.",
        lambda model: model.proven_again_at,
    ),
    of_served(
        "superbrain_model_slower",
        "gauge",
        "1 while it is much slower than it was proven or used to be.",
        lambda model: bool(model.slower),
    ),
    of_model(
        "superbrain_model_workers",
        "gauge",
        "Worker processes that run.",
        lambda model: len(model.workers),
    ),
    of_model(
        "superbrain_worker_restarts_total",
        "counter",
        "Workers started in the place of one that died or was wrong.",
        lambda model: model.restarts,
    ),
    of_model(
        "superbrain_worker_recycles_total",
        "counter",
        "Workers replaced because they leaked.",
        lambda model: model.recycled,
    ),
    Metric(
        "superbrain_incidents_total",
        "counter",
        ("model", "kind"),
        "Incidents that were dealt with, such as WorkerHung or LeakFound.",
        _incidents,
    ),
    Metric(
        "superbrain_deployments",
        "gauge",
        ("model", "state"),
        "Deployments that the journal knows, by state.",
        _deployments,
    ),
    Metric(
        "superbrain_deployment_progress_ratio",
        "gauge",
        ("model", "version", "state"),
        "How far a deployment is in its present state, where that is known.",
        _progress,
    ),
    of_model(
        "superbrain_swaps_total",
        "counter",
        "How often a new version took the traffic over.",
        lambda model: model.steps.get(State.PROBATION, 0),
    ),
    of_model(
        "superbrain_rollbacks_total",
        "counter",
        "How often the version before took it back.",
        lambda model: model.steps.get(State.ROLLED_BACK, 0),
    ),
    of_model(
        "superbrain_rejections_total",
        "counter",
        "Deployments that ended because the bundle does not do what its author recorded.",
        lambda model: model.steps.get(State.REJECTED, 0),
    ),
    of_model(
        "superbrain_failures_total",
        "counter",
        "Deployments that ended because this host could not run them.",
        lambda model: model.steps.get(State.FAILED, 0) + model.steps.get(State.BROKEN, 0),
    ),
)
