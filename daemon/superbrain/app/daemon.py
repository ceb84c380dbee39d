"""The daemon: the one place where the parts are made and put together, started and stopped.

Start: journal and trust, gateway (requests for what served before wait), control socket, every
current deployment proven again, then READY, then the inbox. Stop: the other way round.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
from typing import TYPE_CHECKING

import zmq.asyncio
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer as FolderWatch

import superbrain
from superbrain.app.control import ControlServer
from superbrain.app.observer import Observer
from superbrain.bundle.store import Store
from superbrain.bundle.trust_folder import read_trust_folder
from superbrain.deploy.adoption import Adoption, open_journal
from superbrain.deploy.driver import Driver
from superbrain.deploy.gateway import GatewayKeeper
from superbrain.deploy.inbox import Inbox
from superbrain.deploy.orders import Orders
from superbrain.deploy.recovery import Recovery
from superbrain.deploy.services import Services
from superbrain.deploy.stages import Stages
from superbrain.domain.errors import BundleError
from superbrain.domain.health import Problem
from superbrain.domain.trust import Trust
from superbrain.host import notify
from superbrain.host.events import Event
from superbrain.host.logs import event
from superbrain.wire.errors import SuperbrainError

if TYPE_CHECKING:
    from pathlib import Path

    from superbrain.app.config import Config
    from superbrain.domain.ctl import Poisoned

log = logging.getLogger(__name__)


class StartError(SuperbrainError):
    """The daemon cannot start."""


class Daemon:
    """One running superbrain."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._trust = Trust()
        self._rescan = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            SuperbrainError: it cannot start; the message says why and what to do.
        """
        config = self._config
        with contextlib.ExitStack() as stack:
            _make_folders(config)
            stack.enter_context(_only_one(config))
            event(log, Event.DAEMON_STARTED, version=superbrain.__version__, pid=os.getpid())
            self._make_parts(stack)
            self._read_trust()
            self._inbox.check_usable()
            self._catch_signals()
            try:
                await self._serve(stack)
            finally:
                notify.stopping()
                event(log, Event.DAEMON_STOPPING)
                await self._end()

    def _make_parts(self, stack: contextlib.ExitStack) -> None:
        config = self._config
        self._journal = open_journal(config.journal_path)
        stack.callback(self._journal.close)
        event(log, Event.JOURNAL_OPENED, path=str(config.journal_path))
        self._store = Store(config.store_path)
        self._adoption = Adoption(self._journal, self._store, config.journal_path)
        self._inbox = Inbox(config.inbox_path, config.deploy.settle_s)
        self._gateway = GatewayKeeper(config.endpoint, self._poisoned)
        self._services = Services(self._gateway, config.budget)
        self._stages = Stages(
            self._journal,
            self._store,
            self._inbox,
            self._services.of,
            lambda: self._trust,
            lanes_path=config.lanes_path,
            probation_s=config.deploy.probation_s,
            parallel=config.deploy.parallel,
        )
        self._driver = Driver(self._journal, self._store, self._inbox, self._services, self._stages)
        self._driver.on_step = self._adoption.remember
        self._recovery = Recovery(
            self._journal, self._store, self._services, self._stages, self._driver
        )
        self._observer = Observer(
            config,
            self._journal,
            self._inbox,
            self._gateway,
            self._services,
            self._stages,
            self._adoption,
        )
        self._control = ControlServer(
            config.control_endpoint,
            Orders(self._journal, self._store, self._driver),
            self._observer,
            self._journal,
            self._store,
            self._reload,
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def _serve(self, stack: contextlib.ExitStack) -> None:
        context = zmq.asyncio.Context()
        stack.callback(context.term)
        self._adoption.adopt(self._trust)
        self._adoption.remember()
        await self._recovery.hold()
        await self._gateway.start()
        self._control.open(context)
        stack.callback(self._control.close)
        self._tasks.append(asyncio.create_task(self._control.run()))
        self._tasks.append(asyncio.create_task(self._observer.run()))
        self._tasks.append(asyncio.create_task(self._work()))
        stopping = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait([stopping, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for task in done - {stopping}:
            await task  # a part that must run for ever has ended: let its error out

    async def _work(self) -> None:
        await self._recovery.recover()
        event(log, Event.DAEMON_READY, endpoint=self._config.endpoint)
        notify.ready()
        await self._watch_inbox()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._driver.stop()
        await self._gateway.stop()

    # --- inbox --------------------------------------------------------------------------------

    async def _watch_inbox(self) -> None:
        """Look through the inbox at an interval, and at once when the kernel hints at a change."""
        with _hints(self._config.inbox_path, asyncio.get_running_loop(), self._rescan):
            while True:
                self._rescan.clear()
                await self._scan()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._config.deploy.rescan_s):
                        await self._rescan.wait()

    async def _scan(self) -> None:
        try:
            for arrival in await asyncio.to_thread(self._inbox.scan, self._trust):
                self._driver.take(arrival)
        except Exception as error:  # noqa: BLE001 - whatever lies in an inbox, it must not end the daemon
            expected = isinstance(error, SuperbrainError)
            mend = error.mend if isinstance(error, SuperbrainError) else "The log has the details"
            self._observer.problems["inbox"] = Problem("critical", "inbox", str(error), mend)
            trace = False if expected else error
            event(log, Event.INBOX_SCAN_FAILED, logging.ERROR, str(error), exc_info=trace)
        else:
            self._observer.problems.pop("inbox", None)

    # --- orders and signals -------------------------------------------------------------------

    def _read_trust(self) -> None:
        """Read the trusted keys; without any, nothing new is accepted and health says so."""
        try:
            self._trust = read_trust_folder(self._config.trust_path)
        except BundleError as error:
            self._trust = Trust()
            self._observer.problems["trust"] = Problem(
                "warning", "trust", error.message, error.mend
            )
            event(log, Event.TRUST_LOADED, logging.WARNING, error.message, keys=0)
            return
        self._observer.problems.pop("trust", None)
        event(log, Event.TRUST_LOADED, keys=len(self._trust.keys), threshold=self._trust.threshold)

    async def _reload(self) -> str:
        notify.reloading()
        self._read_trust()
        self._rescan.set()
        event(log, Event.DAEMON_RELOADED)
        notify.ready()
        keys = len(self._trust.keys)
        return f"the trust folder was read again ({keys} keys) and the inbox is looked through"

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._driver.spawn(self._reload_on_hup()))

    async def _reload_on_hup(self) -> None:
        await self._reload()

    def _poisoned(self, poisoned: Poisoned) -> None:
        event(
            log,
            Event.REQUEST_POISONED,
            logging.ERROR,
            model=poisoned.model,
            deployment=poisoned.deployment_id,
            request=poisoned.request_id,
        )


class _Hint(FileSystemEventHandler):
    """Wakes the loop on any change in the inbox."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rescan: asyncio.Event) -> None:
        self._loop = loop
        self._rescan = rescan

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in ("created", "modified", "moved", "closed"):
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._rescan.set)


@contextlib.contextmanager
def _hints(path: Path, loop: asyncio.AbstractEventLoop, rescan: asyncio.Event):  # type: ignore[no-untyped-def]  # noqa: ANN202
    watch = FolderWatch()
    watch.schedule(_Hint(loop, rescan), str(path))
    try:
        watch.start()
    except OSError as error:  # no inotify watches left: the periodic look still finds everything
        log.warning("inbox: no notifications (%s); looking every few seconds instead", error)
        yield
        return
    try:
        yield
    finally:
        watch.stop()
        watch.join()


def _make_folders(config: Config) -> None:
    for path in (config.journal_path.parent, config.store_path, config.lanes_path):
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o750)
        except OSError as error:
            msg = f"the folder {path} cannot be made: {error.strerror}"
            mend = "Run as the service's user, or choose folders with [paths] or --root"
            raise StartError(msg, mend=mend) from error
    for stale in config.lanes_path.glob("*.lane"):
        stale.unlink(missing_ok=True)


@contextlib.contextmanager
def _only_one(config: Config):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Hold the state folder's lock for as long as this daemon runs."""
    path = config.journal_path.with_name("daemon.lock")
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            msg = f"another superbraind already uses {path.parent}"
            mend = "Stop it first, or give this one a state folder of its own"
            raise StartError(msg, mend=mend) from error
        yield
