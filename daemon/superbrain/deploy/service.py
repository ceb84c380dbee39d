"""One model in service: the crew that answers, its warm predecessor, its figures and its budget.

The order of a swap is here, in `switch`: the new crew listens, the journal commits, the gateway
joins the new lanes, the old crew finishes what has come, the gateway's directory flips. keeper.py
replaces workers that die, leak or answer wrongly, watch.py and reproof.py find those that do. When
the error budget is spent, `Surroundings.given_up` is told once.
"""

from __future__ import annotations

import asyncio
import collections
import datetime as dt
import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from superbrain.deploy.crew import Crew, Worker
from superbrain.deploy.keeper import Keeper
from superbrain.deploy.reproof import Reproofs
from superbrain.deploy.watch import CrewWatch
from superbrain.domain import ctl
from superbrain.domain import deployment as life
from superbrain.domain.deployment import Reason, State
from superbrain.domain.health import Incident
from superbrain.domain.manifest import Manifest, Serving
from superbrain.domain.policy import budget_spent, hang_limit_s
from superbrain.domain.totals import VersionTotals
from superbrain.host.events import Event
from superbrain.host.logs import event
from superbrain.wire.messages import InterfaceTensor, ModelMetadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from superbrain.deploy.gateway import GatewayKeeper
    from superbrain.domain.deployment import Deployment
    from superbrain.domain.health import IncidentKind
    from superbrain.domain.watch import Rules, Slower

    Commit = Callable[[Deployment | None], Deployment]

log = logging.getLogger(__name__)

PING_TIMEOUT_S = 5.0
SILENT_PINGS = 3
UNREACHED_S = 10.0
KEPT_INCIDENTS = 5
BUDGET_SPENT = "BUDGET_SPENT"


class Surroundings(Protocol):
    """What a service tells, and asks, beyond its own model."""

    reproofs: asyncio.Semaphore

    def given_up(self, name: str, why: life.Bad) -> bool:
        """Take note that a model does too badly; whether another version will come in its place."""

    def happened(self, name: str, incident: Incident) -> None:
        """Take note of an incident."""

    def to_blame(self, name: str) -> str:
        """Say why the host is to blame for a slow model; empty when the model is."""


class Sample(NamedTuple):
    """What had been counted at an instant of the monotonic clock."""

    at: float
    requests: int
    internal_errors: int


class ModelService:
    """The processes that answer for one model.

    `direct_requests` and `direct_errors` count what workers answered that did not come through the
    gateway, for as long as this object lives, `totals` what they did in all; what a killed worker
    did after its last pong is lost.

    Args:
        name: the model's name.
        gateway: where its route goes.
        rules: how its workers are judged.
        surroundings: whom to tell what concerns more than its workers.
    """

    def __init__(
        self, name: str, gateway: GatewayKeeper, rules: Rules, surroundings: Surroundings
    ) -> None:
        self.name = name
        self.current: Crew | None = None
        self.deployment: Deployment | None = None
        self.warm: Crew | None = None
        self.direct_requests = 0
        self.direct_errors = 0
        self.totals = VersionTotals()
        self.incident_counts: collections.Counter[str] = collections.Counter()
        self.last_error = ""
        self.fault: Reason | None = None
        self.incidents: collections.deque[Incident] = collections.deque(maxlen=KEPT_INCIDENTS)
        self.moving = asyncio.Lock()
        self.keeper = Keeper(self)
        self.watch = CrewWatch(rules.watch)
        self.reproofs = Reproofs(self, rules, surroundings.reproofs)
        self._gateway = gateway
        self._rules = rules
        self._surroundings = surroundings
        self._spent = False
        self._was_slower = False
        self._requests = 0
        self._internal_errors = 0
        self._samples: collections.deque[Sample] = collections.deque()
        self._silent: collections.Counter[int] = collections.Counter()
        self._unreached: dict[int, list[float]] = {}  # by worker: when it was looked for in vain

    @property
    def in_probation(self) -> bool:
        """Whether its version has not yet served long enough to be trusted."""
        return self.deployment is not None and self.deployment.state is State.PROBATION

    @property
    def slower(self) -> Slower | None:
        """How much slower it has become than it was."""
        return self.watch.slower if self.current is not None else None

    # --- moving traffic -----------------------------------------------------------------------

    async def hold(self, manifest: Manifest | None, deployment: Deployment) -> None:
        """Let requests wait: a proven process will be there soon."""
        await self._gateway.route(_route(manifest, deployment, []))

    async def refuse(self, deployment: Deployment, manifest: Manifest | None, reason: str) -> None:
        """Answer every request UNAVAILABLE with this reason: nothing proven is left."""
        self._forget()
        crew, self.current = self.current, None
        route = _route(manifest, deployment, [])
        await self._gateway.route(msgspec.structs.replace(route, reason=reason))
        if crew is not None:
            await crew.end()

    async def make_room(self, waiting: str) -> None:
        """End every process of this model; requests wait, and those too late are told `waiting`."""
        async with self.moving:
            self._forget()
            crew, self.current = self.current, None
            warm, self.warm = self.warm, None
            if crew is not None and self.deployment is not None:
                self._say_hung(await crew.stand_by())
                route = _route(crew.bringup.manifest, self.deployment, [])
                await self._gateway.route(msgspec.structs.replace(route, waiting=waiting))
                await self._count(crew)
            await asyncio.gather(*(one.end() for one in (crew, warm) if one is not None))

    async def switch(self, crew: Crew, commit: Commit) -> None:
        """Move the traffic to `crew`; what served before stays warm.

        `commit` gets the deployment that is replaced, writes the change down and gives the one
        that serves now; until it has returned the old crew serves.

        Raises:
            ChildError: the new crew could not listen; nothing has changed.
        """
        async with self.moving:
            await crew.serve()
            await self._switch(crew, commit(self.deployment))

    async def _switch(self, crew: Crew, deployment: Deployment) -> None:
        old = self.current
        self._forget()
        self.current, self.deployment = crew, deployment
        self.keeper.deaths.clear()
        self._spent = self._was_slower = False
        route = _route(crew.bringup.manifest, deployment, crew.lanes)
        if old is not None:
            with crew.in_place_of(old):
                await self._gateway.prepare(route)
                hung_s = await old.stand_by()
            self._say_hung(hung_s)
        await self._gateway.route(route)
        for worker in crew.workers:
            self.keeper.keep(worker)
        if old is not None:  # it counts no further; whoever asked waits for none of this
            await self._count(old)
        self._samples.clear()
        self._samples.append(Sample(time.monotonic(), self._requests, self._internal_errors))
        outgoing, self.warm = self.warm, old
        if outgoing is not None and outgoing is not crew:
            await outgoing.end()

    def _say_hung(self, waited_s: float) -> None:
        if waited_s:
            what = f"a worker was still executing {waited_s:g} s after it was to make room"
            self.happened("WorkerHung", f"{what}: it was ended, and its requests were sent again")

    async def end_warm(self, deployment_id: int) -> None:
        """End the warm predecessor, if it belongs to this deployment."""
        async with self.moving:
            if self.warm is not None and self.warm.bringup.deployment_id == deployment_id:
                warm, self.warm = self.warm, None
                await warm.end()

    async def retire(self, forget: Callable[[], bool]) -> None:
        """Drain and end everything and tell callers, if `forget` says that it is still wanted."""
        async with self.moving:
            if forget():
                await self._stop()
                await self._gateway.unroute(self.name)

    async def stop(self) -> None:
        """Drain and end everything; callers wait for the next start."""
        async with self.moving:
            await self._stop()

    async def _stop(self) -> None:
        self._forget()
        crew, self.current, self.deployment = self.current, None, None
        self.fault = None
        warm, self.warm = self.warm, None
        if crew is not None:
            await crew.stand_by()
            await self._count(crew)
            await crew.end()
        if warm is not None:
            await warm.end()

    # --- figures and budget -------------------------------------------------------------------

    async def check(self) -> None:
        """Refresh every worker's figures, end those that hang, judge what was found."""
        crew = self.current
        if crew is None:
            return
        await asyncio.gather(*(self._check_worker(crew, worker) for worker in crew.workers))
        if crew is not self.current:
            return
        for finding in self.watch.look(crew, time.monotonic()):
            self.keeper.recycle(finding.worker, finding.what)
        self._tell_drift()
        self._judge()
        self.reproofs.look(crew, self.watch, in_probation=self.in_probation)

    async def _check_worker(self, crew: Crew, worker: Worker) -> None:
        if not worker.child.alive:
            return
        answered = await self._ask_figures(crew, worker)
        timeout_ms = crew.bringup.manifest.serving.request_timeout_ms
        limit_s = hang_limit_s(timeout_ms, self._rules.watch.hang_grace_s)
        if answered:
            self._silent.pop(worker.worker_id, None)
        else:
            self._silent[worker.worker_id] += 1
        if worker.pong.executing_s > limit_s:
            self.end_hung(worker, f"executed one request for over {limit_s:g} s")
        elif self._silent[worker.worker_id] >= SILENT_PINGS:
            self.end_hung(worker, "did not answer")
        elif self._out_of_reach(worker, time.monotonic()):
            self.end_hung(worker, "was alive, but the gateway got no lane to it")

    def _out_of_reach(self, worker: Worker, now: float) -> bool:
        """Whether the gateway has had no lane to a worker for as long as any trouble may last."""
        reached = self._gateway.reached(self.name)
        if reached is None or worker.worker_id in reached or self.moving.locked():
            self._unreached.pop(worker.worker_id, None)
            return False
        looked = self._unreached.setdefault(worker.worker_id, [])
        looked.append(now)  # what the gateway told may be as old as the last look
        return len(looked) >= SILENT_PINGS and now - looked[0] >= UNREACHED_S

    def end_hung(self, worker: Worker, what: str) -> None:
        """End a worker that hangs; the keeper replaces it."""
        executing = ", ".join(worker.pong.executing)
        event(
            log,
            Event.WORKER_STUCK,
            logging.ERROR,
            worker=worker.child.name,
            what=what,
            request_id=executing,
            **worker.child.concerns,
        )
        named = f"; it executed the request {executing}" if executing else ""
        self.happened(
            "WorkerHung",
            f"{worker.child.name} {what} and is replaced{named}",
            "Look for what is unusual about that request; if the model is only slow, let its "
            "author raise serving.request_timeout_ms",
        )
        worker.child.kill()

    async def count(self, worker: Worker) -> None:
        """Count what a worker of the crew that serves has done, before it ends."""
        if self.current is not None:
            await self._ask_figures(self.current, worker)

    async def _count(self, crew: Crew) -> None:
        await asyncio.gather(*(self._ask_figures(crew, worker) for worker in crew.workers))

    async def _ask_figures(self, crew: Crew, worker: Worker) -> bool:
        """Refresh the figures of a living worker; false when it does not answer."""
        if not worker.child.alive:
            return False
        pong = await worker.child.ping(ctl.WorkerPong, PING_TIMEOUT_S)
        if pong is None:
            return False
        before = worker.pong
        self.direct_requests += pong.direct_requests - before.direct_requests
        self.direct_errors += pong.direct_errors - before.direct_errors
        self._requests += pong.requests - before.requests
        self._internal_errors += pong.internal_errors - before.internal_errors
        self.totals.add(crew.bringup.manifest.version, pong, before)
        worker.pong = pong
        self.last_error = pong.last_error or self.last_error
        return True

    def _judge(self) -> None:
        now = time.monotonic()
        recent = self._since_window_began(now)
        reason = budget_spent(self._rules.budget, self.keeper.deaths, *recent, now)
        reason = reason or self._drift_to_blame()
        if reason and not self._spent:
            self._spent = True
            why = life.BudgetSpent(Reason(BUDGET_SPENT, reason))
            self._surroundings.given_up(self.name, why)
        elif not reason:
            self._spent = False
            if self.fault is not None and self.fault.code == BUDGET_SPENT:
                self.fault = None

    def judge_anew(self) -> None:
        """Tell once more, if its budget is still spent then."""
        self._spent = False

    def _since_window_began(self, now: float) -> tuple[int, int]:
        """Count requests and internal errors within the budget's window."""
        self._samples.append(Sample(now, self._requests, self._internal_errors))
        since = now - self._rules.budget.window_s
        while len(self._samples) > 2 and self._samples[1].at <= since:
            self._samples.popleft()
        oldest = self._samples[0]
        return self._requests - oldest.requests, self._internal_errors - oldest.internal_errors

    @property
    def _named(self) -> dict[str, Any]:
        """What a log line about the model bears."""
        named: dict[str, Any] = {"model": self.name}
        if self.deployment is not None:
            named["deployment"] = self.deployment.id
        return named

    # --- what was found -----------------------------------------------------------------------

    def _tell_drift(self) -> None:
        slower = self.slower
        if slower is not None and not self._was_slower:
            message = f"it has become {slower.sentence}"
            event(log, Event.MODEL_SLOWER, logging.WARNING, message, **self._named)
            blame = self._surroundings.to_blame(self.name)
            self.happened("BecameSlow", f"{message}; {blame}" if blame else message)
        elif slower is None and self._was_slower:
            event(log, Event.MODEL_NO_SLOWER, **self._named)
            self.happened("NoLongerSlow", "it is as fast as before again")
        self._was_slower = slower is not None

    def _drift_to_blame(self) -> str:
        """Say that it has become too slow, if that counts; only within probation, and its fault."""
        slower = self.slower
        if slower is None or not self.in_probation or not self._rules.watch.drift_spends_budget:
            return ""
        blamed = self._surroundings.to_blame(self.name)
        return "" if blamed else f"it has become {slower.sentence}"

    def distrust(self, worker: Worker, reason: Reason) -> None:
        """Take a worker out of service that no longer reproduces a golden case."""
        self.fault = reason
        self.keeper.distrust(worker, reason)

    def happened(self, kind: IncidentKind, message: str, mend: str = "") -> None:
        """Keep an incident for the report and tell of it."""
        self._surroundings.happened(self.name, self.keep_incident(kind, message, mend))

    def keep_incident(self, kind: IncidentKind, message: str, mend: str = "") -> Incident:
        """Keep an incident for the report."""
        incident = Incident(dt.datetime.now(dt.UTC), kind, message, mend)
        self.incidents.append(incident)
        self.incident_counts[kind] += 1
        return incident

    # --- what the keeper tells ----------------------------------------------------------------

    def died(self, epitaph: str) -> None:
        """Take note of a death."""
        self.last_error = epitaph
        event(log, Event.WORKER_DIED, logging.ERROR, epitaph, **self._named)
        self._judge()

    async def given_up(self, why: life.Bad) -> None:
        """No fresh process can take a place: go back, or tell callers that nothing is left."""
        self.fault = why.reason
        if not self._surroundings.given_up(self.name, why):
            await self.tell_if_nothing_is_left()

    async def tell_if_nothing_is_left(self) -> None:
        """Answer callers UNAVAILABLE while no process that was wrong has a proven successor."""
        crew, deployment, fault = self.current, self.deployment, self.fault
        if crew is not None and deployment is not None and fault is not None and not crew.lanes:
            route = _route(crew.bringup.manifest, deployment, [])
            await self._gateway.route(msgspec.structs.replace(route, reason=fault.message))

    def proven_again(self) -> None:
        """A fresh process has taken the place of one that was wrong."""
        self.fault = None
        message = "a fresh process reproduces every golden case and has taken its place"
        event(log, Event.MODEL_PROVEN_AGAIN, message=message, **self._named)
        self.happened("ProvenAgain", message)

    async def show_lanes(self) -> None:
        """Tell the gateway which workers answer now."""
        crew, deployment = self.current, self.deployment
        if crew is not None and deployment is not None:
            await self._gateway.route(_route(crew.bringup.manifest, deployment, crew.lanes))

    def _forget(self) -> None:
        self.keeper.forget()
        self.reproofs.forget()
        self._silent.clear()
        self._unreached.clear()


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
