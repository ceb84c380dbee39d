"""The watch on a worker: it ends one that goes beyond its limits, and tidies up after each.

The kernel bounds what it can count for one process (descriptors, file sizes). Memory, threads and
the scratch folder it cannot, or not everywhere, so the daemon looks at them a few times a second.
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

    from superbrain.domain.sandbox import SandboxPolicy, Usage

log = logging.getLogger(__name__)

LOOK_S = 0.1
SCRATCH_EVERY = 5


async def watch(
    child: Child, policy: SandboxPolicy, scratch: Path, lane: Path | None = None
) -> None:
    """Hold a process to its limits until it has ended, then remove its scratch folder and lane."""
    looks = _Looks(child, policy, scratch)
    try:
        await child.exited.wait()
    finally:
        looks.stop()
    await asyncio.to_thread(_tidy_up, scratch, lane)


class _Looks:
    """Looks at a process ten times a second; a timer alone, for it does so at rest too."""

    def __init__(self, child: Child, policy: SandboxPolicy, scratch: Path) -> None:
        self._child, self._policy, self._scratch = child, policy, scratch
        self._loop = asyncio.get_running_loop()
        self._count = 0
        self._measuring: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(LOOK_S, self._look)

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()
        if self._measuring is not None:
            self._measuring.cancel()

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_S, self._look)
        self._count += 1
        self._judge(usage(self._child.pid))
        if self._count % SCRATCH_EVERY == 0 and self._measuring is None:
            self._measuring = self._loop.create_task(self._measure())

    async def _measure(self) -> None:
        used = await asyncio.to_thread(scratch_usage, self._scratch, self._child.pid)
        self._measuring = None
        self._judge(used)

    def _judge(self, used: Usage) -> None:
        found = excess(self._policy, used)
        if found is None or self._child.verdict is not None:
            return
        message = f"{self._child.name}: {found.message}"
        about = self._child.concerns
        event(log, Event.WORKER_OVER_LIMIT, logging.ERROR, message, code=found.code, **about)
        self._child.condemn(ChildError(found.code, message, mend=found.mend))


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
