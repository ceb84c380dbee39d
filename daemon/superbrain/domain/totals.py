"""What has been counted since the daemon started, however often whoever counts was replaced.

Workers and gateways count from zero when they begin. Here is added up by how much their figures
have grown, so a total never goes backwards while the daemon runs; it begins anew with the daemon.
What a killed process did after it was last asked is lost.
"""

from __future__ import annotations

from typing import Final

import msgspec

from superbrain.domain.ctl import GatewayPong, ModelTraffic, Quantiles, WorkerPong
from superbrain.domain.durations import Histogram, plus_growth
from superbrain.domain.health import GatewayTraffic, VersionFacts

# Of an older version no more is told once so many newer ones have served.
KEPT_VERSIONS: Final = 4
_COUNTERS: Final = (
    *("ok", "caller_errors", "internal_errors", "expired", "refused"),
    *("runs", "batches", "batched_requests"),
)
_NOTHING: Final = ModelTraffic("", 0, 0, 0, 0, 0, 0, Quantiles())


class VersionTotals:
    """What the workers of a model have done, by the version that they served."""

    def __init__(self) -> None:
        self._versions: dict[str, VersionFacts] = {}

    def facts(self) -> list[VersionFacts]:
        """Give the newest versions, the one that was counted last at the end."""
        return list(self._versions.values())

    def add(self, version: str, now: WorkerPong, before: WorkerPong) -> None:
        """Count what a worker has done between two of its answers."""
        facts = self._versions.pop(version, None) or VersionFacts(version)
        counts = {
            name: getattr(facts, name) + getattr(now, name) - getattr(before, name)
            for name in _COUNTERS
        }
        stages = dict(facts.stages)
        for stage, durations in now.stages.items():
            past = before.stages.get(stage, Histogram())
            stages[stage] = plus_growth(stages.get(stage, Histogram()), durations, past)
        latency = plus_growth(facts.latency, now.latency, before.latency)
        self._versions[version] = VersionFacts(version, **counts, latency=latency, stages=stages)
        while len(self._versions) > KEPT_VERSIONS:
            del self._versions[next(iter(self._versions))]


class GatewayTotals:
    """What one gateway after the other has passed on.

    Attributes:
        malformed: messages and answers that were none.
        dropped: clients given up because they do not read.
    """

    def __init__(self) -> None:
        self.malformed = 0
        self.dropped = 0
        self._models: dict[str, GatewayTraffic] = {}
        self._before = GatewayPong(models=[])

    def of(self, model: str) -> GatewayTraffic:
        """Give what has passed the gateway for a model."""
        return self._models.get(model, GatewayTraffic())

    def begin_anew(self) -> None:
        """Another gateway counts from now on, from zero."""
        self._before = GatewayPong(models=[])

    def add(self, now: GatewayPong) -> None:
        """Count what has come since this gateway was asked before."""
        before, self._before = self._before, now
        self.malformed += now.malformed - before.malformed
        self.dropped += now.dropped - before.dropped
        known = {traffic.model: traffic for traffic in before.models}
        for traffic in now.models:
            past = known.get(traffic.model, _NOTHING)
            if traffic.requests < past.requests:  # forgotten and entered again in between
                past = _NOTHING
            self._models[traffic.model] = _grown(self.of(traffic.model), traffic, past)


def _grown(total: GatewayTraffic, now: ModelTraffic, before: ModelTraffic) -> GatewayTraffic:
    return msgspec.structs.replace(
        total,
        requests=total.requests + now.requests - before.requests,
        errors=total.errors + now.errors - before.errors,
        redispatched=total.redispatched + now.redispatched - before.redispatched,
        latency=plus_growth(total.latency, now.latency, before.latency),
    )
