"""Figures of a load step: from every single latency to what stands in a row.

Every latency is kept, so quantiles are exact. In an open loop a latency counts from the moment at
which the request was to be sent, so waiting for a free caller is part of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


class Plan(msgspec.Struct, frozen=True):
    """One step: `callers` in a closed loop, or at `rate` requests a second when that is not 0."""

    callers: int
    rate: float
    warmup_s: float
    duration_s: float


class Taken(msgspec.Struct):
    """What one generator process measured: latencies in ms, errors by code, answers by version.

    `unsent`: requests of an open loop that no caller was free to send before time was up.
    """

    latencies_ms: list[float]
    errors: dict[str, int]
    versions: dict[str, int]
    took_s: float
    cpu_s: float
    unsent: int = 0


class Usage(msgspec.Struct, frozen=True):
    """What a process of the appliance used during a step: cores busy, and memory at its end."""

    name: str
    cores: float
    memory_bytes: int


class Latency(msgspec.Struct, frozen=True):
    """Of the answered requests of a step, in milliseconds."""

    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    max: float = 0.0

    def quantile(self, name: str) -> float:
        """Give `p50`, `p90`, `p99`, `p99.9`, `mean` or `max`."""
        value: float = getattr(self, name.replace("99.9", "999"))
        return value


class Step(msgspec.Struct, frozen=True):
    """One row: what was asked for, what came, and who was busy with it."""

    plan: Plan
    requests: int
    throughput: float
    latency_ms: Latency
    errors: dict[str, int]
    versions: dict[str, int]
    generator_cores: float
    host_cores_busy: float
    usage: list[Usage] = []
    gpu_percent: float | None = None
    unsent: int = 0

    @property
    def failed(self) -> int:
        """How many requests were not answered."""
        return sum(self.errors.values()) + self.unsent

    def cores(self, role: str) -> float:
        """How many cores the processes of a role used: `daemon`, `gateway` or `worker`."""
        return sum(one.cores for one in self.usage if one.name.split()[0] == role)


def summarize(
    plan: Plan,
    taken: Sequence[Taken],
    *,
    usage: Sequence[Usage] = (),
    host_cores_busy: float = 0.0,
    gpu_percent: float | None = None,
) -> Step:
    """Put together what all generator processes measured in one step."""
    latencies = sorted(latency for one in taken for latency in one.latencies_ms)
    took_s = max((one.took_s for one in taken), default=0.0)
    return Step(
        plan=plan,
        requests=len(latencies),
        throughput=len(latencies) / took_s if took_s else 0.0,
        latency_ms=latency_of(latencies),
        errors=_sum(one.errors for one in taken),
        versions=_sum(one.versions for one in taken),
        generator_cores=sum(one.cpu_s / one.took_s for one in taken if one.took_s),
        host_cores_busy=host_cores_busy,
        usage=list(usage),
        gpu_percent=gpu_percent,
        unsent=sum(one.unsent for one in taken),
    )


def latency_of(ordered: Sequence[float]) -> Latency:
    """Give mean, quantiles (nearest rank) and maximum of latencies in rising order."""
    if not ordered:
        return Latency()
    ranks = (math.ceil(share * len(ordered)) - 1 for share in QUANTILES.values())
    p50, p90, p99, p999 = (ordered[max(0, rank)] for rank in ranks)
    return Latency(math.fsum(ordered) / len(ordered), p50, p90, p99, p999, ordered[-1])


def _sum(counts: object) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:  # type: ignore[attr-defined]
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return total
