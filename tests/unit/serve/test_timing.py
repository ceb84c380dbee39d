"""Timing a model: how many rounds there are, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from superbrain.bundle.folder import read_folder
from superbrain.domain.manifest import TIMING_S
from superbrain.serve.model import Model
from superbrain.serve.timing import summary, time_requests
from superbrain.serve.trial import Trial, goes_live_on, try_ladder
from tests.support.bundles import make_bundle_folder
from tests.support.models import RUNG


class Clock:
    """Stands for the clock and for rounds of `round_s` seconds, each said to be quicker."""

    def __init__(self, round_s: float) -> None:
        self.now = 0.0
        self._round_s = round_s
        self.rounds = 0

    def monotonic(self) -> float:
        return self.now

    def one(self) -> float:
        self.now += self._round_s
        self.rounds += 1
        return 100.0 / self.rounds


@pytest.mark.parametrize(
    ("round_s", "rounds"),
    [(0.0001, 200), (0.02, 25), (0.2, 5), (4.0, 3), (2 * TIMING_S, 1)],
)
def test_quick_models_have_many_rounds_and_slow_ones_few(round_s: float, rounds: int) -> None:
    clock = Clock(round_s)
    found = summary(clock.one, clock.monotonic)
    assert found.rounds == rounds
    assert clock.rounds == rounds + 1


def test_the_first_round_does_not_count_and_the_median_does() -> None:
    clock = Clock(0.2)
    found = summary(clock.one, clock.monotonic)
    assert (found.slowest_ms, found.median_ms, found.fastest_ms) == (50.0, 25.0, 100.0 / 6)


def test_a_model_is_timed_with_its_golden_requests(tmp_path: Path) -> None:
    folder = make_bundle_folder(tmp_path)
    manifest = read_folder(folder)
    with Model.open(folder, manifest, RUNG) as model:
        found = time_requests(model, folder, manifest)
    assert 0 < found.fastest_ms <= found.median_ms <= found.slowest_ms


def test_where_the_fastest_is_wanted_every_rung_is_tried_and_timed(tmp_path: Path) -> None:
    folder = make_bundle_folder(
        tmp_path, precisions=["fp16"], ladder=[RUNG, f"{RUNG}-fp16"], more='select = "fastest"'
    )
    manifest = read_folder(folder)
    trials = list(try_ladder(folder, manifest))
    assert all(trial.passed and trial.median_ms > 0 for trial in trials)
    assert goes_live_on(manifest, trials) == min(trials, key=lambda one: one.median_ms).rung
    assert goes_live_on(manifest, [Trial(RUNG, error="no")]) == ""
