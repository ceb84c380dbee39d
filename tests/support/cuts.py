"""Stories that are cut short by a SIGKILL of the daemon at any operation on its disk.

A row of `STORIES` says what happens, and what must follow after the next start wherever it was cut.
The same appliance goes through all of them, one cut after the other:

>>> stage = CutStage(appliance)
>>> for number in range(1, stage.count(story) + 1):
...     stage.cut(story, number)        # AssertionError when anything is not as it must be
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil
import zmq

from superbrain.domain import operations as op
from tests.support.appliance import LOOK_AGAIN_S, Appliance
from tests.support.consistency import assert_at_rest, broken
from tests.support.releases import LARGE, MODELS_MIB, answer, release

CUT_DAEMON = str(Path(__file__).parent / "cut_daemon.py")
DIES_WITHIN_S = 20.0
QUIET_S = 5.0  # after the last operation: the story is over, it had fewer than when it was counted


class Story(NamedTuple):
    """What happens, and what must follow wherever it was cut; `needs` is made sure of before."""

    name: str
    happens: Callable[[CutStage], None]
    follows: Callable[[CutStage], None]
    must: str
    needs: Callable[[CutStage], None] = lambda _stage: None


class CutStage:
    """One appliance, and where its stories stand.

    Attributes:
        live: the version of the adder that serves; `before` served before it.
        number: the version that the story under way is about.
    """

    def __init__(self, appliance: Appliance) -> None:
        self.appliance = appliance
        self.orders = appliance.root / "orders"
        self.number = 0
        self.live = 0
        self.before = 0
        self._counts: dict[str, int] = {}
        appliance.configure("deploy", "memory_mib", MODELS_MIB)
        appliance.start(CUT_DAEMON, str(self.orders))
        self.next_version()

    def next_version(self) -> None:
        """Bring one more version live, uncut, so that every story begins alike."""
        self.number += 1
        self.appliance.drop(self.build())
        self.goes_live()
        assert_at_rest(self.appliance)

    def build(self, **options: object) -> Path:
        """Build the version that the story is about."""
        for made in self.appliance.work.glob("*-*.0.0"):
            shutil.rmtree(made)
        return release(self.appliance, self.number, **options)

    def goes_live(self) -> None:
        """Wait until the version that the story is about serves."""
        self.appliance.wait_live("adder", f"{self.number}.0.0")
        self.before, self.live = self.live, self.number

    def asked(self, event: str) -> bool:
        """Tell whether an order about the live version has been written down."""
        steps = self.appliance.history("adder")
        return any(s.event == event and s.version == f"{self.live}.0.0" for s in steps)

    def order(self, operation: op.Operation) -> None:
        """Give an order to a daemon that may not live to answer it."""
        context = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.connect(self.appliance.control_endpoint)
        socket.send_multipart([b"", msgspec.json.encode(operation)])
        context.destroy(linger=2000)

    # --- cutting ------------------------------------------------------------------------------

    def count(self, story: Story) -> int:
        """Let a story happen uncut; how many operations there are to cut it at."""
        self._begin(story, "none 0")
        story.follows(self)
        assert_at_rest(self.appliance)
        count = len(self.orders.with_suffix(".done").read_text().splitlines())
        self._check(story)
        return count

    def counted(self, story: Story) -> int:
        """Give how many operations a story has, counted once."""
        if story.name not in self._counts:
            self._counts[story.name] = self.count(story)
        return self._counts[story.name]

    def fail(self, story: Story, kind: str, number: int) -> None:
        """Let every operation from one on fail while a story happens, then let the disk be good."""
        self._begin(story, f"{kind} {number} lasting")
        done = self.orders.with_suffix(".done")
        self.appliance.wait_for(
            lambda: len(done.read_text().splitlines()) > number + 1, "the disk to fail"
        )
        self.orders.unlink()

    def cut(self, story: Story, number: int, *, again_at: int = 0) -> bool:
        """Cut a story at one operation, and the recovery from it at another; whether it was cut."""
        self._begin(story, f"kill {number}")
        cut = self._ends()
        if cut and again_at:
            self.orders.write_text(f"kill {again_at}")
            self.appliance.launch(CUT_DAEMON, str(self.orders))
            self._ends()
        if self.appliance.process is None:
            self.appliance.start(CUT_DAEMON, str(self.orders))
        story.follows(self)
        self._check(story)
        return cut

    def _begin(self, story: Story, orders: str) -> None:
        story.needs(self)
        self.number += 1
        self.orders.write_text(orders)
        story.happens(self)

    def _ends(self) -> bool:
        """Wait for the daemon's death; it leaves nobody behind, and everything whole."""
        process = self.appliance.process
        assert process is not None
        children = self.appliance.children()
        self._wait_for_death(process)
        self.orders.unlink()  # from here on nothing is struck any more
        if process.poll() is None:
            return False
        self.appliance.process = None
        _, alive = psutil.wait_procs(children, DIES_WITHIN_S)
        assert not alive, f"orphans: {alive}"
        assert broken(self.appliance) == []
        return True

    def _wait_for_death(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until it dies, or has done nothing for so long that it will not."""
        done = self.orders.with_suffix(".done")
        latest = began = time.monotonic()
        while (now := time.monotonic()) < min(latest + QUIET_S, began + DIES_WITHIN_S):
            size = done.stat().st_size
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_AGAIN_S)
                return
            if done.stat().st_size != size:
                latest = now

    def _check(self, story: Story) -> None:
        assert_at_rest(self.appliance)
        model = self.appliance.model("adder")
        if model is None or not model.version:
            self.next_version()
        assert answer(self.appliance) == self.live, story.name


# --- the stories ----------------------------------------------------------------------------------


def _drop_next(stage: CutStage) -> None:
    stage.appliance.drop(stage.build())


def _next_serves(stage: CutStage) -> None:
    stage.goes_live()


def _drop_compared(stage: CutStage) -> None:
    ladder = ["onnxruntime:cpu", "onnxruntime:cpu-fp16"]
    more = 'select = "fastest"'
    stage.appliance.drop(stage.build(ladder=ladder, precisions=["fp16"], more=more))


def _fastest_serves(stage: CutStage) -> None:
    stage.goes_live()
    told = stage.appliance.ask(op.GetReport("adder"), op.ReportReply)
    times = {one.rung: one.milliseconds for one in told.rungs if one.milliseconds is not None}
    assert sorted(times) == ["onnxruntime:cpu", "onnxruntime:cpu-fp16"]
    assert told.rung == min(times, key=lambda rung: times[rung])


def _drop_too_large(stage: CutStage) -> None:
    stage.appliance.drop(stage.build(**LARGE))


def _serves_or_was_cut_short(stage: CutStage) -> None:
    version = f"{stage.number}.0.0"

    def decided() -> str:
        steps = [one for one in stage.appliance.history("adder") if one.version == version]
        failed = [one.detail for one in steps if one.state_to == "FAILED"]
        live = [one for one in steps if one.state_to == "LIVE"]
        return failed[-1] if failed else "serves" if live else ""

    what = stage.appliance.wait_for(decided, f"{version} to serve or to be given up")
    if what == "serves":
        stage.goes_live()
    else:
        assert "the daemon ended while adder was without an answer" in what
        stage.appliance.wait_live("adder", f"{stage.live}.0.0")


def _drop_first(stage: CutStage) -> None:
    stage.appliance.drop(stage.build(name=f"first{stage.number}"))


def _first_serves(stage: CutStage) -> None:
    name = f"first{stage.number}"
    stage.appliance.wait_live(name, f"{stage.number}.0.0")
    assert_at_rest(stage.appliance)
    stage.appliance.ask(op.Retire(name), op.Outcome)


def _drop_unproven(stage: CutStage) -> None:
    stage.appliance.drop(stage.build(golden_error=0.5))


def _was_rejected(stage: CutStage) -> None:
    name = f"adder-{stage.number}.0.0.sbb"
    stage.appliance.wait_ended("adder", f"{stage.number}.0.0", "REJECTED")
    note = stage.appliance.inbox / f"{name}.refused.txt"
    stage.appliance.wait_for(note.exists, "a note beside the inbox")
    note.unlink()


def _drop_damaged(stage: CutStage) -> None:
    path = stage.build()
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    (stage.appliance.inbox / path.name).write_bytes(data)


def _was_put_aside(stage: CutStage) -> None:
    aside = stage.appliance.inbox / f"adder-{stage.number}.0.0.sbb.refused"
    stage.appliance.wait_for(aside.exists, "the file to be put aside")
    note = aside.with_name(f"{aside.name}.txt")
    assert "refused" in note.read_text()
    aside.unlink()
    note.unlink()


def _have_two(stage: CutStage) -> None:
    while not stage.before:
        stage.next_version()


def _ask_back(stage: CutStage) -> None:
    stage.order(op.Rollback("adder"))


def _went_back_if_asked(stage: CutStage) -> None:
    stage.appliance.wait_for(lambda: stage.appliance.model("adder"), "the model")
    assert_at_rest(stage.appliance)
    if stage.asked("RollbackAsked"):
        stage.appliance.wait_live("adder", f"{stage.before}.0.0")
        stage.live, stage.before = stage.before, 0
    else:
        stage.appliance.wait_live("adder", f"{stage.live}.0.0")


def _ask_retirement(stage: CutStage) -> None:
    stage.order(op.Retire("adder"))


def _was_retired_if_asked(stage: CutStage) -> None:
    assert_at_rest(stage.appliance)
    if stage.asked("RetireAsked"):
        stage.appliance.wait_ended("adder", f"{stage.live}.0.0", "RETIRED")
        stage.live = stage.before = 0
    else:
        stage.appliance.wait_live("adder", f"{stage.live}.0.0")


STORIES = (
    Story("first install", _drop_first, _first_serves, "it serves"),
    Story("swap", _drop_next, _next_serves, "the new version serves, nothing needless is stored"),
    Story(
        "swap to the faster of two rungs",
        _drop_compared,
        _fastest_serves,
        "it serves on the rung with the least time, and every rung's end is known",
    ),
    Story("unproven bundle", _drop_unproven, _was_rejected, "REJECTED with a note; the old serves"),
    Story("damaged bundle", _drop_damaged, _was_put_aside, "put aside, with a note"),
    Story(
        "rollback",
        _ask_back,
        _went_back_if_asked,
        "the previous one serves, or nobody asked",
        needs=_have_two,
    ),
    Story("retire", _ask_retirement, _was_retired_if_asked, "nothing serves, or nobody asked"),
)
#: These as well when there is time for all of them; test_outages.py has such a kill too.
ALL_STORIES = (
    *STORIES,
    Story(
        "swap in a brief outage",
        _drop_too_large,
        _serves_or_was_cut_short,
        "the new version serves, or the old one and the new one is given up with the reason",
    ),
)
