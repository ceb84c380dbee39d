"""A real small disk that is filled to the brim, and one that fails from some operation on.

Whatever the daemon is at meanwhile: the version that serves answers on, health says what is wrong
and what to do, and what was under way goes on once there is room again. How each operation by
itself fails is in test_disk_faults.py.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from superbrain.domain import operations as op
from tests.support.appliance import Appliance
from tests.support.consistency import assert_at_rest
from tests.support.cuts import STORIES, CutStage
from tests.support.load import Load
from tests.support.releases import answer, release

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]
DISK = "size=80m"  # 64 MiB of it the store keeps free
SLOW_LOAD = """
import time
time.sleep(1)
class Pipeline:
    def __init__(self, bundle): pass
    def preprocess(self, request): return request
    def postprocess(self, outputs, request): return outputs
"""


class SmallDisk:
    """The state folder on a disk of its own."""

    def __init__(self, state: Path) -> None:
        self._filler = state / "filler"
        self.number = 0

    def fill(self) -> None:
        """Leave not a byte."""
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def take(self, size_bytes: int) -> None:
        """Leave less than the store keeps free."""
        self._filler.write_bytes(bytes(size_bytes))

    def free(self) -> None:
        """Give it all back."""
        self._filler.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("disk"), start=False) as appliance:
        state = appliance.root / "state"
        state.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", DISK, "none", str(state)]
        if os.geteuid() or subprocess.run(command, check=False).returncode:
            pytest.skip("a small disk needs the right to mount one")
        try:
            appliance.start()
            yield appliance
            appliance.stop()
        finally:
            subprocess.run(["umount", "-l", str(state)], check=True)


@pytest.fixture(scope="module")
def disk(appliance: Appliance) -> SmallDisk:
    return SmallDisk(appliance.root / "state")


def next_release(appliance: Appliance, disk: SmallDisk) -> str:
    """Drop the next version; its number."""
    disk.number += 1
    appliance.drop(release(appliance, disk.number, pipeline=SLOW_LOAD))
    return f"{disk.number}.0.0"


def goes_live(appliance: Appliance, version: str) -> None:
    """Wait until a version serves; one that failed is tried again, as the clock would later."""

    def failed() -> bool:
        steps = [step for step in appliance.history("adder") if step.version == version]
        return bool(steps) and steps[-1].state_to == "FAILED"

    def settled() -> bool:
        model = appliance.model("adder")
        return failed() or (model is not None and model.version == version)

    appliance.wait_for(settled, f"{version} to fail or to serve")
    if failed():
        appliance.ask(op.Retry("adder", version), op.Outcome)
    appliance.wait_live("adder", version)


def complains(appliance: Appliance) -> bool:
    """Tell whether health names the disk or the journal, with something to do about it."""
    return any(
        problem.mend and any(word in problem.message for word in ("journal", "free", "space"))
        for problem in appliance.health().problems
    )


@pytest.mark.parametrize("moment", ["RECEIVED", "BUILDING", "RETIRED"])
def test_a_disk_that_is_full_from_some_moment_of_a_swap_on_stops_no_answer(
    appliance: Appliance, disk: SmallDisk, moment: str
) -> None:
    goes_live(appliance, next_release(appliance, disk))
    with Load(appliance.client, clients=1) as load:
        if moment == "RECEIVED":
            disk.fill()
        version = next_release(appliance, disk)
        if moment != "RECEIVED":
            about = f"{disk.number - 1}.0.0" if moment == "RETIRED" else version
            appliance.wait_for(
                lambda: [
                    step
                    for step in appliance.history("adder")
                    if step.version == about and step.state_to == moment
                ],
                f"{about} to be {moment}",
            )
            disk.fill()
        appliance.wait_for(lambda: complains(appliance), "health to complain")
        disk.free()
        goes_live(appliance, version)
    load.assert_flawless()
    assert_at_rest(appliance)
    assert answer(appliance) == disk.number


def test_a_file_that_there_is_no_room_for_says_so_where_it_lies(
    appliance: Appliance, disk: SmallDisk
) -> None:
    goes_live(appliance, next_release(appliance, disk))
    disk.number += 1
    path = release(appliance, disk.number)
    dropped = appliance.root / "inbox" / path.name
    dropped.touch()
    appliance.wait_noted("the copy is not complete yet")
    disk.take(40 << 20)
    shutil.copyfile(path, dropped)
    noted = appliance.wait_noted("its bundle could not be taken")
    assert "free" in noted.message
    assert noted.mend
    disk.free()
    goes_live(appliance, f"{disk.number}.0.0")
    appliance.wait_for(lambda: not appliance.health().inbox, "an empty inbox")
    assert_at_rest(appliance)


def test_a_daemon_that_starts_on_a_disk_without_a_byte_left_serves_and_goes_on_by_itself(
    appliance: Appliance, disk: SmallDisk
) -> None:
    goes_live(appliance, next_release(appliance, disk))
    serving = f"{disk.number}.0.0"
    appliance.stop()
    disk.fill()
    appliance.start()
    appliance.wait_live("adder", serving)
    assert answer(appliance) == disk.number
    version = next_release(appliance, disk)
    appliance.wait_for(lambda: complains(appliance), "health to complain")
    assert answer(appliance) == disk.number - 1
    disk.free()
    goes_live(appliance, version)
    appliance.stop()
    appliance.start()
    appliance.wait_live("adder", version)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CutStage]:
    with Appliance(tmp_path_factory.mktemp("faults"), start=False) as appliance:
        yield CutStage(appliance)


@pytest.mark.parametrize(("kind", "part"), [("EIO", 0.0), ("ENOSPC", 0.5), ("EIO", 0.8)])
def test_a_disk_that_fails_from_some_operation_of_a_swap_on_stops_no_answer(
    stage: CutStage, kind: str, part: float
) -> None:
    swap = next(story for story in STORIES if story.name == "swap")
    count = stage.counted(swap)
    with Load(stage.appliance.client, clients=1) as load:
        stage.fail(swap, kind, 1 + int(part * count))
        goes_live(stage.appliance, f"{stage.number}.0.0")
    load.assert_flawless()
    assert_at_rest(stage.appliance)
