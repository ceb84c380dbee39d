"""What a metric is, and the usual ways to read one out of a health report.

`of_model("superbrain_queued_requests", "gauge", "What waits.", lambda model: model.queued)`
is a metric with the label `model` and a value for each of them. A value that the report does not
know is left out, never zero.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import NamedTuple

from superbrain.domain.durations import Histogram
from superbrain.domain.exposition import Family, Kind, Sample
from superbrain.domain.health import (
    GpuFacts,
    Health,
    ModelFacts,
    ProcessFacts,
    TcpFacts,
    VersionFacts,
)

Value = float | Histogram | dt.datetime | None
Row = tuple[tuple[str, ...], Value]


class Metric(NamedTuple):
    """One metric: `read` gives the values of its labels, and its own, as often as there are any."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    read: Callable[[Health], Iterator[Row]]

    def family(self, health: Health) -> Family:
        """Give its samples."""
        return Family(self.name, self.kind, self.meaning, list(self._samples(health)))

    def _samples(self, health: Health) -> Iterator[Sample]:
        for values, value in self.read(health):
            if value is None or (isinstance(value, Histogram) and not value.counts):
                continue
            number = value.timestamp() if isinstance(value, dt.datetime) else value
            yield Sample(dict(zip(self.labels, values, strict=True)), number)


def of_host(name: str, kind: Kind, meaning: str, read: Callable[[Health], Value]) -> Metric:
    """One value, without labels."""
    return Metric(name, kind, (), meaning, lambda health: iter([((), read(health))]))


def of_model(name: str, kind: Kind, meaning: str, read: Callable[[ModelFacts], Value]) -> Metric:
    """A value for each model."""

    def rows(health: Health) -> Iterator[Row]:
        return (((model.name,), read(model)) for model in health.models)

    return Metric(name, kind, ("model",), meaning, rows)


def of_served(name: str, kind: Kind, meaning: str, read: Callable[[ModelFacts], Value]) -> Metric:
    """A value for the version of each model that serves."""

    def rows(health: Health) -> Iterator[Row]:
        served = (model for model in health.models if model.version)
        return (((model.name, model.version), read(model)) for model in served)

    return Metric(name, kind, ("model", "version"), meaning, rows)


def of_version(
    name: str, kind: Kind, meaning: str, read: Callable[[VersionFacts], Value]
) -> Metric:
    """A value for each version that has served lately."""

    def rows(health: Health) -> Iterator[Row]:
        for model in health.models:
            for facts in model.versions:
                yield (model.name, facts.version), read(facts)

    return Metric(name, kind, ("model", "version"), meaning, rows)


def of_process(
    name: str, kind: Kind, meaning: str, read: Callable[[ProcessFacts], Value]
) -> Metric:
    """A value for each process: daemon, gateway, TCP face and every worker."""

    def rows(health: Health) -> Iterator[Row]:
        for process, model, facts in _processes(health):
            yield (process, model, str(facts.pid)), read(facts)

    return Metric(name, kind, ("process", "model", "pid"), meaning, rows)


def of_gpu(name: str, kind: Kind, meaning: str, read: Callable[[GpuFacts], Value]) -> Metric:
    """A value for each GPU."""

    def rows(health: Health) -> Iterator[Row]:
        return (((str(gpu.index),), read(gpu)) for gpu in health.gpus)

    return Metric(name, kind, ("gpu",), meaning, rows)


def of_tcp(name: str, kind: Kind, meaning: str, read: Callable[[TcpFacts], Value]) -> Metric:
    """A value where the TCP face is configured."""

    def rows(health: Health) -> Iterator[Row]:
        if health.tcp is not None:
            yield (), read(health.tcp)

    return Metric(name, kind, (), meaning, rows)


def ratio(percent: float | None) -> float | None:
    """Give a percentage as Prometheus has it."""
    return None if percent is None else percent / 100


def _processes(health: Health) -> Iterator[tuple[str, str, ProcessFacts]]:
    """Every process with its kind and, of a worker, its model."""
    yield "daemon", "", health.process
    if health.gateway.process is not None:
        yield "gateway", "", health.gateway.process
    if health.tcp is not None and health.tcp.process is not None:
        yield "tcp", "", health.tcp.process
    for model in health.models:
        for worker in model.workers:
            yield "worker", model.name, worker
