"""Where workers run: a candidate loads beside nobody who executes, and may serve anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from superbrain.host.scheduling import thread_ids
from tests.support.appliance import Appliance
from tests.support.bundles import make_bundle
from tests.unit.host.test_scheduling import kernel_has_slices, slice_ns

pytestmark = pytest.mark.integration

ALL = os.sched_getaffinity(0)
# A request takes more than a millisecond, and loading a moment in which it can be looked at.
SLOW = """
import time
class Pipeline:
    def __init__(self, bundle):
        time.sleep({loads_s})
    def preprocess(self, request):
        time.sleep(0.003)
        return {{"x": request["x"]}}
    def postprocess(self, outputs, request):
        return {{"y": outputs["y"]}}
"""
# One thread is always running, outside of the interpreter.
BUSY = """
import hashlib, threading
def run():
    data = bytes(1 << 24)
    while True:
        hashlib.sha256(data)
threading.Thread(target=run, daemon=True).start()
"""


def release(appliance: Appliance, number: int, pipeline: str) -> Path:
    return make_bundle(
        appliance.work,
        appliance.author,
        version=f"{number}.0.0",
        sequence=number,
        constant=float(number),
        pipeline=pipeline,
    ).path


def places(process: psutil.Process) -> list[set[int]]:
    """Where each thread of a process may run."""
    return [os.sched_getaffinity(thread) for thread in thread_ids(process.pid)]


def stands_aside(process: psutil.Process) -> bool:
    """Whether a process may run everywhere but on one processor."""
    return {len(place) for place in places(process)} == {len(ALL) - 1}


@pytest.mark.skipif(len(ALL) < 2, reason="needs two processors")
def test_a_candidate_loads_where_nobody_executes_and_then_runs_anywhere(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        appliance.drop(release(appliance, 1, SLOW.format(loads_s=0) + BUSY))
        appliance.wait_live("adder", "1.0.0")
        appliance.drop(release(appliance, 2, SLOW.format(loads_s=2)))
        candidate = appliance.wait_for(
            lambda: next(filter(stands_aside, appliance.at_work()), None),
            "a candidate that leaves a processor to who executes",
        )
        appliance.wait_live("adder", "2.0.0")
        serves = places(candidate)
        assert len(serves) > 1
        assert serves == [ALL] * len(serves)


@pytest.mark.skipif(not kernel_has_slices(), reason="needs Linux 6.12, which tells a task's slice")
def test_every_thread_of_who_serves_takes_usual_turns(tmp_path: Path) -> None:
    usual = slice_ns(0)
    with Appliance(tmp_path) as appliance:
        appliance.drop(release(appliance, 1, SLOW.format(loads_s=0)))
        appliance.wait_live("adder", "1.0.0")
        slices = [slice_ns(one) for work in appliance.at_work() for one in thread_ids(work.pid)]
        assert len(slices) > len(appliance.at_work())
        assert set(slices) == {usual}
