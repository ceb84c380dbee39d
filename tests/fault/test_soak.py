"""A soak in the size of a test: every disturbance there is, under load, for a few seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.soak_story import Soak
from tests.support.appliance import Appliance

pytestmark = pytest.mark.fault
SECONDS = 15.0
KILLS = 12


@pytest.mark.timeout(240)
def test_random_kills_swaps_and_bad_bundles_cost_no_answer(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        soak = Soak(appliance, 1, clients=2, say=lambda _line: None)
        soak.live(SECONDS)
        assert soak.findings == []
        assert len(soak.ledger.done) >= 2


@pytest.mark.timeout(240)
def test_after_each_of_many_kills_the_last_good_version_serves_from_a_whole_store(
    tmp_path: Path,
) -> None:
    with Appliance(tmp_path) as appliance:
        soak = Soak(appliance, 2, clients=2, say=lambda _line: None)
        soak.kill(KILLS)
        assert soak.findings == []
        assert soak.ledger.kills >= KILLS
        assert (soak.ledger.orphans, soak.ledger.versions_lost) == (0, 0)
