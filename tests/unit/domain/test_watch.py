"""Rules over what a serving process is seen to do: leaks, drifts, blame, when to prove again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from superbrain.domain.watch import (
    DESCRIPTORS,
    Drift,
    Growth,
    HostLoad,
    Reproof,
    Usual,
    Watch,
    blame,
    memory_resource,
    reproof_interval_s,
)

MIB = 1 << 20
MEMORY = memory_resource(Watch(leak_mb=64))

LIVES: dict[str, tuple[Callable[[int], float], bool]] = {
    "it stays": (lambda _n: 200, False),
    "a megabyte with every sample": (lambda n: 200 + n, True),
    "a megabyte with every hundredth sample": (lambda n: 200 + n // 100, True),
    "up and down": (lambda n: 200 + 300 * (n % 7 == 6), False),
    "a sawtooth that rises": (lambda n: 200 + n + 50 * (n % 5), True),
    "it has grown once and then stays": (lambda n: 200 if n < 300 else 900, False),
    "it approaches a bound": (lambda n: 200 + 400 * (1 - 0.99**n), False),
    "too little to matter": (lambda n: 10 + n / 500, False),
    "less than the share": (lambda n: 1000 + n / 100, False),
}


@pytest.mark.parametrize(("life", "leaks"), LIVES.values(), ids=LIVES)
def test_only_what_grows_and_goes_on_growing_is_a_leak(
    life: Callable[[int], float], leaks: bool
) -> None:
    growth = Growth(MEMORY, 0.5)
    for n in range(20_000):
        growth.add(life(n) * MIB)
    assert bool(growth.leak()) is leaks


def test_a_leak_is_told_with_figures() -> None:
    growth = Growth(MEMORY, 0.5)
    for n in range(20):
        growth.add((100 + 20 * n) * MIB)
    assert growth.leak() == "memory grew from 100 MiB to 480 MiB"
    descriptors = Growth(DESCRIPTORS, 0.5)
    for n in range(20):
        descriptors.add(20 + 50 * n)
    assert descriptors.leak() == "descriptors grew from 20 to 970"


def test_a_few_samples_are_too_few() -> None:
    growth = Growth(MEMORY, 0.5)
    for n in range(5):
        growth.add(100 * MIB * (1 + n))
    assert not growth.leak()


def drifting(*times: float, expected: float = 12.0, window_s: float = 5.0) -> Drift:
    drift = Drift(3.0, window_s, "proven")
    for at, milliseconds in enumerate(times):
        drift.add(float(at), milliseconds, expected)
    return drift


def test_a_drift_is_told_with_figures() -> None:
    slower = drifting(*[37.2] * 10).slower
    assert slower is not None
    assert slower.sentence == "3.1 times slower than proven, 12 ms → 37.2 ms"


DRIFTS: dict[str, tuple[list[int], bool]] = {
    "as proven": ([12] * 20, False),
    "slow for less than the window": ([40] * 5, False),
    "slow for the window": ([40] * 6, True),
    "a few slow ones among many": ([12, 12, 40] * 10, False),
    "it has become slow": ([12] * 20 + [40] * 6, True),
    "slow, then a little better": ([40] * 10 + [30] * 20, True),
    "slow, then good": ([40] * 10 + [12] * 20, False),
    "never beyond the factor": ([35] * 50, False),
}


@pytest.mark.parametrize(("times", "slow"), DRIFTS.values(), ids=DRIFTS)
def test_a_drift_begins_and_ends_at_different_factors(times: list[int], slow: bool) -> None:
    assert (drifting(*times).slower is not None) is slow


def test_what_nobody_expects_is_no_drift() -> None:
    assert drifting(*[1000] * 20, expected=0).slower is None


def test_the_usual_time_is_the_median_of_the_first_time_of_service() -> None:
    usual = Usual(10.0)
    for at in range(10):
        usual.add(float(at), 100.0 if at == 3 else 5.0)
        assert usual.ms == 0
    usual.add(10.0, 5.0)
    usual.add(11.0, 9000.0)
    assert usual.ms == 5


BLAMES: dict[str, tuple[list[float], HostLoad, str]] = {
    "nobody else is slow on an idle host": ([1.0, 1.1], HostLoad(20, 0), ""),
    "it is alone": ([], HostLoad(20, 0), ""),
    "one of two others is slow": ([1.0, 2.5], HostLoad(20, 0), "1 of 2 other models are slow"),
    "one of three others is slow": ([1.0, 1.0, 2.5], HostLoad(20, 0), ""),
    "processors are busy": ([1.0], HostLoad(97, 0), "97 % busy"),
    "processors are stolen": ([1.0], HostLoad(20, 30), "30 % of this machine's"),
}


@pytest.mark.parametrize(("others", "load", "says"), BLAMES.values(), ids=BLAMES)
def test_a_slow_host_is_not_a_models_fault(others: list[float], load: HostLoad, says: str) -> None:
    blamed = blame(others, 3.0, load)
    assert says in blamed
    assert bool(blamed) is bool(says)


@pytest.mark.parametrize(
    ("every_s", "in_probation", "expected"),
    [(300, False, 300), (300, True, 10), (5, True, 5), (0, False, 0), (0, True, 0)],
)
def test_what_is_on_probation_is_proven_more_often(
    every_s: float, in_probation: bool, expected: float
) -> None:
    assert reproof_interval_s(Reproof(every_s), 60, in_probation=in_probation) == expected
