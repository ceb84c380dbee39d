"""What reports in a row say that none of them says alone: rates, and how they moved.

    trend = Trend()
    trend.add(first)
    trend.add(second)
    trend.models[0].requests_per_second

The daemon refreshes its figures at an interval of its own (`counted_at`), so a report with figures
that are known already adds nothing, however often it is asked for.
"""

from __future__ import annotations

import collections
import datetime as dt

import msgspec

from superbrain.domain.durations import STAGES, Histogram
from superbrain.domain.health import (
    CandidateFacts,
    GpuFacts,
    Health,
    HostFacts,
    ModelFacts,
    Problem,
    Severity,
)
from superbrain.domain.operations import Transition

KEPT = 240


class ModelTrend(msgspec.Struct, frozen=True):
    """One model between two looks.

    `mean_ms` and `stages_ms` are of the requests that ended well in between, None and empty when
    there were none; `p50_ms` and `p99_ms` are the report's own, of a longer time. `cpu_percent` and
    `rss_bytes` are all its workers together.
    """

    name: str
    state: str
    version: str
    rung: str
    requests_per_second: float
    errors_per_second: float
    mean_ms: float | None
    stages_ms: dict[str, float]
    p50_ms: float
    p99_ms: float
    waiting: int
    cpu_percent: float
    rss_bytes: int
    workers: int
    restarts: int
    candidate: CandidateFacts | None = None


class Top(msgspec.Struct, frozen=True):
    """What `superbrain top --json` prints: one look."""

    at: dt.datetime
    over_s: float
    status: Severity
    ready: bool
    version: str
    host: HostFacts
    gpus: list[GpuFacts]
    models: list[ModelTrend]
    problems: list[Problem]
    recent: list[Transition]


class Trend:
    """Takes in one report after the other.

    Attributes:
        models: each model as of the newest report, in its order.
        over_s: the time that rates are about; 0.0 while there is only one report.
    """

    def __init__(self) -> None:
        self.models: list[ModelTrend] = []
        self.over_s = 0.0
        self._rates: dict[str, collections.deque[float | None]] = {}
        self._times: dict[str, collections.deque[float | None]] = {}
        self._before: Health | None = None

    def add(self, health: Health) -> None:
        """Take in a report; one with known figures changes nothing but the states."""
        before = self._before
        if before is not None and _counted_at(health) <= _counted_at(before):
            known = {trend.name: trend for trend in self.models}
            self.models = [_restated(known.get(one.name), one) for one in health.models]
            return
        self._before = health
        if before is not None:
            self.over_s = (_counted_at(health) - _counted_at(before)).total_seconds()
        past = {model.name: model for model in before.models} if before is not None else {}
        self.models = [
            _between(model, past.get(model.name), self.over_s) for model in health.models
        ]
        if before is not None:
            self._keep()

    def rates(self, model: str) -> list[float | None]:
        """Give requests per second, look by look, the newest last."""
        return list(self._rates.get(model, ()))

    def times(self, model: str) -> list[float | None]:
        """Give mean milliseconds, look by look; None where no request ended."""
        return list(self._times.get(model, ()))

    def top(self, health: Health, recent: list[Transition]) -> Top:
        """Put together what programs read."""
        return Top(
            at=health.at,
            over_s=self.over_s,
            status=health.status,
            ready=health.ready,
            version=health.version,
            host=health.host,
            gpus=health.gpus,
            models=self.models,
            problems=health.problems,
            recent=recent,
        )

    def _keep(self) -> None:
        names = {model.name for model in self.models}
        for kept in (self._rates, self._times):
            for gone in kept.keys() - names:
                del kept[gone]
        for model in self.models:
            rates = self._rates.setdefault(model.name, collections.deque(maxlen=KEPT))
            times = self._times.setdefault(model.name, collections.deque(maxlen=KEPT))
            rates.append(model.requests_per_second)
            times.append(model.mean_ms)


def _counted_at(health: Health) -> dt.datetime:
    return health.counted_at or health.at


def _between(now: ModelFacts, before: ModelFacts | None, over_s: float) -> ModelTrend:
    past = before or now
    latency, stages = _growth(now, past)
    count = latency.count
    return ModelTrend(
        name=now.name,
        state=now.state,
        version=now.version,
        rung=now.rung,
        requests_per_second=_rate(now.requests - past.requests, over_s),
        errors_per_second=_rate(now.errors - past.errors, over_s),
        mean_ms=latency.sum_ns / count / 1e6 if count else None,
        stages_ms={stage: one.sum_ns / count / 1e6 for stage, one in stages.items()}
        if count
        else {},
        p50_ms=now.latency_ms.p50,
        p99_ms=now.latency_ms.p99,
        waiting=now.waiting + now.queued,
        cpu_percent=sum(worker.cpu_percent or 0.0 for worker in now.workers),
        rss_bytes=sum(worker.rss_bytes or 0 for worker in now.workers),
        workers=len(now.workers),
        restarts=now.restarts,
        candidate=now.candidate,
    )


def _restated(trend: ModelTrend | None, now: ModelFacts) -> ModelTrend:
    if trend is None:
        return _between(now, None, 0.0)
    return msgspec.structs.replace(
        trend, state=now.state, version=now.version, rung=now.rung, candidate=now.candidate
    )


def _growth(now: ModelFacts, before: ModelFacts) -> tuple[Histogram, dict[str, Histogram]]:
    """Add up what all versions have answered in between."""
    known = {facts.version: facts for facts in before.versions}
    whole: list[Histogram] = []
    stages: dict[str, list[Histogram]] = {stage: [] for stage in STAGES}
    for facts in now.versions:
        past = known.get(facts.version)
        whole.append(_less(facts.latency, past.latency if past else Histogram()))
        for stage, durations in facts.stages.items():
            earlier = past.stages.get(stage, Histogram()) if past else Histogram()
            stages.setdefault(stage, []).append(_less(durations, earlier))
    return _sum(whole), {stage: _sum(parts) for stage, parts in stages.items()}


def _less(now: Histogram, before: Histogram) -> Histogram:
    """Give count and sum of what has come; another daemon's earlier figures count as none."""
    if now.count < before.count:
        before = Histogram()
    return Histogram([now.count - before.count], now.sum_ns - before.sum_ns)


def _sum(parts: list[Histogram]) -> Histogram:
    return Histogram([sum(part.count for part in parts)], sum(part.sum_ns for part in parts))


def _rate(count: int, over_s: float) -> float:
    """A count that went backwards is another daemon's."""
    return max(0, count) / over_s if over_s > 0 else 0.0
