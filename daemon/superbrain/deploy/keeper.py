"""Keeping the workers of the serving crew: who dies, leaks or answers wrongly is replaced.

Whoever takes a place has proven every golden case in its own process first. How the place becomes
free differs:

    death      it is free already; what was in flight is sent again, restarts wait longer each time
    distrust   a golden case failed in the process that serves: it stops at once, callers wait
    recycling  it works but leaks: its successor is ready before it stops, exactly as in a swap
"""

from __future__ import annotations

import asyncio
import collections
import logging
import time
from typing import TYPE_CHECKING, Any, Protocol

from superbrain.deploy.child import ChildError
from superbrain.deploy.crew import Crew, Worker
from superbrain.domain import deployment as life
from superbrain.domain.deployment import Reason
from superbrain.domain.policy import restart_delay_s
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from superbrain.domain.health import IncidentKind

log = logging.getLogger(__name__)

MISMATCHED = "MISMATCHED"
RECYCLE_AGAIN_S = 300.0


class Place(Protocol):
    """The model whose workers are kept."""

    name: str
    current: Crew | None
    moving: asyncio.Lock

    async def show_lanes(self) -> None:
        """Tell the gateway which workers answer now."""

    async def count(self, worker: Worker) -> None:
        """Count what a worker has done, before it ends."""

    def died(self, epitaph: str) -> None:
        """Take note of a death."""

    async def given_up(self, why: life.Bad) -> None:
        """Take note that no fresh process can take the place."""

    def proven_again(self) -> None:
        """Take note that a fresh process has taken the place of one that was wrong."""

    def happened(self, kind: IncidentKind, message: str, mend: str = "") -> None:
        """Take note of an incident."""


class Keeper:
    """Keeps the workers of one model's current crew, from `keep` to `forget`.

    Attributes:
        deaths: when workers died lately.
        restarts: how many were started in the place of one that had died or was wrong.
        recycled: how many were replaced because they leaked.
    """

    def __init__(self, place: Place) -> None:
        self.deaths: collections.deque[float] = collections.deque(maxlen=100)
        self.restarts = 0
        self.recycled = 0
        self._place = place
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._recycling: asyncio.Task[None] | None = None
        self._recycle_at = 0.0
        self._restart_at: dict[int, float] = {}

    @property
    def restarts_in_s(self) -> float | None:
        """How long the next restart still waits; None when none does."""
        waiting = [at - time.monotonic() for at in self._restart_at.values()]
        return max(0.0, min(waiting)) if waiting else None

    def keep(self, worker: Worker) -> None:
        """Replace this worker when it dies."""
        self._tasks[worker.worker_id] = asyncio.create_task(self._replace_on_death(worker))

    def forget(self) -> None:
        """Keep none of them any longer."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._restart_at.clear()
        if self._recycling is not None:
            self._recycling.cancel()
            self._recycling = None

    def distrust(self, worker: Worker, reason: Reason) -> None:
        """Stop a worker that answers wrongly at once, and put a fresh one in its place."""
        crew = self._place.current
        if crew is None or worker not in crew.workers:
            return
        self._drop(worker)
        task = asyncio.create_task(self._replace_distrusted(crew, worker, reason))
        self._tasks[worker.worker_id] = task

    def recycle(self, worker: Worker, what: str) -> None:
        """Put a fresh worker in the place of one that leaks, without a moment in between."""
        crew, now = self._place.current, time.monotonic()
        if crew is None or now < self._recycle_at:
            return
        if self._recycling is not None and not self._recycling.done():
            return
        self._recycling = asyncio.create_task(self._recycle(crew, worker, what))

    # --- the three ways -----------------------------------------------------------------------

    async def _replace_on_death(self, worker: Worker) -> None:
        await worker.child.exited.wait()
        verdict = worker.child.verdict
        if verdict is not None:
            self._place.happened("LimitExceeded", verdict.message, verdict.mend)
        self._died(worker.child.epitaph())
        crew = self._place.current
        assert crew is not None  # noqa: S101 - tasks are cancelled before it changes
        await self._fill(crew, worker, None)

    async def _replace_distrusted(self, crew: Crew, worker: Worker, reason: Reason) -> None:
        await worker.stand_by(crew.bringup.manifest.serving.request_timeout_ms)
        await self._place.count(worker)
        await worker.end()
        await self._fill(crew, worker, reason)
        self._place.proven_again()

    async def _recycle(self, crew: Crew, worker: Worker, what: str) -> None:
        about: dict[str, Any] = {
            "model": self._place.name,
            "deployment": crew.bringup.deployment_id,
        }
        event(log, Event.WORKER_LEAKS, logging.WARNING, what, **about)
        try:
            fresh = await proven_worker(crew)
        except ChildError as error:
            self._recycle_at = time.monotonic() + RECYCLE_AGAIN_S
            message = f"{what}; no fresh process can take its place yet: {error.message}"
            self._place.happened("LeakFound", message, error.mend)
            return
        try:
            async with self._place.moving:
                await self._relieve(crew, worker, fresh, what)
        finally:
            if fresh not in crew.workers:
                fresh.child.kill()

    async def _relieve(self, crew: Crew, worker: Worker, fresh: Worker, what: str) -> None:
        """Let `fresh` go on where `worker` stops; one that died meanwhile has been replaced."""
        if self._place.current is not crew or worker not in crew.workers:
            return
        self._drop(worker)
        if worker.child.alive:
            await worker.stand_by(crew.bringup.manifest.serving.request_timeout_ms)
        await self._settle(crew, worker, fresh)
        await self._place.count(worker)
        await worker.end()
        self.recycled += 1
        child = fresh.child
        event(
            log,
            Event.WORKER_RECYCLED,
            model=self._place.name,
            worker=child.name,
            **child.concerns,
        )
        self._place.happened(
            "WorkerRecycled",
            f"{what}: a fresh process, proven, has taken its place without a lost request",
            f"Ask the author of {self._place.name} to mend the leak; it is contained meanwhile",
        )

    # --- filling a place ----------------------------------------------------------------------

    async def _fill(self, crew: Crew, worker: Worker, distrusted: Reason | None) -> None:
        """Put a proven worker in the place of one that is gone, however long it takes."""
        while True:
            delay_s = restart_delay_s(self.deaths, time.monotonic()) if self.deaths else 0.0
            self._restart_at[worker.worker_id] = time.monotonic() + delay_s
            await asyncio.sleep(delay_s)
            self._restart_at.pop(worker.worker_id, None)
            self.restarts += 1
            try:
                fresh = await proven_worker(crew)
            except ChildError as error:
                self._died(error.message)
                if distrusted is not None and error.code == MISMATCHED:
                    await self._place.given_up(_still_wrong(distrusted, error))
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is, the place is not left empty
                event(log, Event.TASK_FAILED, logging.ERROR, str(error), exc_info=error)
                self._died(f"no process could be started: {error!r}")
                continue
            self._tasks.pop(worker.worker_id, None)
            await self._settle(crew, worker, fresh)
            return

    async def _settle(self, crew: Crew, worker: Worker, fresh: Worker) -> None:
        crew.workers[crew.workers.index(worker)] = fresh
        self.keep(fresh)
        await self._place.show_lanes()

    def _died(self, epitaph: str) -> None:
        self.deaths.append(time.monotonic())
        self._place.died(epitaph)

    def _drop(self, worker: Worker) -> None:
        task = self._tasks.pop(worker.worker_id, None)
        if task is not None:
            task.cancel()
        self._restart_at.pop(worker.worker_id, None)


async def proven_worker(crew: Crew) -> Worker:
    """Start one more worker of a crew, prove it and let it listen.

    Raises:
        ChildError: it could not; the process is gone. `MISMATCHED`: it does not prove.
    """
    worker = await Worker.load(crew.bringup)
    try:
        proof = await worker.prove(crew.bringup.manifest)
        if not proof.passed:
            raise ChildError(MISMATCHED, f"{worker.child.name}: {proof.first_failure}")
        await worker.serve()
    except BaseException:
        worker.child.kill()
        raise
    return worker


def _still_wrong(first: Reason, error: ChildError) -> life.ReproofFailed:
    message = f"{first.message}; a fresh process does not reproduce it either: {error.message}"
    return life.ReproofFailed(Reason(first.code, message, first.mend))
