"""The promise of a swap: fifty on each road under load, nothing failed, lost, doubled or mixed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.support.appliance import Appliance
from tests.support.bundles import make_bundle
from tests.support.load import Load

pytestmark = pytest.mark.integration

SWAPS = 50


def seen(load: Load, number: int) -> bool:
    return load.newest >= number


@pytest.mark.timeout(400)
@pytest.mark.parametrize("lanes", [True, False], ids=["lanes", "gateway"])
def test_fifty_swaps_under_load_of_four_clients_are_flawless(
    tmp_path: Path, *, lanes: bool
) -> None:
    with Appliance(tmp_path) as appliance:
        bundles = [
            make_bundle(
                tmp_path,
                appliance.author,
                version=f"{number}.0.0",
                sequence=number,
                constant=float(number),
            )
            for number in range(1, SWAPS + 2)
        ]
        appliance.drop(bundles[0])
        appliance.wait_live("adder", "1.0.0")
        with Load(partial(appliance.client, lanes=lanes), clients=4) as load:
            for number, bundle in enumerate(bundles[1:], start=2):
                appliance.drop(bundle)
                appliance.wait_for(partial(seen, load, number), f"an answer of version {number}")
        load.assert_flawless()
        assert len(load.versions) == SWAPS + 1
        appliance.wait_live("adder", f"{SWAPS + 1}.0.0")
        appliance.wait_for(lambda: len(appliance.at_work()) == 2, "one gateway and one worker")
