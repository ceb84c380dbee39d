"""The observer: gathers the facts of every part at an interval and publishes one health report.

Each round refreshes the figures of gateway and workers (and thereby notices those that hang),
judges, and replaces `health.json` atomically, so that a reader never sees half a report.
"""

from __future__ import annotations

import asyncio
import collections
import datetime as dt
import logging
import os
from typing import TYPE_CHECKING

import msgspec

import superbrain
from superbrain.domain import deployment as life
from superbrain.domain.ctl import ModelTraffic, Quantiles
from superbrain.domain.deployment import Deployment, State
from superbrain.domain.health import (
    CandidateFacts,
    GatewayFacts,
    GpuFacts,
    Health,
    ModelFacts,
    ModelState,
    Problem,
    ProcessFacts,
    ProofSummary,
    TcpFacts,
)
from superbrain.domain.health_rules import ENDED_BADLY, judge, status_line
from superbrain.domain.rung_facts import rung_facts
from superbrain.domain.sandbox import LEVELS
from superbrain.host import notify
from superbrain.host.events import Event
from superbrain.host.facts import host_facts, process_facts
from superbrain.host.files import write_atomically
from superbrain.host.logs import event
from superbrain.transport import compiled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from superbrain.app.config import Config
    from superbrain.deploy.gateway import GatewayKeeper
    from superbrain.deploy.inbox import Inbox
    from superbrain.deploy.journal import Journal
    from superbrain.deploy.service import ModelService
    from superbrain.deploy.services import Services
    from superbrain.deploy.stages import Stages
    from superbrain.deploy.tcp_face import TcpFaceKeeper
    from superbrain.domain.sandbox import Sandbox

log = logging.getLogger(__name__)

PING_TIMEOUT_S = 3.0
SILENT_PINGS = 3
START_PATIENCE_S = 60.0
_NO_TRAFFIC = ModelTraffic("", 0, 0, 0, 0, 0, 0, Quantiles())


class Observer:
    """Knows where every fact comes from; `watched` tell their problems by themselves.

    `on_report` is called with every report that is published.
    """

    def __init__(
        self,
        config: Config,
        journal: Journal,
        inbox: Inbox,
        gateway: GatewayKeeper,
        services: Services,
        stages: Stages,
        *,
        tcp: TcpFaceKeeper | None = None,
        watched: Sequence[Callable[[], list[Problem]]] = (),
    ) -> None:
        self._tcp = tcp
        self.on_report: Callable[[Health], None] = lambda _health: None
        self._steps: dict[str, collections.Counter[str]] = {}
        self._config = config
        self._journal = journal
        self._inbox = inbox
        self._gateway = gateway
        self._services = services
        self._stages = stages
        self._watched = watched
        self._started_at = dt.datetime.now(dt.UTC)
        self._counted_at: dt.datetime | None = None
        self._silent = 0
        self._status = ""
        self._heartbeat = notify.Heartbeat()
        watchdog_s = notify.watchdog_s()
        self._interval_s = min(config.health.interval_s, watchdog_s / 3 if watchdog_s else 1e9)
        self.started = False
        self._unwritten = ""
        self.problems: dict[str, Problem] = {}
        self.gpu_facts: Callable[[], list[GpuFacts]] = list

    async def run(self) -> None:
        """Observe for ever."""
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - it must not end what it observes
                event(log, Event.TASK_FAILED, logging.ERROR, str(error), exc_info=error)
            await asyncio.sleep(self._interval_s)

    async def look(self) -> Health:
        """Refresh all figures once and publish the report."""
        checks = [self._check_gateway(), self._services.check()]
        if self._tcp is not None:
            checks.append(self._tcp.check(PING_TIMEOUT_S))
        await asyncio.gather(*checks)
        self._counted_at = dt.datetime.now(dt.UTC)
        health = self.report()
        self._heartbeat.beat(status_line(health.models))
        if not self.started:  # models may load for as long as they need, while this loop runs
            notify.still_starting(START_PATIENCE_S)
        if health.status != self._status:
            self._status = health.status
            event(log, Event.HEALTH_CHANGED, status=health.status)
        self._publish(health)
        self.on_report(health)
        return health

    def stepped(self, after: Deployment) -> None:
        """Count a deployment that has come into another state."""
        self._steps.setdefault(after.name, collections.Counter())[str(after.state)] += 1

    def _publish(self, health: Health) -> None:
        """Write the report; what keeps it from being written is said once, not every time."""
        try:
            write_atomically(self._config.health_path, msgspec.json.encode(health))
        except OSError as error:
            if self._unwritten != str(error):
                event(log, Event.HEALTH_WRITE_FAILED, logging.ERROR, str(error))
            self._unwritten = str(error)
        else:
            self._unwritten = ""

    def report(self) -> Health:
        """Put the report together from what is known now."""
        traffic = {model.model: model for model in self._gateway.pong.models}
        gateway = GatewayFacts(
            endpoint=self._gateway.endpoint,
            running=self._gateway.pid is not None,
            process=_process(self._gateway.pid),
            restarts=self._gateway.restarts,
            malformed=self._gateway.totals.malformed,
            dropped=self._gateway.totals.dropped,
        )
        host = host_facts(self._config.store_path)
        found = (
            self._model(name, traffic.get(name, _NO_TRAFFIC)) for name in self._journal.models()
        )
        models = self._counted([model for model in found if model is not None])
        inbox, inbox_more = self._inbox.listing()
        known = [*self.problems.values(), *self._journal_problems(), *self._tcp_problems()]
        known += [problem for problems in self._watched for problem in problems()]
        judgement = judge(
            gateway=gateway,
            host=host,
            models=models,
            inbox=inbox,
            inbox_more=inbox_more,
            known=known,
        )
        me = process_facts(os.getpid())
        assert me is not None  # noqa: S101 - this process exists
        return Health(
            at=dt.datetime.now(dt.UTC),
            status=judgement.status,
            version=superbrain.__version__,
            started_at=self._started_at,
            ready=judgement.ready,
            problems=judgement.problems,
            process=me,
            gateway=gateway,
            host=host,
            gpus=self.gpu_facts(),
            models=models,
            inbox=inbox,
            inbox_path=str(self._config.inbox_path),
            tcp=_tcp_facts(self._tcp) if self._tcp is not None else None,
            lane_loop=compiled.described(),
            counted_at=self._counted_at,
            inbox_more=inbox_more,
        )

    def sandboxes(self, deployment: Deployment) -> list[Sandbox]:
        """Give what holds the workers of a deployment while it serves."""
        service = self._services.of(deployment.name)
        crew = service.current
        found = _sandbox(service)
        mine = crew is not None and crew.bringup.deployment_id == deployment.id
        return [found] if mine and found is not None else []

    def _journal_problems(self) -> list[Problem]:
        trouble = self._journal.trouble
        return [Problem("warning", "journal", trouble.message, trouble.mend)] if trouble else []

    def _tcp_problems(self) -> list[Problem]:
        problem = self._tcp.problem if self._tcp is not None else None
        return [problem] if problem is not None else []

    async def _check_gateway(self) -> None:
        if self._gateway.hidden:
            what = (
                f"the file of its socket, {self._gateway.endpoint}, was removed; it makes another"
            )
            event(log, Event.SOCKET_MADE_AGAIN, logging.WARNING, what)
            self._gateway.kill()
            return
        if self._gateway.pid is None or await self._gateway.ping(PING_TIMEOUT_S):
            self._silent = 0
            return
        self._silent += 1
        if self._silent >= SILENT_PINGS:
            event(log, Event.GATEWAY_DIED, logging.ERROR, "it stopped answering and is ended")
            self._gateway.kill()

    def _model(self, name: str, traffic: ModelTraffic) -> ModelFacts | None:
        current = self._journal.current(name)
        candidate = self._candidate(name, current)
        if current is None:
            if candidate is None:
                return None
            state: ModelState = (
                "starting" if State(candidate.state) in life.UNFINISHED else "unavailable"
            )
            return ModelFacts(name, state, candidate=candidate)
        service = self._services.of(name)
        previous = self._journal.get(current.predecessor)
        fault = service.fault
        passed = self._gateway.totals.of(name)
        return ModelFacts(
            name=name,
            state=_state(service, broken=fault is not None),
            version=current.version,
            deployment_id=current.id,
            deployment_state=str(current.state),
            digest=current.digest,
            rung=current.rung,
            runtime=service.current.runtime if service.current else "",
            live_since=self._journal.live_since(current.id),
            proof=self._proof(current),
            previous_version=previous.version if previous else "",
            workers=_workers(service),
            sandbox=_sandbox(service),
            requests=passed.requests + service.direct_requests,
            errors=passed.errors + service.direct_errors,
            waiting=traffic.waiting,
            outstanding=traffic.outstanding,
            latency_ms=_worst_latency(service, traffic),
            mean_batch=_mean_batch(service),
            restarts=service.keeper.restarts,
            restarts_in_s=service.keeper.restarts_in_s,
            recycled=service.keeper.recycled,
            slower=service.slower.sentence if service.slower else "",
            proven_again_at=_utc(service.reproofs.passed_at),
            incidents=list(service.incidents),
            fault=fault.code if fault else "",
            last_error=fault.message if fault else service.last_error,
            mend=fault.mend if fault else "",
            candidate=candidate,
            ladder=rung_facts(current),
            queued=_queued(service),
            incident_counts=dict(service.incident_counts),
            gateway=passed,
            versions=service.totals.facts(),
            outage=self._stages.outages.facts(name),
        )

    def _counted(self, models: list[ModelFacts]) -> list[ModelFacts]:
        """Add what is counted of a model's deployments, whether it serves or not."""
        counts = self._journal.state_counts()
        return [
            msgspec.structs.replace(
                model,
                deployments=counts.get(model.name, {}),
                steps=dict(self._steps.get(model.name, {})),
            )
            for model in models
        ]

    def _candidate(self, name: str, current: Deployment | None) -> CandidateFacts | None:
        """The newest deployment, if it does not serve and is under way or ended badly."""
        newest = next(iter(self._journal.of_model(name, 1)), None)
        if newest is None or (current is not None and newest.id == current.id):
            return None
        if newest.state not in life.UNFINISHED and newest.state not in ENDED_BADLY:
            return None
        history = self._journal.history(deployment_id=newest.id, limit=1)
        progress = self._stages.progress.get(newest.id)
        reason = newest.reason
        return CandidateFacts(
            deployment_id=newest.id,
            version=newest.version,
            state=str(newest.state),
            rung=newest.rung,
            since=history[0].at if history else None,
            detail=progress.detail if progress else (reason.message if reason else ""),
            mend=reason.mend if reason else "",
            percent=progress.percent if progress else None,
            ladder=rung_facts(newest),
        )

    def _proof(self, current: Deployment) -> ProofSummary | None:
        passed = [record for record in self._journal.proofs(current.id) if record.proof.passed]
        if not passed:
            return None
        newest = passed[-1]
        errors = [f.max_abs_error for f in newest.proof.figures if f.max_abs_error is not None]
        return ProofSummary(
            at=newest.at,
            cases=len(newest.proof.times),
            worst_abs_error=max(errors, default=None),
            slowest_case_ms=max((time.milliseconds for time in newest.proof.times), default=0.0),
        )


def _state(service: ModelService, *, broken: bool) -> ModelState:
    crew = service.current
    if crew is None or not crew.lanes:
        return "unavailable" if broken else "starting"
    good = crew.whole and not broken and service.slower is None
    return "ready" if good else "degraded"


def _utc(seconds: float | None) -> dt.datetime | None:
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, tz=dt.UTC)


def _workers(service: ModelService) -> list[ProcessFacts]:
    crew = service.current
    alive = [worker for worker in crew.workers if worker.child.alive] if crew else []
    found = (_process(worker.child.pid) for worker in alive)
    return [facts for facts in found if facts is not None]


def _queued(service: ModelService) -> int:
    crew = service.current
    return sum(worker.pong.queued for worker in crew.workers if worker.child.alive) if crew else 0


def _sandbox(service: ModelService) -> Sandbox | None:
    """Give what holds the worker that is held the least."""
    found = [worker.sandbox for worker in service.current.workers] if service.current else []
    return min(found, key=lambda one: LEVELS.index(one.level), default=None)


def _mean_batch(service: ModelService) -> float | None:
    pongs = [worker.pong for worker in service.current.workers] if service.current else []
    batches = sum(pong.batches for pong in pongs)
    return round(sum(pong.batched_requests for pong in pongs) / batches, 2) if batches else None


def _worst_latency(service: ModelService, traffic: ModelTraffic) -> Quantiles:
    """Give the larger of each quantile on the roads there are: the gateway's, each worker's own."""
    crew = service.current
    workers = crew.workers if crew else []
    seen = [traffic.latency_ms, *(worker.pong.latency_ms for worker in workers)]
    return Quantiles(
        p50=max(latency.p50 for latency in seen),
        p90=max(latency.p90 for latency in seen),
        p99=max(latency.p99 for latency in seen),
        max=max(latency.max for latency in seen),
    )


def _tcp_facts(face: TcpFaceKeeper) -> TcpFacts:
    return TcpFacts(
        endpoints=face.endpoints,
        running=face.pid is not None,
        process=_process(face.pid),
        restarts=face.restarts,
        **msgspec.structs.asdict(face.pong),
    )


def _process(pid: int | None) -> ProcessFacts | None:
    return process_facts(pid) if pid is not None else None
