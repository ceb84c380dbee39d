"""Disks that are full, files that are not what they seem, signals at the wrong moment."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from superbrain.domain import operations as op
from superbrain.wire.errors import NotFound
from tests.support.appliance import Appliance
from tests.support.load import Load
from tests.support.releases import answer, go_live, release

pytestmark = pytest.mark.fault


SLOW_START = """
import time
time.sleep(2)
class Pipeline:
    def __init__(self, bundle): pass
    def preprocess(self, request): return request
    def postprocess(self, outputs, request): return outputs
"""


def test_fifty_bad_bundles_later_the_serving_one_is_still_in_the_store(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1)
        model = appliance.model("adder")
        assert model is not None
        for number in range(2, 56):
            damaged = release(appliance, number)
            data = bytearray(damaged.read_bytes())
            data[-1500] ^= 1
            damaged.write_bytes(data)
            appliance.drop(damaged)
        appliance.wait_ended("adder", "55.0.0", "REJECTED")
        appliance.wait_for(lambda: not list(appliance.inbox.glob("*.sbb")), "all to be refused")
        begun = [step for step in appliance.history("adder") if step.event == "Created"]
        assert len(begun) < 2 * 55, "each is judged once, or twice when a newer one arrived"
        assert (appliance.root / "state/store/bundles" / model.digest).exists()
        appliance.stop()
        appliance.start()
        appliance.wait_live("adder", "1.0.0")


# --- the inbox ------------------------------------------------------------------------------------


def test_a_file_name_that_is_no_text_ends_nothing(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        for name in (b"\xff.txt", b"\xfe.sbb"):
            (Path(os.fsdecode(os.fsencode(appliance.inbox) + b"/" + name))).write_bytes(b"x" * 600)
        appliance.wait_for(lambda: len(appliance.health().inbox) == 2, "both to be listed")
        go_live(appliance, 1)


def test_a_damaged_copy_does_not_stand_in_the_way_of_a_good_one(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        good = release(appliance, 1)
        data = bytearray(good.read_bytes())
        data[-1500] ^= 1
        (appliance.inbox / good.name).write_bytes(data)
        appliance.wait_ended("adder", "1.0.0", "REJECTED")
        appliance.drop(good)
        appliance.wait_live("adder", "1.0.0")


def test_a_note_is_never_written_nor_read_through_a_link(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        victim = tmp_path / "victim"
        victim.write_text("precious")
        (appliance.inbox / "a.sbb.refused.txt").symlink_to(victim)
        (appliance.inbox / "a.sbb").write_bytes(b"no bundle" * 100)
        (appliance.inbox / "b.sbb.refused").write_bytes(b"")
        (appliance.inbox / "b.sbb.refused.txt").symlink_to("/dev/zero")
        (appliance.inbox / "c.sbb.refused").write_bytes(b"")
        os.mkfifo(appliance.inbox / "c.sbb.refused.txt")
        appliance.wait_for((appliance.inbox / "a.sbb.refused").exists, "a refusal")
        assert victim.read_text() == "precious"
        assert "refused" in (appliance.inbox / "a.sbb.refused.txt").read_text()
        go_live(appliance, 1)


# --- signals --------------------------------------------------------------------------------------


def test_a_reload_asked_for_during_the_start_does_not_end_the_daemon(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1, pipeline=SLOW_START)
        appliance.stop()
        appliance.start()
        assert appliance.process is not None
        appliance.process.send_signal(signal.SIGHUP)
        appliance.wait_live("adder", "1.0.0")
        appliance.drop(release(appliance, 2))
        appliance.wait_live("adder", "2.0.0")


def test_a_stop_asked_for_during_the_start_is_obeyed_at_once(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    sleep = f"time.sleep(30 if __import__('os').path.exists({str(slow)!r}) else 0)"
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1, pipeline=SLOW_START.replace("time.sleep(2)", sleep))
        appliance.stop()
        slow.touch()
        appliance.start()
        children = appliance.children()
        assert appliance.process is not None
        appliance.process.send_signal(signal.SIGTERM)
        assert appliance.process.wait(10) == 0
        assert not any(child.is_running() for child in children)
        appliance.process = None


# --- two things at once ---------------------------------------------------------------------------


def slow_while(marker: Path) -> str:
    """Give a pipeline that takes three seconds to load while `marker` exists."""
    sleep = f"time.sleep(3 if __import__('os').path.exists({str(marker)!r}) else 0)"
    return SLOW_START.replace("time.sleep(2)", sleep)


def test_a_rollback_under_way_does_not_displace_a_version_that_went_live_meanwhile(
    tmp_path: Path,
) -> None:
    marker = tmp_path / "slow"
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1, pipeline=slow_while(marker))
        go_live(appliance, 2)
        appliance.wait_ended("adder", "1.0.0", "RETIRED")
        third = release(appliance, 3)
        marker.touch()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(appliance.ask, op.Rollback("adder"), op.Refusal)
            appliance.wait_ended("adder", "2.0.0", "ROLLING_BACK")
            appliance.drop(third)
            appliance.wait_live("adder", "3.0.0")
            assert "3.0.0 went live meanwhile" in asked.result().message
        assert answer(appliance) == 3
        appliance.wait_ended("adder", "2.0.0", "RETIRED")
        appliance.wait_for(lambda: len(appliance.at_work()) == 2, "one gateway and one worker")


def test_a_rollback_that_cannot_be_does_not_end_a_version_with_a_worker_missing(
    tmp_path: Path,
) -> None:
    marker = tmp_path / "slow"
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1)
        first = appliance.model("adder")
        go_live(appliance, 2, pipeline=slow_while(marker), serving="instances = 2")
        appliance.wait_ended("adder", "1.0.0", "RETIRED")
        assert first is not None
        graph = appliance.root / "state/store/bundles" / first.digest / "graphs/main.onnx"
        graph.chmod(0o600)
        graph.write_bytes(b"damaged")
        marker.touch()
        with Load(appliance.client, clients=1) as load:
            model = appliance.model("adder")
            assert model is not None
            psutil.Process(model.workers[0].pid).kill()
            appliance.wait_for(
                lambda: (one := appliance.model("adder")) and one.state == "degraded",
                "one worker to be missed",
            )
            refusal = appliance.ask(op.Rollback("adder"), op.Refusal)
            assert "2.0.0 still serves" in refusal.message
            appliance.wait_live("adder", "2.0.0")
        load.assert_flawless()


def test_a_rollback_to_a_bundle_revoked_since_is_refused(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1)
        first = appliance.model("adder")
        go_live(appliance, 2)
        assert first is not None
        trust = appliance.root / "trust" / "trust.toml"
        trust.write_text(f'threshold = 1\nrevoked_bundles = ["{first.digest}"]\n')
        appliance.ask(op.Reload(), op.Outcome)
        assert "revoked" in appliance.ask(op.Rollback("adder"), op.Refusal).message
        assert answer(appliance) == 2


def test_a_retired_model_stays_retired_though_a_candidate_was_loading_and_comes_back_when_told(
    tmp_path: Path,
) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1)
        appliance.drop(release(appliance, 2, pipeline=SLOW_START))
        appliance.wait_ended("adder", "2.0.0", "BUILDING")
        said = appliance.ask(op.Retire("adder"), op.Outcome).message
        appliance.wait_ended("adder", "2.0.0", "ABANDONED")
        appliance.wait_for(lambda: len(appliance.at_work()) == 1, "the gateway alone")
        with pytest.raises(NotFound):
            answer(appliance)
        assert "`superbrain retry adder --version 1.0.0` brings it back" in said
        appliance.ask(op.Retry("adder", "1.0.0"), op.Outcome)
        appliance.wait_live("adder", "1.0.0")
        assert answer(appliance) == 1


def test_a_bundle_that_cannot_be_stored_is_tried_again_by_the_clock_alone(tmp_path: Path) -> None:
    with Appliance(tmp_path, start=False) as appliance:
        staging = appliance.root / "state/store/.staging"
        appliance.start()
        staging.rmdir()
        staging.write_text("in the way")
        dropped = appliance.drop(release(appliance, 1))
        appliance.wait_ended("adder", "1.0.0", "FAILED")
        looks = appliance.log_text().count("deployment_advanced")
        (appliance.inbox / "another.txt").touch()
        appliance.wait_for(lambda: appliance.health().inbox, "another look at the inbox")
        time.sleep(1)
        assert appliance.log_text().count("deployment_advanced") == looks
        staging.unlink()
        staging.mkdir()
        dropped.touch()
        appliance.wait_live("adder", "1.0.0")


def test_a_rollback_does_not_wait_for_bundles_that_load_slowly(tmp_path: Path) -> None:
    slow = SLOW_START.replace("sleep(2)", "sleep(30)")
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1)
        go_live(appliance, 2)
        appliance.wait_ended("adder", "1.0.0", "RETIRED")
        for name in ("one", "other"):  # as many as may load at the same time
            appliance.drop(release(appliance, 1, name=name, pipeline=slow))
            appliance.wait_ended(name, "1.0.0", "BUILDING")
        began = time.monotonic()
        appliance.ask(op.Rollback("adder"), op.Outcome)
        assert time.monotonic() - began < 15
