"""A soak in the size of a test: every disturbance there is, under load, for a few seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.soak_story import Soak
from tests.support.appliance import Appliance

pytestmark = pytest.mark.fault
SECONDS = 20.0


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", [1, 2])
def test_random_kills_swaps_and_bad_bundles_cost_no_answer(tmp_path: Path, seed: int) -> None:
    with Appliance(tmp_path) as appliance:
        soak = Soak(appliance, seed, clients=2, say=lambda _line: None)
        soak.live(SECONDS)
        assert soak.findings == []
        assert len(soak.done) > 3
