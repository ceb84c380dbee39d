"""Both twins of the gateway's turns do the same, to the byte, whatever clients send.

Each seed is a day of four clients, two models and three workers, as `tests.support.gateway_scripts`
draws it. It is played twice: what clients and workers have seen, and what was counted, is the same.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from superbrain.transport import compiled
from tests.support.gateway_loop import GatewayLoop
from tests.support.gateway_scripts import Day, Seen, answers_in
from tests.support.twins import MISSING

SEEDS = 40


def played(folder: Path, seed: int, twin: str) -> tuple[Seen, int]:
    """What was seen that day, and how many requests Python had nothing to do with."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        if twin == "python":
            patch.setattr(compiled, "loop", lambda: None)
        loop = GatewayLoop(folder, patch)
        try:
            day = Day(loop, seed)
            return day.play(), loop.usual[0]
        finally:
            loop.close()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_both_twins_do_the_same_all_day(tmp_path: Path, seed: int) -> None:
    if compiled.loop() is None:
        pytest.skip(MISSING)
    found, usual = played(tmp_path / "compiled", seed, "compiled")
    expected, unusual = played(tmp_path / "python", seed, "python")
    assert found.clients == expected.clients
    assert found.workers == expected.workers
    assert found.figures == expected.figures
    assert unusual == 0
    assert usual > 0
    assert sum(map(answers_in, found.clients.values())) > 0
