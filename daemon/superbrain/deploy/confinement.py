"""The watch on a worker: it ends one that goes beyond its limits, and tidies up after each.

The kernel bounds what it can count for one process (descriptors, file sizes). Memory, threads and
the scratch folder it cannot, or not everywhere, so the daemon looks at them a few times a second
(rounds.py); of a process that has not run meanwhile it knows that nothing has changed.
A worker that is ended this way answers its order with the limit's own code, and its death says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from superbrain.deploy.child import Child, ChildError
from superbrain.domain.sandbox import excess
from superbrain.host.events import Event
from superbrain.host.logs import event
from superbrain.host.usage import scratch_usage, usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from superbrain.deploy.rounds import Rounds
    from superbrain.domain.sandbox import SandboxPolicy, Usage

log = logging.getLogger(__name__)

SCRATCH_EVERY = 5
LOOK_ANYWAY_EVERY = 10
SCRATCH_ANYWAY_EVERY = 100


async def watch(confined: Confined, rounds: Rounds, lane: Path | None = None) -> None:
    """Hold a process to its limits until it has ended, then remove its scratch folder and lane."""
    try:
        rounds.begin(confined)
    except RuntimeError as error:
        confined.child.condemn(_unwatched(confined.child, error))
    try:
        await confined.child.exited.wait()
    finally:
        rounds.end(confined)
        confined.let_go()
    await asyncio.to_thread(_tidy_up, confined.scratch, lane)


class Confined:
    """A process that is held to its limits: looked at in every round, judged in the loop.

    What has not run since the last look has taken nothing since, so whether it has is all that is
    asked at rest. That counts only while `alone`: what can start processes has others that run. And
    now and then everything is looked at all the same.

    Args:
        child: the process.
        policy: its limits.
        scratch: its scratch folder.
        has_run: tells whether it has run since it was last called.

    Attributes:
        alone: whether the kernel keeps it from starting processes, as far as is known.
    """

    def __init__(
        self, child: Child, policy: SandboxPolicy, scratch: Path, has_run: Callable[[], bool]
    ) -> None:
        self.child, self.scratch = child, scratch
        self.alone = False
        self._policy, self._has_run = policy, has_run
        self._loop = asyncio.get_running_loop()
        self._looks = self._measured_at = 0
        self._unmeasured = True
        self._let_go = False
        self._measuring: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Look at what may have changed; in the thread of the rounds."""
        self._looks += 1
        may_have_taken = self._has_run() or not self.alone
        self._unmeasured = self._unmeasured or may_have_taken
        if may_have_taken or self._looks % LOOK_ANYWAY_EVERY == 0:
            used = usage(self.child.pid)
            if excess(self._policy, used) is not None:
                self._call(self._judge, used)
        since = self._looks - self._measured_at
        if since >= (SCRATCH_EVERY if self._unmeasured else SCRATCH_ANYWAY_EVERY):
            self._look_at_scratch()

    def _look_at_scratch(self) -> None:
        if self._measuring is None:
            self._unmeasured, self._measured_at = False, self._looks
            self._call(self._measure)

    def _call(self, what: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed: the daemon ends
            self._loop.call_soon_threadsafe(what, *arguments)

    def let_go(self) -> None:
        """Judge it no more."""
        self._let_go = True
        if self._measuring is not None:
            self._measuring.cancel()

    def _measure(self) -> None:
        if not self._let_go and self._measuring is None:
            self._measuring = self._loop.create_task(self._measured())

    async def _measured(self) -> None:
        try:
            used = await asyncio.to_thread(scratch_usage, self.scratch, self.child.pid)
        finally:
            self._measuring = None
        self._judge(used)

    def _judge(self, used: Usage) -> None:
        found = excess(self._policy, used)
        if found is None or self._let_go or self.child.verdict is not None:
            return
        message = f"{self.child.name}: {found.message}"
        about = self.child.concerns
        event(log, Event.WORKER_OVER_LIMIT, logging.ERROR, message, code=found.code, **about)
        self.child.condemn(ChildError(found.code, message, mend=found.mend))


def _unwatched(child: Child, error: RuntimeError) -> ChildError:
    message = f"{child.name} cannot be held to its limits: {error}"
    return ChildError("SPAWN_FAILED", message, mend="Check limits of processes and memory")


def _tidy_up(scratch: Path, lane: Path | None) -> None:
    if lane is not None:
        lane.unlink(missing_ok=True)
    remove_scratch(scratch)


async def begin_with_scratch(
    name: str, scratch: Path, begin: Callable[[], Awaitable[Child]]
) -> Child:
    """Let a child `begin` that has an empty scratch folder; of one that cannot, nothing is left.

    Raises:
        ChildError: the folder cannot be made, or the child not be started.
    """
    try:
        make_scratch(scratch)
    except OSError as error:
        raise ChildError("SPAWN_FAILED", f"{name} gets no scratch folder: {error}") from error
    try:
        return await begin()
    except BaseException:
        remove_scratch(scratch)
        raise


def make_scratch(folder: Path) -> None:
    """Make an empty scratch folder that is nobody else's.

    Raises:
        OSError: it cannot be made.
    """
    remove_scratch(folder)
    folder.mkdir(parents=True, mode=0o700)


def remove_scratch(folder: Path) -> None:
    """Remove a scratch folder, whatever its owner has made of the modes in it."""
    for parent, folders, _ in os.walk(folder):
        for name in folders:
            inner = Path(parent, name)
            if not inner.is_symlink():
                with contextlib.suppress(OSError):
                    inner.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
