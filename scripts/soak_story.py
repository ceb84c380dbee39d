"""`scripts/soak`: a real daemon under load while everything that can end is ended at random.

One loop draws a disturbance, lets it happen, waits a random moment, looks whether everything is
whole, and goes on; clients check every answer meanwhile. soak_ledger.py holds what was done against
what clients were told, soak_sizes.py what must not grow. The unit-sized variant is
tests/fault/test_soak.py.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from scripts.soak_bundles import BundleMaker
from scripts.soak_cuts import every_cut
from scripts.soak_ledger import Ledger
from scripts.soak_sizes import Size, growth, measure, size_table
from superbrain.client import Client
from superbrain.deploy.crew import WORKER_MODULE
from superbrain.deploy.fork_server import FORK_SERVER_MODULE
from superbrain.deploy.gateway import GATEWAY_MODULE
from superbrain.domain import operations as op
from tests.support.appliance import Appliance, words
from tests.support.consistency import assert_at_rest, broken, stray_workers
from tests.support.load import Load

REPORT_EVERY_S = 10.0
LOOK_AGAIN_S = 0.02
WARM_REQUESTS = 2_000
ANSWER_WITHIN_S = 120.0
THINK_S = 0.002  # clients that never pause leave no processor for what is to be tried
PAUSE_S = 3.0
PAUSE_OF_KILLS_S = 0.6
#: So many deaths without a new version, and the next one is waited for: a version that dies again
#: and again is started again more and more slowly, which is right and not what is tried here.
DEATHS_IN_A_ROW = 4
KILLED_IN_ITS_START = 0.25


class Soak:
    """One soak: `live` for a while or `endure` a number of kills, then `findings`.

    Args:
        appliance: started, with nothing deployed.
        seed: the same one draws the same disturbances.
        clients: how many threads ask.
        say: gets a line of progress.
    """

    def __init__(
        self, appliance: Appliance, seed: int, clients: int, say: Callable[[str], None]
    ) -> None:
        self.ledger = Ledger()
        self.findings: list[str] = []
        self.sizes: list[Size] = []
        self.enough = False  # set it, and what is under way comes to its end
        self.load = Load(self._client, clients, pause_s=THINK_S)
        self._roads = itertools.cycle((False, True))
        self._appliance = appliance
        self._random = random.Random(seed)  # noqa: S311 - disturbances, not secrets
        self._say = say
        self._maker = BundleMaker(appliance, self._random)
        self._deaths = 0
        self._seen = ""  # the version that served at the last look
        self._may_go_back = False
        self._reported = time.monotonic()

    def live(self, seconds: float) -> None:
        """Disturb under load for `seconds`, then let everything come to rest, and judge."""
        end = time.monotonic() + seconds
        self._disturb(
            {
                self._kill_worker: 4,
                self._kill_gateway: 1,
                self._kill_fork_server: 1,
                self._kill_daemon: 1,
                self._restart_daemon: 1,
                self._swap: 6,
                self._drop_bad: 5,
                self._roll_back: 2,
                self._reload: 1,
            },
            lambda: min(1.0, 1 - (end - time.monotonic()) / seconds),
            PAUSE_S,
        )

    def kill(self, kills: int) -> None:
        """Send so many SIGKILLs under load, with swaps and bad bundles between them, and judge."""
        self._disturb(
            {
                self._kill_worker: 10,
                self._kill_gateway: 5,
                self._kill_fork_server: 2,
                self._kill_daemon: 3,
                self._swap: 3,
                self._drop_bad: 2,
                self._roll_back: 1,
            },
            lambda: self.ledger.kills / kills,
            PAUSE_OF_KILLS_S,
        )

    def endure(self, swaps: int, requests: int) -> None:
        """Answer so many requests with one worker, then swap so often under load, and judge."""
        self._begin()
        with self.load:
            self._appliance.wait_for(lambda: self.load.answered > WARM_REQUESTS, "the load")
            self._measure()
            self._until(lambda: self.load.answered >= requests, "requests")
            self._measure()
            self._until(lambda: self._swapped() >= swaps, "swaps")
            self._come_to_rest()
            self._measure()
        self._judge()

    def _disturb(
        self,
        disturbances: Mapping[Callable[[], None], int],
        progress: Callable[[], float],
        pause_s: float,
    ) -> None:
        kinds, weights = zip(*disturbances.items(), strict=True)
        self._begin()
        with self.load:
            self._appliance.wait_for(lambda: self.load.answered > WARM_REQUESTS, "the load")
            self._measure()
            while (done := progress()) < 1 and not self.enough:
                if done >= 0.5 and len(self.sizes) == 1:
                    self._come_to_rest()
                    self._measure()
                self._random.choices(kinds, weights)[0]()
                time.sleep(self._random.uniform(0.0, pause_s))
                self._look()
                self._report(done)
            self._come_to_rest()
            self._measure()
        self._judge()

    def _begin(self) -> None:
        self._swap()
        self._appliance.wait_live("adder", "1.0.0")

    def _swapped(self) -> int:
        """Drop the next version as soon as the last one has answered; how many have."""
        if self.load.newest == self._maker.version:
            self._swap()
        return self.load.newest - 1

    def _until(self, happened: Callable[[], bool], what: str) -> None:
        begin = time.monotonic()
        while not happened():
            if self.load.failed or self.load.mixed:
                return
            if time.monotonic() - self._reported > REPORT_EVERY_S:
                self._reported = time.monotonic()
                self._say(f"{what}: {self._reported - begin:5.0f} s  {self._progress()}")
            time.sleep(LOOK_AGAIN_S)

    def _client(self) -> Client:
        """Make a client: one that goes through the gateway, then one that asks workers itself."""
        lanes = next(self._roads)
        return Client(self._appliance.endpoint, timeout=ANSWER_WITHIN_S, lanes=lanes)

    # --- disturbances -------------------------------------------------------------------------

    def _kill_worker(self) -> None:
        if self._deaths >= DEATHS_IN_A_ROW:
            self._come_to_rest()
        self._deaths += 1
        self._kill("worker", WORKER_MODULE)

    def _kill_fork_server(self) -> None:
        self._kill("fork server", FORK_SERVER_MODULE)

    def _kill_gateway(self) -> None:
        self._kill("gateway", GATEWAY_MODULE)

    def _kill(self, kind: str, module: str) -> None:
        victims = [child for child in self._appliance.children() if module in words(child)]
        if victims:
            began = time.monotonic()
            if kind == "gateway":
                self.ledger.deaf(began)
            with contextlib.suppress(psutil.NoSuchProcess):
                self._random.choice(victims).kill()
            self.ledger.enter(f"{kind} killed", began)

    def _kill_daemon(self) -> None:
        began = time.monotonic()
        self._end_daemon()
        self.ledger.enter("daemon killed", began)
        if self._random.random() < KILLED_IN_ITS_START:
            began = time.monotonic()
            self._appliance.launch()
            time.sleep(self._random.uniform(0.05, 1.5))
            self._end_daemon()
            self.ledger.enter("daemon killed in its start", began)
        began = time.monotonic()
        self._appliance.start()
        self.ledger.enter("daemon started", began)

    def _end_daemon(self) -> None:
        children = set(self._appliance.children())
        self.ledger.deaf(time.monotonic())
        try:
            self._appliance.kill()
        except AssertionError:
            self.ledger.orphans += len(stray_workers(children))

    def _restart_daemon(self) -> None:
        began = time.monotonic()
        self.ledger.deaf(began)
        self._appliance.stop()
        self._appliance.start()
        self.ledger.enter("daemon restarted", began)

    def _swap(self) -> None:
        began = time.monotonic()
        self._appliance.drop(self._maker.good())
        self.ledger.enter("swap", began)

    def _drop_bad(self) -> None:
        began = time.monotonic()
        self._maker.drop_bad()
        self.ledger.enter("bad bundle", began)

    def _roll_back(self) -> None:
        began = time.monotonic()
        self._may_go_back = True
        self._appliance.ask(op.Rollback("adder"), op.Reply)
        self.ledger.enter("rollback", began)

    def _reload(self) -> None:
        began = time.monotonic()
        self._appliance.ask(op.Reload(), op.Outcome)
        self.ledger.enter("reload", began)

    # --- judgement ----------------------------------------------------------------------------

    def _look(self) -> None:
        """Hold the appliance against what must be true at any instant."""
        if self._listens():
            self.ledger.hears()
        self.findings += [fault for fault in broken(self._appliance) if fault not in self.findings]
        model = self._appliance.model("adder")
        version = model.version if model else ""
        back = _number(version) < _number(self._seen) and not self._may_go_back
        if not self._maker.is_good(version) or back:
            self.ledger.versions_lost += 1
            self.findings.append(f"{self._seen} served, and then {version or 'nothing'}")
        if version != self._seen:
            self._deaths = 0
            self._may_go_back = False
        self._seen = version

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as plain:
            plain.setblocking(False)
            return plain.connect_ex(self._appliance.endpoint.removeprefix("ipc://")) == 0

    def _come_to_rest(self) -> None:
        """Drop one last good version and wait until it is live and nothing else is under way."""
        self._swap()
        try:
            self._appliance.wait_live("adder", f"{self._maker.version}.0.0")
            assert_at_rest(self._appliance)
        except AssertionError as error:
            self.findings.append(str(error)[:2000])
            self._say(f"FOUND: {self.findings[-1]}")
        self._look()

    def _measure(self) -> None:
        self.sizes.append(measure(self._appliance))

    def _judge(self) -> None:
        lost, mixed = self.ledger.lost(self.load), self.load.mixed
        for failure in lost[:5]:
            self._say(f"lost after {failure.seconds:.2f} s: {failure.error}")
        if lost:
            self.findings.append(f"{len(lost)} answers lost, the first: {lost[0].error}")
        if mixed:
            self.findings.append(f"{len(mixed)} answers mixed, the first: {mixed[0]}")
        if self.ledger.orphans:
            self.findings.append(f"{self.ledger.orphans} processes outlived their daemon")
        if not self.load.answered:
            self.findings.append("no answer at all")
        self.findings += growth(self.sizes)

    def _report(self, done: float) -> None:
        if time.monotonic() - self._reported > REPORT_EVERY_S:
            self._reported = time.monotonic()
            self._say(f"{done:5.0%}  {self._progress()}")

    def _progress(self) -> str:
        done = ", ".join(f"{count} {what}" for what, count in sorted(self.ledger.done.items()))
        faults = len(self.ledger.lost(self.load)) + len(self.load.mixed) + len(self.findings)
        return f"{self.load.answered} answers, {faults} faults; {done}"


def _number(version: str) -> int:
    return int(version.partition(".")[0] or 0)


def main() -> int:
    """Run a soak; 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="scripts/soak")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--cuts", action="store_true")
    parser.add_argument("--jobs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--swaps", type=int, default=0)
    parser.add_argument("--requests", type=int, default=0)
    options = parser.parse_args()
    if options.cuts:
        return _verdict(every_cut(options.jobs, _say))
    _say(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as folder, Appliance(Path(folder)) as appliance:
        soak = Soak(appliance, options.seed, options.clients, _say)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: setattr(soak, "enough", True))
        try:
            _run(soak, options)
        except AssertionError as error:
            soak.findings.append(str(error))
        for line in ("", *soak.ledger.table(soak.load), "", *size_table(soak.sizes), ""):
            _say(line)
        if soak.findings:
            kept = Path(tempfile.gettempdir()) / f"soak-{options.seed}.log"
            shutil.copy(appliance.log, kept)
            _say(f"the daemon's log is in {kept}")
    return _verdict(soak.findings)


def _verdict(findings: list[str]) -> int:
    for finding in findings:
        _say(f"FOUND: {finding}")
    _say(f"{len(findings)} findings" if findings else "nothing was found")
    return 1 if findings else 0


def _run(soak: Soak, options: argparse.Namespace) -> None:
    if options.swaps or options.requests:
        soak.endure(options.swaps, options.requests)
    elif options.kills:
        soak.kill(options.kills)
    else:
        soak.live(options.minutes * 60)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
