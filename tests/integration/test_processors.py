"""Where workers run: whoever serves may do so anywhere, and takes turns like everybody else."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor as Threads
from pathlib import Path

import numpy as np
import psutil
import pytest

from superbrain.host.scheduling import thread_ids
from tests.support.appliance import Appliance
from tests.support.bundles import WIDTH, make_bundle
from tests.support.load import Load
from tests.unit.host.test_scheduling import kernel_has_slices, slice_ns

pytestmark = pytest.mark.integration

ALL = os.sched_getaffinity(0)
# A request takes more than a millisecond of the processor, or what is said for one of all -12345.
BUSY = """
import time
class Pipeline:
    def __init__(self, bundle):
        pass
    def preprocess(self, request):
        if request["x"].max() == -12345:
            time.sleep({long_s})
        until = time.monotonic() + 0.003
        while time.monotonic() < until:
            pass
        return {{"x": request["x"]}}
    def postprocess(self, outputs, request):
        return {{"y": outputs["y"]}}
"""


def release(appliance: Appliance, number: int, long_s: int = 0) -> Path:
    return make_bundle(
        appliance.work,
        appliance.author,
        version=f"{number}.0.0",
        sequence=number,
        constant=float(number),
        pipeline=BUSY.format(long_s=long_s),
    ).path


def places(process: psutil.Process) -> list[set[int]]:
    """Where each thread of a process may run."""
    return [os.sched_getaffinity(thread) for thread in thread_ids(process.pid)]


def is_kept(process: psutil.Process) -> bool:
    """Whether the first thread of a process may run on one processor only."""
    return [len(place) for place in places(process)[:1]] == [1]


def test_who_has_taken_over_runs_anywhere(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        appliance.drop(release(appliance, 1))
        appliance.wait_live("adder", "1.0.0")
        for number in (2, 3):
            before = {one.pid for one in appliance.at_work()}
            with Load(appliance.client, clients=2, pause_s=0) as load:
                appliance.drop(release(appliance, number))
                appliance.wait_live("adder", f"{number}.0.0")
                (serves,) = [one for one in appliance.at_work() if one.pid not in before]
                found = places(serves)
            load.assert_flawless()
            assert len(found) > 1
            assert found == [ALL] * len(found)


@pytest.mark.skipif(len(ALL) < 2, reason="needs two processors")
def test_who_takes_over_is_kept_to_one_processor_until_the_other_has_stopped(
    tmp_path: Path,
) -> None:
    slow = {"x": np.full((1, WIDTH), -12345, np.float32)}
    with Appliance(tmp_path) as appliance, appliance.client() as client, Threads() as threads:
        gateway = {one.pid for one in appliance.at_work()}
        appliance.drop(release(appliance, 1, long_s=100))
        appliance.wait_live("adder", "1.0.0")
        (old,) = [one for one in appliance.at_work() if one.pid not in gateway]
        asked = threads.submit(client.infer, "adder", slow)
        appliance.drop(release(appliance, 2))
        follower = appliance.wait_for(
            lambda: next(filter(is_kept, appliance.at_work()), None),
            "a worker that is kept to one processor",
        )
        old.kill()
        assert asked.result().model_version == "2.0.0"
        appliance.wait_live("adder", "2.0.0")
        assert all(place == ALL for place in places(follower))


@pytest.mark.skipif(not kernel_has_slices(), reason="needs Linux 6.12, which tells a task's slice")
def test_every_thread_of_who_serves_takes_usual_turns(tmp_path: Path) -> None:
    usual = slice_ns(0)
    with Appliance(tmp_path) as appliance:
        appliance.drop(release(appliance, 1))
        appliance.wait_live("adder", "1.0.0")
        slices = [slice_ns(one) for work in appliance.at_work() for one in thread_ids(work.pid)]
        assert len(slices) > len(appliance.at_work())
        assert set(slices) == {usual}
