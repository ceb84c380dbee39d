"""A crew: the worker processes of one deployment, from spawning to their end.

All of a crew load the same bundle on the same rung, and each of them proves it for itself: nothing
unproven serves, not even the second of two identical processes.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from superbrain.deploy.child import Child, ChildError
from superbrain.domain import ctl
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from superbrain.domain.manifest import Manifest
    from superbrain.domain.proof import Proof

log = logging.getLogger(__name__)

WORKER_MODULE = "superbrain.serve.worker"
ORDER_TIMEOUT_S = 10.0
_worker_ids = itertools.count(1)


class Bringup(msgspec.Struct, frozen=True):
    """What a worker needs to know: deployment, bundle, rung, and where its lane goes."""

    deployment_id: int
    bundle_path: Path
    digest: str
    manifest: Manifest
    rung: str
    lanes_path: Path


class Worker:
    """One worker process."""

    def __init__(self, child: Child, worker_id: int, lane_path: str) -> None:
        self.child = child
        self.worker_id = worker_id
        self.lane_path = lane_path
        self.runtime = ""
        self.pong = ctl.WorkerPong()

    @property
    def lane(self) -> ctl.LaneAddress:
        """Where it answers."""
        return ctl.LaneAddress(self.lane_path, self.worker_id)

    @classmethod
    async def load(cls, bringup: Bringup) -> Worker:
        """Start a process and load bundle, engines and pipeline in it.

        Raises:
            ChildError: it could not; the process is gone.
        """
        worker_id = next(_worker_ids)
        lane_path = str(bringup.lanes_path / f"{worker_id}.lane")
        name = f"worker {worker_id} ({bringup.manifest.name} {bringup.manifest.version})"
        worker = cls(await Child.spawn(name, WORKER_MODULE), worker_id, lane_path)
        order = ctl.Load(
            deployment_id=bringup.deployment_id,
            bundle_path=str(bringup.bundle_path),
            manifest_sha256=bringup.digest,
            rung=bringup.rung,
            lane_path=lane_path,
        )
        try:
            loaded = await worker.child.order(
                order, ctl.Loaded, bringup.manifest.serving.load_timeout_s
            )
        except BaseException:
            worker.child.kill()
            raise
        worker.runtime = loaded.runtime
        event(log, Event.WORKER_STARTED, worker=name, pid=worker.child.pid, rung=bringup.rung)
        return worker

    def forget_lane(self) -> None:
        """Remove what a process that was killed has left of its lane."""
        Path(self.lane_path).unlink(missing_ok=True)

    async def prove(self, manifest: Manifest) -> Proof:
        """Run the golden cases in this very process."""
        timeout_s = manifest.proof_timeout_s
        return (await self.child.order(ctl.Prove(), ctl.Proven, timeout_s)).proof

    async def serve(self) -> None:
        """Listen on the lane."""
        await self.child.order(ctl.Serve(), ctl.Done, ORDER_TIMEOUT_S)
        event(log, Event.WORKER_READY, worker=self.child.name, pid=self.child.pid)

    async def stand_by(self, timeout_s: float) -> None:
        """Stop reading, finish what is being executed; a worker that cannot is ended."""
        try:
            await self.child.order(ctl.StandBy(), ctl.Done, timeout_s)
        except ChildError:
            self.child.kill()
            await self.child.exited.wait()

    async def end(self) -> None:
        """End the process; nothing of it is left."""
        if self.child.alive:
            await self.child.end()
            event(log, Event.WORKER_STOPPED, worker=self.child.name)
        self.forget_lane()


class Crew:
    """All workers of one deployment."""

    def __init__(self, bringup: Bringup, workers: list[Worker]) -> None:
        self.bringup = bringup
        self.workers = workers

    @classmethod
    async def load(cls, bringup: Bringup) -> Crew:
        """Start and load as many workers as the manifest asks for, at once.

        Raises:
            ChildError: one of them could not; none is left running.
        """
        tasks = [
            asyncio.create_task(Worker.load(bringup))
            for _ in range(bringup.manifest.serving.instances)
        ]
        try:
            return cls(bringup, list(await asyncio.gather(*tasks)))
        except BaseException:
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Worker):
                    await result.end()
            raise

    @property
    def whole(self) -> bool:
        """True when it has workers and every one of them is alive."""
        return bool(self.workers) and all(worker.child.alive for worker in self.workers)

    @property
    def lanes(self) -> list[ctl.LaneAddress]:
        """Where the living workers answer."""
        return [worker.lane for worker in self.workers if worker.child.alive]

    @property
    def runtime(self) -> str:
        """Library and version that run its engines."""
        return self.workers[0].runtime if self.workers else ""

    async def prove(self) -> list[tuple[int, Proof]]:
        """Run the golden cases in every worker; worker id and proof of each."""
        proofs = await asyncio.gather(
            *(worker.prove(self.bringup.manifest) for worker in self.workers)
        )
        return [
            (worker.worker_id, proof) for worker, proof in zip(self.workers, proofs, strict=True)
        ]

    async def serve(self) -> None:
        """Let all of them listen."""
        await asyncio.gather(*(worker.serve() for worker in self.workers))

    async def stand_by(self) -> None:
        """Let all of them stop, and stay warm."""
        timeout_s = ORDER_TIMEOUT_S + self.bringup.manifest.serving.request_timeout_ms / 1000
        await asyncio.gather(
            *(worker.stand_by(timeout_s) for worker in self.workers if worker.child.alive)
        )

    async def end(self) -> None:
        """End all of them."""
        await asyncio.gather(*(worker.end() for worker in self.workers))
