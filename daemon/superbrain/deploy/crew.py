"""A crew: the worker processes of one deployment, from spawning to their end.

All of a crew load the same bundle on the same rung, and each of them proves it for itself: nothing
unproven serves, not even the second of two identical processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from superbrain.deploy.child import Child, ChildError
from superbrain.deploy.confinement import Confined, begin_with_scratch, watch
from superbrain.deploy.fork_server import ForkServerError
from superbrain.deploy.rounds import Rounds
from superbrain.domain import ctl
from superbrain.domain.engine import EngineFile
from superbrain.domain.manifest import CarriedEngine, Manifest
from superbrain.domain.policy import stand_by_limit_s
from superbrain.domain.records import RecordPolicy
from superbrain.domain.sandbox import Sandbox
from superbrain.host import processors, scheduling
from superbrain.host.events import Event
from superbrain.host.logs import event
from superbrain.host.usage import RunClock

if TYPE_CHECKING:
    from superbrain.deploy.fork_server import ForkServer
    from superbrain.domain.proof import Proof, Timing
    from superbrain.domain.sandbox import SandboxPolicy

log = logging.getLogger(__name__)

WORKER_MODULE = "superbrain.serve.worker_process"
ORDER_TIMEOUT_S = 10.0
# Whose executions are shorter loses less by a shared processor than by loads that take longer.
LONG_MS = 1.0
_ENDLESS = (
    "Look in the bundle's code for what never returns; if it is only slow, raise "
    "serving.load_timeout_s in its manifest"
)
_worker_ids = itertools.count(1)
_Watching = asyncio.Task[None]


class Workplace(msgspec.Struct, frozen=True):
    """Where the workers of this host have their lanes and scratch folders, and what holds them.

    They come from `fork_server`. `records` says of which requests they tell; `on_records` is given
    it, with the worker's name. `rounds` look at all of them; `undisturbed` has the process ids
    of those beside which nobody loads or ends while there is another processor.
    """

    lanes_path: Path
    scratch_path: Path
    sandbox: SandboxPolicy
    fork_server: ForkServer
    records: RecordPolicy = RecordPolicy()
    on_records: Callable[[str, ctl.Records], None] = lambda _name, _records: None
    rounds: Rounds = msgspec.field(default_factory=Rounds)
    undisturbed: set[int] = msgspec.field(default_factory=set)


class Bringup(msgspec.Struct, frozen=True):
    """What a worker needs to know: deployment, bundle, rung, its engines, and where it works.

    `carried`: engines for this rung that the bundle brings along and that may be used.
    """

    deployment_id: int
    bundle_path: Path
    digest: str
    manifest: Manifest
    rung: str
    workplace: Workplace
    engines: tuple[EngineFile, ...] = ()
    carried: tuple[CarriedEngine, ...] = ()


class Worker:
    """One worker process, and the watch that ends it beyond its limits."""

    def __init__(
        self,
        child: Child,
        worker_id: int,
        lane_path: str,
        watching: _Watching,
        undisturbed: set[int],
    ) -> None:
        self.child = child
        self.worker_id = worker_id
        self.lane_path = lane_path
        self.watching = watching
        self._undisturbed = undisturbed  # as the workplace's
        self.runtime = ""
        self.sandbox = Sandbox()
        self.pong = ctl.WorkerPong()
        self.proven_ms: dict[str, float] = {}

    @property
    def lane(self) -> ctl.LaneAddress:
        """Where it answers."""
        return ctl.LaneAddress(self.lane_path, self.worker_id)

    @property
    def _slowest_ms(self) -> float:
        return max(self.proven_ms.values(), default=0.0)

    @classmethod
    async def load(cls, bringup: Bringup) -> Worker:
        """Start a process and load bundle, engines and pipeline in it.

        Raises:
            ChildError: it could not; the process is gone.
        """
        worker_id, place = next(_worker_ids), bringup.workplace
        lane_path = str(place.lanes_path / f"{worker_id}.lane")
        name = f"worker {worker_id} ({bringup.manifest.name} {bringup.manifest.version})"
        scratch = place.scratch_path / str(worker_id)
        begin = partial(_begin, name, place.fork_server, bringup.deployment_id)
        child = await begin_with_scratch(name, scratch, begin)
        child.on_message = partial(_heard, name, place)
        _load_aside(child, bringup)
        confined = Confined(child, place.sandbox, scratch, RunClock(child.pid).has_run)
        watching = asyncio.create_task(watch(confined, place.rounds, Path(lane_path)))
        watching.add_done_callback(lambda _: place.undisturbed.discard(child.pid))
        worker = cls(child, worker_id, lane_path, watching, place.undisturbed)
        order = ctl.Load(
            deployment_id=bringup.deployment_id,
            bundle_path=str(bringup.bundle_path),
            manifest_sha256=bringup.digest,
            rung=bringup.rung,
            lane_path=lane_path,
            scratch_path=str(scratch),
            sandbox=place.sandbox,
            engines=list(bringup.engines),
            records=place.records,
        )
        try:
            loaded = await worker.child.order(
                order, ctl.Loaded, bringup.manifest.serving.load_timeout_s, _ENDLESS
            )
        except BaseException:
            worker.child.kill()
            raise
        worker.runtime, worker.sandbox = loaded.runtime, loaded.sandbox
        confined.alone = loaded.sandbox.system_calls
        event(
            log,
            Event.WORKER_STARTED,
            worker=name,
            pid=child.pid,
            rung=bringup.rung,
            **child.concerns,
        )
        return worker

    async def prove(self, manifest: Manifest) -> Proof:
        """Run the golden cases in this very process."""
        timeout_s = manifest.proof_timeout_s
        proof = (await self.child.order(ctl.Prove(), ctl.Proven, timeout_s, _ENDLESS)).proof
        self.proven_ms = {case.case: case.milliseconds for case in proof.times}
        return proof

    async def time(self, manifest: Manifest) -> Timing:
        """Time the golden requests in this very process."""
        timeout_s = manifest.timing_timeout_s
        return (await self.child.order(ctl.Time(), ctl.Timed, timeout_s, _ENDLESS)).timing

    async def serve(self) -> None:
        """Listen on the lane."""
        scheduling.take_turns(self.child.pid)
        processors.roam(self.child.pid)
        if self._slowest_ms >= LONG_MS:
            self._undisturbed.add(self.child.pid)
        await self.child.order(ctl.Serve(), ctl.Done, ORDER_TIMEOUT_S)
        child = self.child
        event(log, Event.WORKER_READY, worker=child.name, pid=child.pid, **child.concerns)

    async def stand_by(self, request_timeout_ms: int) -> float:
        """Let it finish what has come, as far as that is soon done; a worker that cannot is ended.

        Returns:
            The seconds after which it was ended; 0.0 for one that has finished.
        """
        limit_s = stand_by_limit_s(request_timeout_ms, self._slowest_ms, self.pong.longest_s)
        try:
            async with asyncio.timeout(limit_s):  # whatever it was told to do before included
                await self.child.order(ctl.StandBy(), ctl.Done, limit_s)
        except (ChildError, TimeoutError):
            what = f"did not finish what it executes within {limit_s:g} s, to make room"
            event(
                log,
                Event.WORKER_STUCK,
                logging.ERROR,
                worker=self.child.name,
                what=what,
                **self.child.concerns,
            )
            self.child.kill()
            await self.child.exited.wait()
            return limit_s
        return 0.0

    async def end(self) -> None:
        """End the process; nothing of it is left."""
        if self.child.alive:
            self._undisturbed.discard(self.child.pid)
            processors.step_aside(self.child.pid, self._undisturbed)
            await self.child.end()
            event(log, Event.WORKER_STOPPED, worker=self.child.name, **self.child.concerns)
        await self.watching  # which leaves nothing behind


def _heard(name: str, place: Workplace, message: ctl.Message) -> None:
    if isinstance(message, ctl.Records):
        place.on_records(name, message)


async def _begin(name: str, fork_server: ForkServer, deployment: int) -> Child:
    with contextlib.suppress(ForkServerError):  # which has been said
        return await Child.begin(name, fork_server.fork, deployment=deployment)
    return await Child.spawn(name, WORKER_MODULE, deployment=deployment)


def _load_aside(child: Child, bringup: Bringup) -> None:
    """Let it load where nobody executes for long.

    Not where code comes along: its libraries count processors when they are first used, and stay
    with as many threads.
    """
    manifest = bringup.manifest
    if not manifest.has_code:
        threads = max(graph.threads for graph in manifest.graphs.values())
        processors.step_aside(child.pid, bringup.workplace.undisturbed, threads)


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

    async def prove(self, *, timed: bool = False) -> list[tuple[int, Proof]]:
        """Run the golden cases in every worker; worker id and proof of each.

        `timed`: when all have passed, one of them says how long a request takes.
        """
        proofs = await asyncio.gather(
            *(worker.prove(self.bringup.manifest) for worker in self.workers)
        )
        if timed and all(proof.passed for proof in proofs):
            timing = await self.workers[0].time(self.bringup.manifest)
            proofs[0] = msgspec.structs.replace(proofs[0], timing=timing)
        return [
            (worker.worker_id, proof) for worker, proof in zip(self.workers, proofs, strict=True)
        ]

    async def serve(self) -> None:
        """Let all of them listen."""
        await asyncio.gather(*(worker.serve() for worker in self.workers))

    @contextlib.contextmanager
    def in_place_of(self, old: Crew) -> Iterator[None]:
        """While this lasts, let them be on the processors of those who stop now."""
        with contextlib.ExitStack() as moved:
            for its, mine in zip(old.workers, self.workers, strict=False):
                moved.enter_context(processors.in_place_of(its.child.pid, mine.child.pid))
            yield

    async def stand_by(self) -> float:
        """Let all of them stop, and stay warm.

        Returns:
            The seconds after which one was ended that did not; 0.0 when all did.
        """
        timeout_ms = self.bringup.manifest.serving.request_timeout_ms
        waited = await asyncio.gather(
            *(worker.stand_by(timeout_ms) for worker in self.workers if worker.child.alive)
        )
        return max(waited, default=0.0)

    async def end(self) -> None:
        """End all of them."""
        await asyncio.gather(*(worker.end() for worker in self.workers))
