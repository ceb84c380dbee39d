"""Brief outages with real processes: a version stops for its successor, and may come back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from superbrain.domain.health import ModelFacts, Problem
from superbrain.domain.operations import Outcome, Rollback, Transition
from superbrain.wire.errors import DeadlineExceeded
from tests.support.appliance import Appliance
from tests.support.cuts import CUT_DAEMON
from tests.support.load import Load
from tests.support.releases import LARGE, MODELS_MIB, answer, go_live, release

pytestmark = [pytest.mark.fault, pytest.mark.integration]

GATE = """
import pathlib, time

class Pipeline:
    def __init__(self, bundle):
        while not pathlib.Path({gate!r}).exists():
            time.sleep(0.01)
    def preprocess(self, request): return request
    def postprocess(self, outputs, request): return outputs
"""


@pytest.fixture
def appliance(tmp_path: Path) -> Iterator[Appliance]:
    with Appliance(tmp_path, start=False) as made:
        made.configure("deploy", "memory_mib", MODELS_MIB)
        made.start()
        yield made


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file without which no version from `gated` loads."""
    return tmp_path / "gate"


def gated(gate: Path) -> dict[str, Any]:
    return {**LARGE, "pipeline": GATE.format(gate=str(gate))}


def in_outage(appliance: Appliance, version: str) -> ModelFacts:
    def there() -> ModelFacts | None:
        model = appliance.model("adder")
        outage = model.outage if model else None
        mine = outage is not None and (outage.version, outage.outcome) == (version, "under way")
        return model if mine else None

    return appliance.wait_for(there, f"the outage for {version}")


def over(appliance: Appliance, version: str, outcome: str) -> float:
    """Wait for the end of the outage for `version`; for how many seconds nobody answered."""

    def ended() -> float | None:
        model = appliance.model("adder")
        outage = model.outage if model else None
        good = outage is not None and (outage.version, outage.outcome) == (version, outcome)
        return outage.seconds if good and outage else None

    return appliance.wait_for(ended, f"the outage for {version} to have {outcome}")


def steps(appliance: Appliance, version: str) -> list[Transition]:
    return [step for step in appliance.history("adder") if step.version == version]


def names(appliance: Appliance, version: str) -> list[str]:
    return [step.event for step in steps(appliance, version)]


def outage_problem(appliance: Appliance) -> Problem | None:
    found = appliance.health().problems
    return next((one for one in found if "to make room" in one.message), None)


def told_of_it(appliance: Appliance) -> bool:
    """Ask with little time; whether the gateway says, not the client by itself, why it was late."""
    with appliance.client() as client, pytest.raises(DeadlineExceeded) as late:
        client.infer("adder", {"x": np.zeros((1, 4), np.float32)}, timeout=0.5)
    return "adder 1.0.0 has stopped to make room for adder 2.0.0" in late.value.message


def test_a_successor_takes_the_place_of_what_serves_and_whoever_waited_is_answered(
    appliance: Appliance, gate: Path
) -> None:
    go_live(appliance, 1, **LARGE)
    with Load(appliance.client, pause_s=0.01) as load:
        appliance.wait_for(lambda: load.answered, "answers before")
        appliance.drop(release(appliance, 2, **gated(gate)))
        model = in_outage(appliance, "2.0.0")
        assert (model.state, model.version, model.outage) == ("starting", "1.0.0", model.outage)
        assert model.outage is not None
        assert "needs at least 238 MiB" in model.outage.why
        problem = appliance.wait_for(lambda: outage_problem(appliance), "the problem to be told")
        assert problem.severity == "warning"
        assert "adder 1.0.0 has stopped to make room for 2.0.0" in problem.message
        assert not appliance.health().ready
        appliance.wait_for(lambda: told_of_it(appliance), "callers to be told why they wait")
        gate.touch()
        appliance.wait_live("adder", "2.0.0")
        answered = load.answered
        appliance.wait_for(lambda: load.answered > answered, "answers after")
    load.assert_flawless()
    assert load.versions == {"1.0.0", "2.0.0"}
    seconds = over(appliance, "2.0.0", "switched")
    assert max(gap.seconds for gap in load.gaps) >= seconds - 1
    told = names(appliance, "2.0.0")
    assert told.index("OutageBegan") < told.index("Built") < told.index("OutageEnded")
    said = next(one for one in steps(appliance, "2.0.0") if one.event == "OutageEnded")
    assert f"nobody answered for {seconds:.1f} s" in said.detail
    (ended,) = appliance.logged("outage_ended")
    assert (ended["outcome"], ended["seconds"]) == ("switched", seconds)

    appliance.ask(Rollback("adder"), Outcome)
    assert answer(appliance) == 1, "the way back does not fit beside it either"
    over(appliance, "1.0.0", "switched")
    model = appliance.wait_live("adder", "1.0.0")
    assert [one.kind for one in model.incidents] == ["BriefOutage", "BriefOutage"]
    assert model.outage is not None
    assert not outage_problem(appliance)


def test_a_successor_that_fails_in_the_outage_gives_the_place_back(
    appliance: Appliance, gate: Path
) -> None:
    go_live(appliance, 1, **LARGE)
    with Load(appliance.client, pause_s=0.01) as load:
        appliance.drop(release(appliance, 2, **LARGE, golden_error=1.0))
        appliance.wait_ended("adder", "2.0.0", "REJECTED")
        over(appliance, "2.0.0", "went back")
        appliance.wait_live("adder", "1.0.0")

        appliance.drop(release(appliance, 3, **gated(gate)))
        in_outage(appliance, "3.0.0")
        appliance.drop(release(appliance, 4, **LARGE))
        appliance.wait_ended("adder", "3.0.0", "ABANDONED")
        appliance.wait_live("adder", "4.0.0")
    load.assert_flawless()
    assert load.versions == {"1.0.0", "4.0.0"}
    assert "adder 1.0.0 serves again" in steps(appliance, "3.0.0")[-1].detail


def test_a_kill_in_the_outage_ends_with_the_last_good_version_and_the_sites_word_wins(
    appliance: Appliance, gate: Path
) -> None:
    go_live(appliance, 1, **LARGE)
    appliance.drop(release(appliance, 2, **gated(gate)))
    in_outage(appliance, "2.0.0")
    with appliance.client() as client:
        waiting = client.submit("adder", {"x": np.zeros((1, 4), np.float32)})
        appliance.kill()
        appliance.configure("outage", "allow", "never")
        appliance.start()
        assert waiting.result()["y"][0, 0] == 1, "asked in the outage, answered after the kill"
    model = appliance.wait_live("adder", "1.0.0")
    over(appliance, "2.0.0", "cut short")
    step = appliance.wait_ended("adder", "2.0.0", "FAILED")
    assert "the daemon ended while adder was without an answer" in step.detail
    assert not model.fault

    begun = len(appliance.logged("outage_began"))
    appliance.drop(release(appliance, 3, **LARGE))
    step = appliance.wait_ended("adder", "3.0.0", "FAILED")
    assert "needs at least 238 MiB" in step.detail
    assert len(appliance.logged("outage_began")) == begun, "though the bundle allows it"

    appliance.stop()
    appliance.configure("outage", "allow", "always")
    appliance.configure("outage", "limit_s", 1.0)
    appliance.start()
    unasked = {**gated(gate), "serving": ""}
    appliance.drop(release(appliance, 4, **unasked))
    step = appliance.wait_ended("adder", "4.0.0", "FAILED")
    assert "did not serve within outage.limit_s" in step.detail
    over(appliance, "4.0.0", "went back")
    assert answer(appliance) == 1


def test_a_disk_that_fills_up_in_the_outage_keeps_nobody_from_coming_back(
    tmp_path: Path, gate: Path
) -> None:
    with Appliance(tmp_path, start=False) as appliance:
        orders = appliance.root / "orders"
        appliance.configure("deploy", "memory_mib", MODELS_MIB)
        appliance.configure("outage", "limit_s", 1.0)
        appliance.start(CUT_DAEMON, str(orders))
        go_live(appliance, 1, **LARGE)
        appliance.drop(release(appliance, 2, **gated(gate)))
        in_outage(appliance, "2.0.0")
        orders.write_text("ENOSPC 1 lasting")
        (ended,) = appliance.wait_for(lambda: appliance.logged("outage_ended"), "its end")
        assert "adder 1.0.0 serves again" in ended["message"]
        assert answer(appliance) == 1, "though no step can be written down"
        orders.unlink()
        step = appliance.wait_ended("adder", "2.0.0", "FAILED")
        assert "did not serve within outage.limit_s" in step.detail
        assert answer(appliance) == 1
