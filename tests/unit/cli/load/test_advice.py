"""Figures become sentences that say what to change."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from superbrain.cli.load.advice import advise
from superbrain.cli.load.figures import Latency, Plan, Step, Usage
from superbrain.cli.load.search import Slo


def step(callers: int = 4, **more: Any) -> Step:  # noqa: ANN401
    made = Step(Plan(callers, 0, 0, 1), 100, 1000.0, Latency(p99=1.0), {}, {"1": 1}, 0.1, 1.0)
    return msgspec.structs.replace(made, **more)


def told(*steps: Step, cores: int = 4, **more: Any) -> str:  # noqa: ANN401
    return "\n".join(advise(steps, cores, **more))


def test_nothing_to_say_is_nothing_said() -> None:
    assert told(step()) == ""


@pytest.mark.parametrize(
    ("code", "part"),
    [
        ("RESOURCE_EXHAUSTED", "raise serving.queue_size"),
        ("DEADLINE_EXCEEDED", "longer than their timeout"),
        ("INTERNAL", "the model failed"),
        ("STRANGE", "see the daemon's log"),
    ],
)
def test_errors_come_first_with_what_to_do(code: str, part: str) -> None:
    first = advise([step(errors={code: 1234})], 4)[0]
    assert first.startswith(f"1,234 requests failed with {code}: ")
    assert part in first


def at_rate(rate: float, p99: float, **more: Any) -> Step:  # noqa: ANN401
    return step(plan=Plan(0, rate, 0, 1), latency_ms=Latency(p99=p99), **more)


def test_every_rate_is_told_whether_it_keeps_the_limit() -> None:
    slo = Slo("p99", 20)
    kept, missed, failed = at_rate(50, 12), at_rate(1000, 31.25), at_rate(2000, 5, unsent=7)
    assert told(kept, slo=slo) == "p99 ≤ 20 ms is kept at 50 requests/s"
    late = "p99 ≤ 20 ms is not kept at 1,000 requests/s: p99 was 31.2 ms"
    assert told(step(), kept, missed, slo=slo).splitlines() == [told(kept, slo=slo), late]
    lost = "p99 ≤ 20 ms is not kept at 2,000 requests/s: 7 requests had no answer"
    assert lost in told(failed, slo=slo)


def test_a_busy_worker_on_an_idle_host_is_the_limit() -> None:
    busy = step(usage=[Usage("worker", 0.97, 1)], host_cores_busy=1.2)
    assert "the model is the limit: its worker used 1.0 cores and 2.8 were idle" in told(busy)
    two = step(usage=[Usage("worker 1", 0.95, 1), Usage("worker 2", 0.95, 1)], host_cores_busy=2)
    assert "its 2 workers" in told(two)


def test_a_busy_host_is_the_limit() -> None:
    busy = step(usage=[Usage("worker", 3.6, 1)], host_cores_busy=3.9)
    assert "3.9 of 4 cores busy, 3.6 of them with the model" in told(busy)


def test_asking_that_costs_much_is_told() -> None:
    busy = step(generator_cores=2.0, host_cores_busy=3.9)
    assert "51% of that with asking" in told(busy)


def test_a_busy_gateway_is_told() -> None:
    assert "ask by lanes" in told(step(usage=[Usage("gateway", 0.99, 1)]))


def test_a_busy_gpu_is_told() -> None:
    assert "the GPU is the limit: it was busy 97 %" in told(step(gpu_percent=97.0))


def test_callers_that_only_wait_are_told() -> None:
    steps = [
        step(1, throughput=500.0),
        step(2, throughput=980.0),
        step(8, throughput=1000.0, latency_ms=Latency(p99=7.5)),
    ]
    assert told(*steps) == (
        "2 callers get 98% of the highest throughput with a p99 of 1 ms; 8 wait for each other "
        "(7.5 ms)"
    )


def test_the_outcome_of_a_search_is_told() -> None:
    slo = Slo("p99", 20)
    assert told(step(), slo=slo, best_rate=240.0) == "p99 ≤ 20 ms is kept up to 240 requests/s"
    assert "was kept at no rate that was tried" in told(step(), slo=slo, best_rate=0.0)


def test_what_was_never_sent_is_told() -> None:
    assert "7 requests were never sent" in told(step(unsent=7))
