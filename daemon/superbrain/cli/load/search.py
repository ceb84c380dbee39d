"""The highest rate at which a limit on latency is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from superbrain.cli.load.figures import QUANTILES, Step

STEPS = 6
# Below this share of the closed-loop maximum nobody is interested in the exact rate any more.
_LEAST_SHARE = 0.05
_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


class Slo(NamedTuple):
    """A limit on latency: `p99=20ms`."""

    quantile: str
    limit_ms: float

    def __str__(self) -> str:
        return f"{self.quantile} ≤ {self.limit_ms:g} ms"

    def met(self, step: Step) -> bool:
        """Whether a step answered everything and kept the limit.

        A rate that a host cannot keep up with shows in the latencies, which count from the moments
        at which requests fell due.
        """
        if step.failed or not step.requests:
            return False
        return step.latency_ms.quantile(self.quantile) <= self.limit_ms


def parse_slo(text: str) -> Slo:
    """Read `QUANTILE=TIME`, such as `p99=20ms`, `p50=800us`, `max=1s`.

    Raises:
        ValueError: it is something else.
    """
    quantile, _, time = text.partition("=")
    number = time.rstrip("mus")
    unit = time[len(number) :]
    if quantile in {*QUANTILES, "mean", "max"} and unit in _UNITS_MS:
        try:
            limit_ms = float(number) * _UNITS_MS[unit]
        except ValueError:
            limit_ms = 0.0
        if 0 < limit_ms < 1e9:
            return Slo(quantile, limit_ms)
    msg = f"expected a limit such as p99=20ms, p50=800us or max=1s, got {text!r}"
    raise ValueError(msg)


def find_rate(
    measure: Callable[[float], Step], ceiling: float, slo: Slo
) -> tuple[float, list[Step]]:
    """Close in on the highest rate that keeps `slo`.

    Args:
        measure: carries out a step at a rate.
        ceiling: no rate above is tried, such as what a closed loop reached.
        slo: the limit.

    Returns:
        The highest rate that was seen to keep it, 0.0 for none; and every step, in order.
    """
    steps: list[Step] = []
    best, worst = 0.0, ceiling
    rate = ceiling / 2
    while len(steps) < STEPS and rate >= ceiling * _LEAST_SHARE:
        steps.append(measure(rate))
        if slo.met(steps[-1]):
            best = rate
        else:
            worst = rate
        rate = (best + worst) / 2
    return best, steps
