"""Models that hang, crash, leak, become slow or wrong: contained, named, replaced, rolled back."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from superbrain.client import Client
from superbrain.domain.health import Incident
from superbrain.wire.errors import Internal, Unavailable
from tests.support.appliance import Appliance
from tests.support.load import Load
from tests.support.releases import answer, release

pytestmark = [pytest.mark.fault, pytest.mark.integration]

PIPELINE = """
import os, time
calls = 0
kept = []

class Pipeline:
    def __init__(self, bundle): pass
    def preprocess(self, request):
        global calls
        calls += 1
        first = float(request["x"].flat[0])
        {before}
        return request
    def postprocess(self, outputs, request):
        first = float(request["x"].flat[0])
        {after}
        return outputs
"""
BAD = 666.0
#: Quick to notice, and never mistaken on a busy machine: what a test is not about is switched off.
QUICK = """
[watch]
hang_grace_s = 0.3
warm_up_s = {warm_up_s}
sample_s = 0.1
leak_share = 0.1
leak_mb = 4
drift_factor = {drift_factor}
drift_s = 1.0
drift_spends_budget = false
[proof]
every_s = {every_s}
postpone_s = 1.0
[sandbox]
memory_mib = 600
"""


def quick(*, warm_up_s: float = 3600, drift_factor: float = 1000, every_s: float = 0) -> str:
    return QUICK.format(warm_up_s=warm_up_s, drift_factor=drift_factor, every_s=every_s)


def pipeline(*, before: str = "pass", after: str = "pass") -> str:
    return PIPELINE.format(before=before, after=after)


def wrong_if(flag: Path) -> str:
    wrong = "{k: v + 1 for k, v in outputs.items()}"
    return pipeline(after=f"outputs = {wrong} if os.path.exists({str(flag)!r}) else outputs")


def dies_if(flag: Path) -> str:
    return pipeline(before=f"if os.path.exists({str(flag)!r}): os._exit(3)")


def x(value: float) -> dict[str, Any]:
    return {"x": np.full((1, 4), value, np.float32)}


def go_live(appliance: Appliance, name: str, number: int = 1, **options: Any) -> None:  # noqa: ANN401
    appliance.drop(release(appliance, number, name=name, **options))
    appliance.wait_live(name, f"{number}.0.0")


def incidents(appliance: Appliance, name: str) -> dict[str, Incident]:
    model = appliance.model(name)
    assert model is not None
    return {incident.kind: incident for incident in model.incidents}


def wait_incident(appliance: Appliance, name: str, kind: str) -> Incident:
    return appliance.wait_for(lambda: incidents(appliance, name).get(kind), f"{kind} of {name}")


def events(appliance: Appliance, name: str) -> list[str]:
    return [step.event for step in appliance.history(name)]


# --- hangs ----------------------------------------------------------------------------------------


def test_hanging_requests_end_their_workers_and_nothing_else(tmp_path: Path) -> None:
    hangs = pipeline(after=f"time.sleep(3600 if first == {BAD} else 0)")
    with Appliance(tmp_path, settings=quick()) as appliance:
        go_live(appliance, "adder", pipeline=hangs, serving="request_timeout_ms = 400")
        with appliance.client() as client:
            bad = client.submit("adder", x(BAD), timeout=60)
            behind = [client.submit("adder", x(n), timeout=60) for n in range(8)]
            assert [float(one.result()["y"][0, 0]) for one in behind] == [n + 1 for n in range(8)]
            with pytest.raises(Internal, match="ended 2 workers"):
                bad.result()
        hung = wait_incident(appliance, "adder", "WorkerHung")
        assert "executed one request for over 0.7 s" in hung.message
        assert "it executed the request" in hung.message
        assert "is not tried again" in wait_incident(appliance, "adder", "RequestPoisoned").message
        assert {"WorkerHung", "RequestPoisoned"} <= set(events(appliance, "adder"))

        # A swap does not wait for what hangs: the new version answers it.
        go_live(appliance, "other", pipeline=hangs)
        with appliance.client() as client:
            hanging = client.submit("other", x(BAD), timeout=60)
            behind = [client.submit("other", x(n), timeout=60) for n in range(3)]
            appliance.wait_for(
                lambda: hanging.done() or appliance.model("other").outstanding,  # type: ignore[union-attr]
                "the requests to travel",
            )
            go_live(appliance, "other", 2)
            assert hanging.result()["y"][0, 0] == BAD + 2
            assert [one.result().model_version for one in behind] == ["2.0.0"] * 3
        assert "to make room" in wait_incident(appliance, "other", "WorkerHung").message


def test_code_that_never_returns_fails_its_deployment_with_a_mend(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        serving = "load_timeout_s = 1"
        appliance.drop(release(appliance, 1, pipeline="while True: pass", serving=serving))
        step = appliance.wait_ended("adder", "1.0.0", "FAILED")
        assert "did not finish Load within 1 s" in step.detail
        model = appliance.model("adder")
        assert model is not None
        assert model.candidate is not None
        assert "never returns" in model.candidate.mend


# --- crash loops ----------------------------------------------------------------------------------


def worst_gap_s(client: Client, until: str) -> float:
    """Ask until a version answers; the longest time without an answer."""
    worst, last = 0.0, time.monotonic()
    while True:
        version = client.infer("adder", x(1), timeout=60).model_version
        worst, last = max(worst, time.monotonic() - last), time.monotonic()
        if version == until:
            return worst


def test_a_crash_loop_in_probation_goes_back_to_the_warm_version(tmp_path: Path) -> None:
    flag = tmp_path / "dies"
    with Appliance(tmp_path, crashes=1, probation_s=60, settings=quick()) as appliance:
        appliance.drop(release(appliance, 1))
        appliance.wait_ended("adder", "1.0.0", "PROBATION")
        appliance.drop(release(appliance, 2, pipeline=dies_if(flag)))
        appliance.wait_ended("adder", "2.0.0", "PROBATION")
        flag.touch()
        with appliance.client() as client:
            print(f"worst gap: {1000 * worst_gap_s(client, '1.0.0'):.0f} ms")
        step = appliance.wait_ended("adder", "2.0.0", "ROLLED_BACK")
        assert step.event == "PreviousReady"


def test_a_crash_loop_of_a_live_version(tmp_path: Path) -> None:
    flag = tmp_path / "dies"
    with Appliance(tmp_path, crashes=1, settings=quick()) as appliance:
        # With a version before it: that one is proven again and takes over.
        go_live(appliance, "adder", 1)
        go_live(appliance, "adder", 2, pipeline=dies_if(flag))
        appliance.wait_ended("adder", "1.0.0", "RETIRED")
        go_live(appliance, "alone", 1, pipeline=dies_if(flag))
        flag.touch()
        with appliance.client() as client:
            print(f"worst gap: {1000 * worst_gap_s(client, '1.0.0'):.0f} ms")
        appliance.wait_ended("adder", "2.0.0", "ROLLED_BACK")
        assert any("died 2 times" in step.detail for step in appliance.history("adder"))

        # With none before it: it is restarted ever more slowly, and health says when.
        with appliance.client() as client:
            waiting = client.submit("alone", x(1), timeout=60)
            appliance.wait_for(
                lambda: (
                    waiting.done()
                    or any("restarting in" in p.message for p in appliance.health().problems)
                ),
                "health to say when it is restarted",
            )
            assert not waiting.done()
            flag.unlink()
            assert waiting.result()["y"][0, 0] == 2
        appliance.wait_live("alone", "1.0.0", "degraded")
        assert answer(appliance) == 1


# --- leaks ----------------------------------------------------------------------------------------


def test_a_leak_is_recycled_under_load_and_a_runaway_is_ended(tmp_path: Path) -> None:
    leaks = pipeline(before='kept.append(b"x" * (1 << 16))')
    with Appliance(tmp_path, settings=quick(warm_up_s=0.2)) as appliance:
        go_live(appliance, "adder", pipeline=leaks)
        with Load(appliance.client, clients=2) as load:
            recycled = wait_incident(appliance, "adder", "WorkerRecycled")
        load.assert_flawless()
        assert "memory grew from" in recycled.message
        model = appliance.model("adder")
        assert model is not None
        assert model.recycled >= 1
        assert model.restarts == 0
        assert "WorkerRecycled" in events(appliance, "adder")

        runaway = pipeline(before=f'kept.append(b"x" * ((1 << 30) if first == {BAD} else 0))')
        go_live(appliance, "glutton", pipeline=runaway)
        with appliance.client() as client:
            with suppress(Internal):  # it may be answered before its worker is looked at
                client.infer("glutton", x(BAD), timeout=60)
            exceeded = wait_incident(appliance, "glutton", "LimitExceeded")
            assert "600 MiB" in exceeded.message
            assert client.infer("glutton", x(1), timeout=60)["y"][0, 0] == 2
        appliance.wait_for(lambda: appliance.model("glutton").restarts >= 1, "a restart")  # type: ignore[union-attr]


# --- slow and wrong -------------------------------------------------------------------------------


def test_a_model_that_becomes_slow_is_named_with_figures(tmp_path: Path) -> None:
    slower = pipeline(before="time.sleep(0.01 if calls < 30 else 0.15)")
    with Appliance(tmp_path, settings=quick(drift_factor=4, every_s=0.2)) as appliance:
        appliance.drop(release(appliance, 1, pipeline=slower))
        appliance.wait_live("adder", "1.0.0", "degraded")
        model = appliance.model("adder")
        assert model is not None
        assert "times slower than proven" in model.slower
        assert model.proven_again_at is not None
        assert any("times slower" in p.message for p in appliance.health().problems)
        slow = wait_incident(appliance, "adder", "BecameSlow")
        assert "ms → " in slow.message
        assert "BecameSlow" in events(appliance, "adder")


def test_a_process_that_turns_wrong_is_replaced(tmp_path: Path) -> None:
    turns = pipeline(after="outputs = outputs if calls < 100 else {'y': outputs['y'] + 1}")
    with Appliance(tmp_path, settings=quick(every_s=0.1)) as appliance:
        go_live(appliance, "adder", pipeline=turns)
        with Load(appliance.client, clients=1) as load:
            wait_incident(appliance, "adder", "ProvenAgain")
        assert load.failed == []
        steps = appliance.history("adder")
        wrong = next(step for step in steps if step.event == "ReproofMismatch")
        assert "no longer reproduces a golden case: case" in wrong.detail
        assert not any(step.event == "ReproofFailed" for step in steps)
        assert appliance.model("adder").restarts >= 1  # type: ignore[union-attr]


def test_a_version_that_is_wrong_in_a_fresh_process_too_is_rolled_back(tmp_path: Path) -> None:
    flag = tmp_path / "wrong"
    with Appliance(tmp_path, settings=quick(every_s=0.2)) as appliance:
        go_live(appliance, "adder", 1)
        go_live(appliance, "adder", 2, pipeline=wrong_if(flag))
        go_live(appliance, "both", 1, pipeline=wrong_if(flag))
        go_live(appliance, "both", 2, pipeline=wrong_if(flag))
        flag.touch()
        with Load(appliance.client, clients=1) as load:
            appliance.wait_ended("adder", "2.0.0", "ROLLED_BACK")
            appliance.wait_live("adder", "1.0.0")
        assert load.failed == []
        failed = next(s for s in appliance.history("adder") if s.event == "ReproofFailed")
        assert failed.state_to == "ROLLING_BACK"
        assert "a fresh process does not reproduce it either" in failed.detail

        # Where the version before is wrong as well, nothing unproven serves, and health says so.
        appliance.wait_for(
            lambda: "PreviousLost" in events(appliance, "both"), "the previous one to be tried"
        )
        with appliance.client() as client:
            with pytest.raises(Unavailable, match="golden case"):
                client.infer("both", x(1), timeout=60)
            model = appliance.model("both")
            assert model is not None
            assert (model.state, model.fault) == ("unavailable", "REPROOF_FAILED")
            assert appliance.health().status == "critical"
            flag.unlink()  # either is good now; which one is tried first is chance
            appliance.wait_for(lambda: is_ready(appliance, "both"), "one of both to be proven")
            answer = client.infer("both", x(1), timeout=60)
            assert answer["y"][0, 0] == 1 + int(answer.model_version.partition(".")[0])


def is_ready(appliance: Appliance, name: str) -> bool:
    model = appliance.model(name)
    return model is not None and model.state == "ready"


# --- poison ---------------------------------------------------------------------------------------


def test_poison_is_found_and_answered_on_every_road(tmp_path: Path) -> None:
    deadly = pipeline(before=f"os._exit(1) if first == {BAD} else None")
    raises = pipeline(before=f"1 / 0 if first == {BAD} else None")
    roads = ("gateway", "lane", "shared", "batch")
    with Appliance(tmp_path, settings=quick()) as appliance:
        for road in roads:
            serving = "batching = { max_size = 4, max_delay_ms = 20 }" if road == "batch" else ""
            made = release(appliance, 1, name=road, pipeline=deadly, serving=serving)
            appliance.drop(made)
        appliance.drop(release(appliance, 1, name="raises", pipeline=raises))
        for name in (*roads, "raises"):
            appliance.wait_live(name, "1.0.0")
        with (
            appliance.client(lanes=False) as client,
            pytest.raises(Internal, match="ended 2 workers"),
        ):
            client.infer("gateway", x(BAD), timeout=60)
        with appliance.client() as client:
            for value in (1.0, 2.0):  # from the second on it goes by lane
                client.infer("lane", x(value), timeout=60)
            with pytest.raises(Internal, match="ended 2 workers"):
                client.infer("lane", x(BAD), timeout=60)
            with client.buffers("shared", x=(1, 4)) as buffers:
                for value in (1.0, 2.0, BAD):
                    buffers["x"][:] = value
                    if value != BAD:
                        buffers.infer(timeout=60)
                with pytest.raises(Internal, match="ended 2 workers"):
                    buffers.infer(timeout=60)
            mates = [client.submit("batch", x(n), timeout=60) for n in (1, 2, BAD, 3)]
            good = [float(mates[n].result()["y"][0, 0]) for n in (0, 1, 3)]
            assert good == [2, 3, 4]
            with pytest.raises(Internal, match="ended 2 workers"):
                mates[2].result()
            for _ in range(3):  # an error is no poison: it ends no worker
                with pytest.raises(Internal, match="ZeroDivisionError"):
                    client.infer("raises", x(BAD), timeout=60)
        for road in roads:
            poisoned = wait_incident(appliance, road, "RequestPoisoned")
            assert "the request " in poisoned.message, "by its id"
            assert "RequestPoisoned" in events(appliance, road)
        model = appliance.model("raises")
        assert model is not None
        assert (model.restarts, model.incidents) == (0, [])
