"""The daemon: the one place where the parts are made and put together, started and stopped.

Start: journal and trust, gateway (requests for what served before wait), control socket, every
current deployment proven again, then READY, then the inbox. Stop: the other way round.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import TYPE_CHECKING

import msgspec
import zmq.asyncio

import superbrain
from superbrain.app.config import ConfigError
from superbrain.app.config_keys import changes, toml_value
from superbrain.app.control import ControlServer
from superbrain.app.http_face import HttpFace
from superbrain.app.metrics import Metrics
from superbrain.app.observer import Observer
from superbrain.app.record_desk import record_desk
from superbrain.app.reload_answer import inbox_problem, reload_answer
from superbrain.app.restore_plan import refuse_half_restored
from superbrain.app.trail import Trail
from superbrain.app.trust_desk import TrustDesk
from superbrain.bundle.engine_cache import EngineCache
from superbrain.bundle.store import Store
from superbrain.deploy.adoption import Adoption, open_journal
from superbrain.deploy.budget import MemoryBudget
from superbrain.deploy.confinement import remove_scratch
from superbrain.deploy.crew import Workplace
from superbrain.deploy.driver import Driver
from superbrain.deploy.fork_server import ForkServer
from superbrain.deploy.gateway import GatewayKeeper
from superbrain.deploy.gpu_guard import GpuGuard
from superbrain.deploy.host_clock import HostClock
from superbrain.deploy.inbox import Inbox
from superbrain.deploy.intake import Intake
from superbrain.deploy.orders import Orders
from superbrain.deploy.outage import Outages
from superbrain.deploy.recovery import Recovery
from superbrain.deploy.services import Services
from superbrain.deploy.stages import Stages
from superbrain.deploy.surveys import Surveys
from superbrain.deploy.tcp_face import TcpFaceKeeper
from superbrain.deploy.trust_guard import TrustGuard
from superbrain.deploy.trust_inbox import TrustInbox
from superbrain.deploy.trust_keeper import TrustKeeper
from superbrain.deploy.workshop import Workshop
from superbrain.domain import deployment as life
from superbrain.domain.audit import Action
from superbrain.domain.engine import with_builder_memory
from superbrain.domain.health import Problem
from superbrain.domain.health_rules import status_line
from superbrain.domain.sandbox import with_memory
from superbrain.host import logs, notify
from superbrain.host.audit_log import AuditLog
from superbrain.host.events import Event
from superbrain.host.facts import memory_total_bytes
from superbrain.host.folder_hints import folder_hints
from superbrain.host.gpu_watch import GpuWatch
from superbrain.host.group import group_id, share_folder
from superbrain.host.logs import event
from superbrain.host.state_lock import only_one
from superbrain.wire.errors import SuperbrainError

if TYPE_CHECKING:
    from collections.abc import Callable

    from superbrain.app.config import Config
    from superbrain.domain.ctl import Poisoned
    from superbrain.domain.deployment import Deployment
    from superbrain.domain.health import Health
    from superbrain.domain.records import RecordPolicy

log = logging.getLogger(__name__)

GPU_DRIVER_S = 2.0


class StartError(SuperbrainError):
    """The daemon cannot start."""


class Daemon:
    """One running superbrain."""

    def __init__(self, config: Config, reread: Callable[[], Config]) -> None:
        self._config = config
        self._reread = reread
        self._rescan = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            SuperbrainError: it cannot start; the message says why and what to do.
        """
        config = self._config
        with contextlib.ExitStack() as stack:
            refuse_half_restored(config)
            self._group = _make_folders(config)
            stack.enter_context(only_one(config.journal_path.parent))
            refuse_half_restored(config)  # begun between the two lines above
            event(log, Event.DAEMON_STARTED, version=superbrain.__version__, pid=os.getpid())
            self._make_parts(stack)
            self._keeper.load()
            self._inbox.check_usable()
            self._catch_signals()
            try:
                await self._serve(stack)
            finally:
                notify.stopping()
                event(log, Event.DAEMON_STOPPING)
                await self._end()
                self._audit.write(Action.DAEMON_STOPPED)

    def _make_parts(self, stack: contextlib.ExitStack) -> None:
        config = self._config
        self._journal = open_journal(config.journal_path)
        stack.callback(self._journal.close)
        event(log, Event.JOURNAL_OPENED, path=str(config.journal_path))
        self._audit = AuditLog(config.journal_path.parent)
        self._audit.open()
        started = f"version {superbrain.__version__}, configuration {config.digest}"
        self._audit.write(Action.DAEMON_STARTED, detail=started)
        self._clock = HostClock(self._journal)
        self._keeper = TrustKeeper(
            config.trust_path, config.chains_path, self._journal, self._clock, self._audit
        )
        self._store = Store(config.store_path)
        self._fork_server = ForkServer()
        self._engines = EngineCache(config.engines_path, config.builder.cache_mib << 20)
        self._adoption = Adoption(self._journal, self._store, config.journal_path)
        self._inbox = Inbox(config.inbox_path, config.deploy.settle_s)
        self._records, records = record_desk(config, self._journal)
        self._gateway = GatewayKeeper(config.endpoint, self._poisoned, self._group, records)
        self._gateway.on_records = self._records.take
        self._tcp = _tcp_face(config) if config.tcp.endpoints else None
        self._services = Services(self._gateway, config.rules)
        self._gpus = GpuWatch()
        budget = MemoryBudget(self._services, self._gpus, config.deploy.memory_mib << 20)
        self._stages = Stages(
            self._journal,
            self._store,
            Intake(self._journal, self._store, self._inbox, self._keeper),
            self._services.of,
            workshop=self._make_workshop(records),
            outages=Outages(self._journal, self._services, budget, config.outage),
            probation_s=config.deploy.probation_s,
            parallel=config.deploy.parallel,
        )
        self._stages.steps.on_step = self._records.step
        self._driver = Driver(self._journal, self._store, self._inbox, self._services, self._stages)
        self._gpu_guard = GpuGuard(
            self._journal,
            self._services,
            self._stages,
            self._driver,
            self._gpus,
            config.health.interval_s,
        )
        self._stages.rung_unusable = self._gpu_guard.unusable
        self._guard = TrustGuard(self._journal, self._store, self._driver, self._keeper)
        self._updates = TrustInbox(self._inbox, self._keeper, self._audit)
        self._trail = Trail(self._audit)
        self._driver.on_step = self._stepped
        self._driver.doubted = self._adoption.doubted
        self._inbox.on_refused = self._trail.refused
        self._recovery = Recovery(
            self._journal, self._store, self._services, self._stages, self._driver
        )
        self._recovery.why_stopped = self._guard.why_stopped
        self._metrics = Metrics(config.metrics_path)
        address = config.metrics_address
        self._http = HttpFace(*address, self._metrics) if address is not None else None
        self._observer = Observer(
            config,
            self._journal,
            self._inbox,
            self._gateway,
            self._services,
            self._stages,
            tcp=self._tcp,
            watched=(
                self._keeper.problems,
                self._clock.problems,
                self._guard.problems,
                self._audit_problems,
                self._adoption.problems,
                self._gpu_guard.problems,
                self._metrics.problems,
                self._records.problems,
                *([self._http.problems] if self._http is not None else []),
            ),
        )
        self._observer.gpu_facts = lambda: self._gpus.facts
        self._observer.on_report = self._reported
        self._measured = config.metrics_path is not None or address is not None
        desk = TrustDesk(self._keeper, self._clock, self._journal, self._audit, self._trust_changed)
        self._control = ControlServer(
            config.control_endpoint,
            Orders(self._journal, self._store, self._driver, self._keeper.trust),
            self._observer,
            self._journal,
            self._store,
            desk,
            self._audit,
            self._reload,
        )
        self._tasks: list[asyncio.Task[None]] = []

    def _make_workshop(self, records: RecordPolicy) -> Workshop:
        config, memory_bytes = self._config, memory_total_bytes()
        sandbox = with_memory(config.sandbox, memory_bytes)
        return Workshop(
            self._engines,
            with_builder_memory(config.builder, memory_bytes),
            Workplace(
                config.lanes_path,
                config.scratch_path,
                sandbox,
                self._fork_server,
                records,
                self._records.take,
            ),
            self._services.engine_paths,
            Surveys(config.engines_path),
        )

    async def _serve(self, stack: contextlib.ExitStack) -> None:
        context = zmq.asyncio.Context()
        stack.callback(context.term)
        self._adoption.adopt(self._keeper.trust())
        self._adoption.remember()
        await self._recovery.hold()
        await self._gateway.start()
        if self._tcp is not None:
            self._tcp.start()
        self._control.open(context)
        stack.callback(self._control.close)
        self._tasks.append(asyncio.create_task(self._control.run()))
        self._tasks.append(asyncio.create_task(self._observer.run()))
        self._tasks.append(asyncio.create_task(self._gpu_guard.run()))
        self._tasks.append(asyncio.create_task(self._records.run()))
        if self._http is not None:
            self._tasks.append(asyncio.create_task(self._http.run()))
        self._tasks.append(asyncio.create_task(self._work()))
        stopping = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait([stopping, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for task in done - {stopping}:
            await task  # a part that must run for ever has ended: let its error out

    async def _work(self) -> None:
        self._guard.stop_unfit()
        await asyncio.to_thread(self._gpus.look, GPU_DRIVER_S)  # no rung on a lost one is tried
        await self._recovery.recover()
        event(log, Event.DAEMON_READY, endpoint=self._config.endpoint)
        self._observer.started = True
        notify.ready(status_line(self._observer.report().models))
        await self._watch_inbox()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._metrics.withdraw()
        await self._driver.stop()
        await self._fork_server.stop()
        if self._tcp is not None:
            await self._tcp.stop()
        await self._gateway.stop()
        await self._records.close()

    # --- inbox --------------------------------------------------------------------------------

    async def _watch_inbox(self) -> None:
        """Look through the inbox at an interval, and at once when the kernel hints at a change."""
        with folder_hints(self._config.inbox_path, asyncio.get_running_loop(), self._rescan):
            while True:
                self._rescan.clear()
                await self._scan()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._config.deploy.rescan_s):
                        await self._rescan.wait()

    async def _scan(self) -> None:
        try:
            self._clock.note()
            if await self._updates.look():  # before bundles: a new key may have signed one
                await self._trust_changed()
            for arrival in await asyncio.to_thread(self._inbox.scan, self._keeper.trust()):
                self._driver.take(arrival)
            await self._guard.enforce()
        except Exception as error:  # noqa: BLE001 - whatever lies in an inbox, it must not end the daemon
            expected = isinstance(error, SuperbrainError)
            mend = error.mend if isinstance(error, SuperbrainError) else "The log has the details"
            self._observer.problems["inbox"] = Problem("critical", "inbox", str(error), mend)
            trace = False if expected else error
            event(log, Event.INBOX_SCAN_FAILED, logging.ERROR, str(error), exc_info=trace)
        else:
            self._observer.problems.pop("inbox", None)

    def _reported(self, health: Health) -> None:
        self._control.look_after()
        if self._measured:
            self._metrics.publish(health)

    def _stepped(self, after: Deployment, happened: life.Event) -> None:
        """Write down beside the journal what one step of a deployment has changed."""
        self._trail.step(after, happened)
        self._records.stepped(after, happened)
        self._observer.stepped(after)
        self._adoption.remember()

    # --- orders and signals -------------------------------------------------------------------

    async def _trust_changed(self) -> None:
        """Hold everything against another trust; what waits for it may come in, or back, now."""
        self._guard.trust_changed()
        self._services.judge_anew()
        self._recovery.try_again()
        self._rescan.set()

    async def _reload(self) -> str:
        """Read configuration and trust again; what cannot be used changes nothing.

        Raises:
            ConfigError: the configuration does not fit; the trust folder was read all the same.
        """
        notify.reloading()
        try:
            self._keeper.load()
            if self._tcp is not None:
                await self._tcp.read_clients()
            await self._trust_changed()
            applied, waiting = self._read_config()
        finally:
            self._audit.write(Action.RELOADED, "trust folder and configuration")
            notify.ready()
        event(log, Event.DAEMON_RELOADED, applied=applied, needs_restart=waiting)
        return reload_answer(
            None if self._keeper.fault else len(self._keeper.trust().keys),
            self._keeper.problems(),
            inbox_problem(self._config.inbox_path),
            applied,
            waiting,
        )

    def _read_config(self) -> tuple[list[str], list[str]]:
        """Read the file again; give what was applied and what waits for a restart."""
        try:
            fresh = self._reread()
        except ConfigError as error:
            problem = Problem("warning", "configuration", error.message, error.mend)
            self._observer.problems["configuration"] = problem
            raise
        self._observer.problems.pop("configuration", None)
        found = changes(self._config, fresh)
        logs.set_level(fresh.log.level)
        self._config = msgspec.structs.replace(self._config, log=fresh.log)
        said = [(change.applies, f"{change.key} = {toml_value(change.after)}") for change in found]
        applied = [f"{text} holds now" for applies, text in said if applies == "reload"]
        return applied, [text for applies, text in said if applies == "restart"]

    def _audit_problems(self) -> list[Problem]:
        found = []
        if self._audit.trouble:
            mend = "Make room on that disk; the entries follow by themselves"
            found.append(Problem("warning", "audit", self._audit.trouble, mend))
        if self._audit.faults:
            message = f"the audit trail is not as it was written: {self._audit.faults[0]}"
            mend = "See all of it with: superbrain audit --verify, and docs/trust.md"
            found.append(Problem("warning", "audit", message, mend))
        return found

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._driver.spawn(self._reload_on_hup()))

    async def _reload_on_hup(self) -> None:
        try:
            await self._reload()
        except ConfigError as error:
            event(log, Event.OPERATION_REFUSED, logging.ERROR, error.message)

    def _poisoned(self, poisoned: Poisoned) -> None:
        event(
            log,
            Event.REQUEST_POISONED,
            logging.ERROR,
            model=poisoned.model,
            deployment=poisoned.deployment_id,
            request=poisoned.request_id,
            request_id=poisoned.request_id,
            deaths=poisoned.deaths,
        )
        request = f"the request {poisoned.request_id}" if poisoned.request_id else "a request"
        ended = "two workers" if poisoned.deaths > 1 else "a worker, and its deadline passed"
        self._services.of(poisoned.model).happened(
            "RequestPoisoned",
            f"{request} ended {ended}: it was answered with an error and is not tried again",
            "Look for what is unusual about its input; send it to the author of the model",
        )


def _tcp_face(config: Config) -> TcpFaceKeeper:
    tcp = config.tcp
    options = {
        "--gateway": config.endpoint.removeprefix("ipc://"),
        "--secret-key": tcp.secret_key,
        "--clients": tcp.clients,
        "--max-clients": str(tcp.max_clients),
        "--requests-per-client": str(tcp.requests_per_client),
        "--memory-bytes": str(tcp.memory_bytes),
    }
    return TcpFaceKeeper(tcp.endpoints, [word for option in options.items() for word in option])


def _make_folders(config: Config) -> int | None:
    """Make them, the lanes' and the runtime folder for the group that may ask; give its id."""
    for path in (config.journal_path.parent, config.store_path, config.lanes_path):
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o750)
        except OSError as error:
            msg = f"the folder {path} cannot be made: {error.strerror}"
            mend = "Run as the service's user, or choose folders with [paths] or --root"
            raise StartError(msg, mend=mend) from error
    remove_scratch(config.scratch_path)
    for stale in config.lanes_path.glob("*.lane"):
        stale.unlink(missing_ok=True)
    if not config.serve.group:
        return None
    group = group_id(config.serve.group)
    for path in (config.lanes_path.parent, config.lanes_path):
        share_folder(path, group)
    return group
