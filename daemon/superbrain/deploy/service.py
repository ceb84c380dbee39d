"""One model in service: the crew that answers, its warm predecessor, restarts and budget.

The order of a swap is here, in `switch`: the new crew listens, the journal commits, the old crew
stops reading and answers what it executes, the gateway's directory flips. A worker that dies is
replaced by one that has proven itself again; requests that were in flight on it are sent again by
the gateway. When the error budget is spent, `on_budget_spent` is called once.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from superbrain.deploy.child import ChildError
from superbrain.deploy.crew import Crew, Worker
from superbrain.domain import ctl
from superbrain.domain.manifest import Manifest, Serving
from superbrain.domain.policy import ErrorBudget, budget_spent, restart_delay_s
from superbrain.host.events import Event
from superbrain.host.logs import event
from superbrain.wire.messages import InterfaceTensor, ModelMetadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from superbrain.deploy.gateway import GatewayKeeper
    from superbrain.domain.deployment import Deployment, Reason

    Commit = Callable[[Deployment | None], Deployment]

log = logging.getLogger(__name__)

PING_TIMEOUT_S = 5.0
HANG_GRACE_S = 5.0
SILENT_PINGS = 3


class Sample(NamedTuple):
    """What a crew had counted at an instant of the monotonic clock."""

    at: float
    requests: int
    internal_errors: int


class ModelService:
    """The processes that answer for one model.

    `direct_requests` and `direct_errors` count what workers answered that did not come through the
    gateway, for as long as this object lives; what a killed worker did after its last pong is lost.

    Args:
        name: the model's name.
        gateway: where its route goes.
        budget: how much may go wrong.
        on_budget_spent: called with a sentence when too much went wrong.
    """

    def __init__(
        self,
        name: str,
        gateway: GatewayKeeper,
        budget: ErrorBudget,
        on_budget_spent: Callable[[str, str], None],
    ) -> None:
        self.name = name
        self.current: Crew | None = None
        self.deployment: Deployment | None = None
        self.warm: Crew | None = None
        self.restarts = 0
        self.direct_requests = 0
        self.direct_errors = 0
        self.last_error = ""
        self.fault: Reason | None = None
        self._gateway = gateway
        self._budget = budget
        self._on_budget_spent = on_budget_spent
        self._deaths: collections.deque[float] = collections.deque(maxlen=100)
        self._spent = False
        self._samples: collections.deque[Sample] = collections.deque()
        self._moving = asyncio.Lock()
        self._silent: collections.Counter[int] = collections.Counter()
        self._keepers: dict[int, asyncio.Task[None]] = {}

    # --- moving traffic -----------------------------------------------------------------------

    async def hold(self, manifest: Manifest | None, deployment: Deployment) -> None:
        """Let requests wait: a proven process will be there soon."""
        await self._gateway.route(_route(manifest, deployment, []))

    async def refuse(self, deployment: Deployment, manifest: Manifest | None, reason: str) -> None:
        """Answer every request UNAVAILABLE with this reason: nothing proven is left."""
        self._forget_keepers()
        crew, self.current = self.current, None
        route = _route(manifest, deployment, [])
        await self._gateway.route(msgspec.structs.replace(route, reason=reason))
        if crew is not None:
            await crew.end()

    async def switch(self, crew: Crew, commit: Commit) -> None:
        """Move the traffic to `crew`; what served before stays warm.

        `commit` gets the deployment that is replaced, writes the change down and gives the one
        that serves now; until it has returned the old crew serves.

        Raises:
            ChildError: the new crew could not listen; nothing has changed.
        """
        async with self._moving:
            await crew.serve()
            await self._switch(crew, commit(self.deployment))

    async def _switch(self, crew: Crew, deployment: Deployment) -> None:
        old = self.current
        self._forget_keepers()
        self.current, self.deployment = crew, deployment
        self._deaths.clear()
        self._samples.clear()
        self._spent = False
        if old is not None:
            await old.stand_by()
        await self._gateway.route(_route(crew.bringup.manifest, deployment, crew.lanes))
        if old is not None:  # it counts no further; whoever asked waits for none of this
            await asyncio.gather(*(self._ask_figures(worker) for worker in old.workers))
        outgoing, self.warm = self.warm, old
        if outgoing is not None and outgoing is not crew:
            await outgoing.end()
        for worker in crew.workers:
            self._keep(worker)

    async def end_warm(self, deployment_id: int) -> None:
        """End the warm predecessor, if it belongs to this deployment."""
        async with self._moving:
            if self.warm is not None and self.warm.bringup.deployment_id == deployment_id:
                warm, self.warm = self.warm, None
                await warm.end()

    async def retire(self, forget: Callable[[], bool]) -> None:
        """Drain and end everything and tell callers, if `forget` says that it is still wanted."""
        async with self._moving:
            if forget():
                await self._stop()
                await self._gateway.unroute(self.name)

    async def stop(self) -> None:
        """Drain and end everything; callers wait for the next start."""
        async with self._moving:
            await self._stop()

    async def _stop(self) -> None:
        self._forget_keepers()
        crew, self.current, self.deployment = self.current, None, None
        self.fault = None
        warm, self.warm = self.warm, None
        if crew is not None:
            await crew.stand_by()
            await crew.end()
        if warm is not None:
            await warm.end()

    # --- keeping it alive ---------------------------------------------------------------------

    async def check(self) -> None:
        """Refresh every worker's figures, end those that hang, judge the budget."""
        crew = self.current
        if crew is None:
            return
        await asyncio.gather(*(self._check_worker(crew, worker) for worker in crew.workers))
        if crew is self.current:
            self._judge()

    async def _check_worker(self, crew: Crew, worker: Worker) -> None:
        if not worker.child.alive:
            return
        answered = await self._ask_figures(worker)
        limit_s = crew.bringup.manifest.serving.request_timeout_ms / 1000 + HANG_GRACE_S
        if answered:
            self._silent.pop(worker.worker_id, None)
        else:
            self._silent[worker.worker_id] += 1
        hung = worker.pong.executing_s > limit_s
        if hung or self._silent[worker.worker_id] >= SILENT_PINGS:
            what = f"executed one request for over {limit_s:g} s" if hung else "did not answer"
            event(log, Event.WORKER_STUCK, level=logging.ERROR, worker=worker.child.name, what=what)
            worker.child.kill()

    async def _ask_figures(self, worker: Worker) -> bool:
        """Refresh the figures of a living worker; false when it does not answer."""
        if not worker.child.alive:
            return False
        pong = await worker.child.ping(ctl.WorkerPong, PING_TIMEOUT_S)
        if pong is None:
            return False
        self.direct_requests += pong.direct_requests - worker.pong.direct_requests
        self.direct_errors += pong.direct_errors - worker.pong.direct_errors
        worker.pong = pong
        self.last_error = pong.last_error or self.last_error
        return True

    def _judge(self) -> None:
        crew = self.current
        if crew is None:
            return
        now = time.monotonic()
        recent = self._since_window_began(crew, now)
        reason = budget_spent(self._budget, self._deaths, *recent, now)
        if reason and not self._spent:
            self._spent = True
            self._on_budget_spent(self.name, reason)
        elif not reason and self._spent:
            self._spent = False
            self.fault = None

    def _since_window_began(self, crew: Crew, now: float) -> tuple[int, int]:
        """Count requests and internal errors within the budget's window."""
        requests = sum(worker.pong.requests for worker in crew.workers)
        internal = sum(worker.pong.internal_errors for worker in crew.workers)
        if self._samples and requests < self._samples[-1].requests:
            self._samples.clear()  # a worker was replaced and counts from zero
        self._samples.append(Sample(now, requests, internal))
        while len(self._samples) > 2 and self._samples[1].at <= now - self._budget.window_s:
            self._samples.popleft()
        oldest = self._samples[0] if len(self._samples) > 1 else Sample(now, 0, 0)
        return requests - oldest.requests, internal - oldest.internal_errors

    def _keep(self, worker: Worker) -> None:
        task = asyncio.create_task(self._replace_on_death(worker))
        self._keepers[worker.worker_id] = task

    def _forget_keepers(self) -> None:
        for keeper in self._keepers.values():
            keeper.cancel()
        self._keepers.clear()
        self._silent.clear()

    async def _replace_on_death(self, worker: Worker) -> None:
        """Wait for a worker's death, then put a proven one in its place, however long it takes."""
        await worker.child.exited.wait()
        self._died(worker.child.epitaph())
        crew, deployment = self.current, self.deployment
        assert crew is not None  # noqa: S101 - keepers are cancelled before it changes
        assert deployment is not None  # noqa: S101
        while True:
            now = time.monotonic()
            await asyncio.sleep(restart_delay_s(self._deaths, now))
            self.restarts += 1
            try:
                fresh = await self._proven_worker(crew)
            except ChildError as error:
                self._died(error.message)
                continue
            worker.forget_lane()
            crew.workers[crew.workers.index(worker)] = fresh
            await self._gateway.route(_route(crew.bringup.manifest, deployment, crew.lanes))
            self._keep(fresh)
            self._keepers.pop(worker.worker_id, None)
            return

    def _died(self, epitaph: str) -> None:
        self._deaths.append(time.monotonic())
        self.last_error = epitaph
        event(log, Event.WORKER_DIED, level=logging.ERROR, model=self.name, message=epitaph)
        self._judge()

    async def _proven_worker(self, crew: Crew) -> Worker:
        worker = await Worker.load(crew.bringup)
        try:
            proof = await worker.prove(crew.bringup.manifest)
            if not proof.passed:
                raise ChildError("MISMATCHED", f"{worker.child.name}: {proof.first_failure}")
            await worker.serve()
        except BaseException:
            worker.child.kill()
            raise
        return worker


def _route(
    manifest: Manifest | None, deployment: Deployment, lanes: list[ctl.LaneAddress]
) -> ctl.Route:
    """Say how a deployment is reached; `manifest` is None when the store has lost it."""
    serving = manifest.serving if manifest else Serving()
    return ctl.Route(
        model=deployment.name,
        version=deployment.version,
        deployment_id=deployment.id,
        lanes=lanes,
        metadata=_metadata(manifest, deployment),
        queue_size=serving.queue_size,
        request_timeout_ms=serving.request_timeout_ms,
    )


def _metadata(manifest: Manifest | None, deployment: Deployment) -> ModelMetadata:
    inputs = manifest.interface.inputs if manifest else []
    outputs = manifest.interface.outputs if manifest else []
    return ModelMetadata(
        name=deployment.name,
        versions=[deployment.version],
        platform="superbrain",
        inputs=[InterfaceTensor(t.name, t.datatype, t.shape, t.description) for t in inputs],
        outputs=[InterfaceTensor(t.name, t.datatype, t.shape, t.description) for t in outputs],
        description=manifest.description if manifest else "",
    )
