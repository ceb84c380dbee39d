"""`scripts/soak`: a real daemon under load while everything that can end is ended at random.

One loop draws a disturbance, lets it happen, waits a random moment, and goes on; clients check
every answer meanwhile. What it counts before and after tells whether anything leaks. The unit-sized
variant is tests/fault/test_soak.py.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from superbrain.client import Client
from superbrain.domain import operations as op
from tests.support.appliance import Appliance
from tests.support.bundles import make_bundle
from tests.support.load import Load

REPORT_EVERY_S = 10.0
LOOK_AGAIN_S = 0.02
WARM_REQUESTS = 2_000
GROWTH_BYTES = 64 << 20
GROWTH_FDS = 8
ANSWER_WITHIN_S = 120.0
EXPLAINED = ("no superbrain gateway answers", "ended 2 workers")


class Size(msgspec.Struct, frozen=True):
    """What may not keep growing: of the processes, and of what they leave on the disk."""

    descriptors: int
    memory_bytes: int
    gateway_descriptors: int
    gateway_memory_bytes: int
    worker_memory_bytes: int
    journal_bytes: int
    children: int
    run_files: int
    stored_bundles: int
    staging: int


class Soak:
    """One soak: `live` for a while, then `findings`.

    Args:
        appliance: started, with nothing deployed.
        seed: the same one draws the same disturbances.
        clients: how many threads ask.
        say: gets a line of progress.
    """

    def __init__(
        self, appliance: Appliance, seed: int, clients: int, say: Callable[[str], None]
    ) -> None:
        self.done: Counter[str] = Counter()
        self.findings: list[str] = []
        self._appliance = appliance
        self._random = random.Random(seed)  # noqa: S311 - disturbances, not secrets
        self._say = say
        self._clients = clients
        self._version = 0
        self._made = Path()
        self.sizes: list[Size] = []
        self._disturbances: dict[Callable[[], None], int] = {
            self._kill_worker: 4,
            self._kill_gateway: 1,
            self._kill_daemon: 1,
            self._restart_daemon: 1,
            self._swap: 6,
            self._drop_bad: 3,
            self._roll_back: 2,
            self._reload: 1,
        }

    def live(self, seconds: float) -> None:
        """Disturb under load for `seconds`, then let everything come to rest, and judge."""
        self._swap()
        self._appliance.wait_live("adder", "1.0.0")
        self._measure()
        load = Load(self._client, clients=self._clients)
        end = time.monotonic() + seconds
        reported = time.monotonic()
        with load:
            while time.monotonic() < end:
                kinds, weights = zip(*self._disturbances.items(), strict=True)
                self._random.choices(kinds, weights)[0]()
                time.sleep(self._random.uniform(0.0, 3.0))
                if time.monotonic() - reported > REPORT_EVERY_S:
                    reported = time.monotonic()
                    self._say(self._progress(load, end - reported))
            self._come_to_rest()
            self._measure()
            time.sleep(1.0)
        self._say(self._progress(load, 0))
        self._judge_answers(load)
        self._judge_growth()

    def endure(self, swaps: int, requests: int) -> None:
        """Answer so many requests with one worker, then swap so often under load, and judge."""
        self._swap()
        self._appliance.wait_live("adder", "1.0.0")
        with Load(self._client, clients=self._clients) as load:
            self._appliance.wait_for(lambda: load.answered > WARM_REQUESTS, "the load")
            self._measure()
            self._until(load, lambda: load.answered >= requests, "requests")
            self._measure()
            self._until(load, lambda: self._swapped(load) >= swaps, "swaps")
            self._come_to_rest()
            self._measure()
        self._judge_answers(load)
        self._judge_growth()

    def _swapped(self, load: Load) -> int:
        """Drop the next version as soon as the last one has answered; how many have."""
        if load.newest == self._version:
            shutil.rmtree(self._made, ignore_errors=True)
            self._swap()
        return load.newest - 1

    def _until(self, load: Load, happened: Callable[[], bool], what: str) -> None:
        begin, reported = time.monotonic(), 0.0
        while not happened():
            if load.failed or load.mixed:
                return
            if time.monotonic() - reported > REPORT_EVERY_S:
                reported = time.monotonic()
                self._say(f"{what}: {reported - begin:5.0f} s  {self._progress(load, 0)}")
            time.sleep(LOOK_AGAIN_S)

    def _client(self) -> Client:
        return Client(self._appliance.endpoint, timeout=ANSWER_WITHIN_S)

    # --- disturbances -------------------------------------------------------------------------

    def _kill_worker(self) -> None:
        self._kill("worker")

    def _kill_gateway(self) -> None:
        self._kill("gateway")

    def _kill(self, kind: str) -> None:
        victims = [
            child
            for child in self._appliance.children()
            if f"superbrain.serve.{kind}" in _command(child)
        ]
        if victims:
            self.done[f"{kind} killed"] += 1
            with contextlib.suppress(psutil.NoSuchProcess):
                self._random.choice(victims).kill()

    def _kill_daemon(self) -> None:
        self.done["daemon killed"] += 1
        self._appliance.kill()  # fails when a child outlives it
        self._appliance.start()

    def _restart_daemon(self) -> None:
        self.done["daemon restarted"] += 1
        self._appliance.stop()
        self._appliance.start()

    def _swap(self) -> None:
        self.done["swap"] += 1
        self._appliance.drop(self._release())

    def _drop_bad(self) -> None:
        kind = self._random.choice(("damaged", "golden", "text", "short"))
        self.done["bad bundle"] += 1
        path = self._release(golden_error=0.5 if kind == "golden" else 0.0)
        data = bytearray(path.read_bytes())
        if kind == "damaged":
            data[-1500] ^= 1
        elif kind == "text":
            data[:] = b"no bundle\n" * 1000
        elif kind == "short":
            del data[len(data) // 2 :]
        target = self._appliance.inbox / path.name
        target.write_bytes(data)
        if kind == "short":
            target.unlink(missing_ok=True)

    def _roll_back(self) -> None:
        self.done["rollback"] += 1
        self._appliance.ask(op.Rollback("adder"), op.Reply)

    def _reload(self) -> None:
        self.done["reload"] += 1
        self._appliance.ask(op.Reload(), op.Outcome)

    def _release(self, golden_error: float = 0.0) -> Path:
        self._version += 1
        self._made = Path(tempfile.mkdtemp(dir=self._appliance.work))
        return make_bundle(
            self._made,
            self._appliance.author,
            version=f"{self._version}.0.0",
            sequence=self._version,
            constant=float(self._version),
            golden_error=golden_error,
        ).path

    # --- judgement ----------------------------------------------------------------------------

    def _come_to_rest(self) -> None:
        """Drop one last good version and wait until it is live and nothing else runs."""
        self._swap()
        self._appliance.wait_live("adder", f"{self._version}.0.0")
        with contextlib.suppress(AssertionError):
            self._appliance.wait_for(lambda: len(self._appliance.children()) == 2, "two children")

    def _left_in_staging(self) -> set[Path]:
        """What stays there; a copy or a removal that is under way at this moment ends by itself."""
        seen = self._staged()
        with contextlib.suppress(AssertionError):
            self._appliance.wait_for(lambda: not seen & self._staged(), "the end of copying")
        return seen & self._staged()

    def _staged(self) -> set[Path]:
        return set((self._appliance.root / "state/store/.staging").iterdir())

    def _measure(self) -> None:
        appliance = self._appliance
        daemon = psutil.Process(appliance.health().process.pid)
        gateway, worker = (psutil.Process(pid) for pid in self._pids())
        state = appliance.root / "state"
        store = state / "store"
        self.sizes.append(
            Size(
                descriptors=daemon.num_fds(),
                memory_bytes=daemon.memory_info().rss,
                gateway_descriptors=gateway.num_fds(),
                gateway_memory_bytes=gateway.memory_info().rss,
                worker_memory_bytes=worker.memory_info().rss,
                journal_bytes=sum(path.stat().st_size for path in state.glob("journal*")),
                children=len(appliance.children()),
                run_files=len(list((appliance.root / "run").rglob("*"))),
                stored_bundles=len(list((store / "bundles").iterdir())),
                staging=len(self._left_in_staging()),
            )
        )

    def _pids(self) -> tuple[int, int]:
        """Processes of the gateway and of the worker that serves."""
        health = self._appliance.health()
        (model,) = health.models
        gateway = health.gateway.process
        return gateway.pid if gateway else 0, model.workers[0].pid

    def _judge_answers(self, load: Load) -> None:
        # A connection made while no daemon is there may be told so, and a request that two kills
        # in a row have hit cannot be told from one that kills; nothing else may end in an error.
        lost = [error for error in load.failed if not _explained(error)]
        for kind, found in (("lost", lost), ("mixed", load.mixed)):
            if found:
                self.findings.append(f"{len(found)} answers {kind}, the first: {found[0]}")
        if not load.answered:
            self.findings.append("no answer at all")

    def _judge_growth(self) -> None:
        before, after = self.sizes[0], self.sizes[-1]
        limits = {
            "descriptors": before.descriptors + GROWTH_FDS,
            "memory_bytes": before.memory_bytes + GROWTH_BYTES,
            "gateway_descriptors": before.gateway_descriptors + GROWTH_FDS,
            "gateway_memory_bytes": before.gateway_memory_bytes + GROWTH_BYTES,
            "worker_memory_bytes": before.worker_memory_bytes + GROWTH_BYTES,
            "journal_bytes": before.journal_bytes + GROWTH_BYTES,
            "children": 2,
            "run_files": before.run_files + 2,
            "stored_bundles": 4,
            "staging": 0,
        }
        for name, limit in limits.items():
            found = getattr(after, name)
            if found > limit:
                was = getattr(before, name)
                self.findings.append(f"{name}: expected at most {limit}, found {found} (was {was})")

    def _progress(self, load: Load, left_s: float) -> str:
        done = ", ".join(f"{count} {what}" for what, count in sorted(self.done.items()))
        faults = len(load.failed) + len(load.mixed)
        return f"{max(left_s, 0):5.0f} s left  {load.answered} answers, {faults} faults; {done}"


def _explained(error: str) -> bool:
    return any(words in error for words in EXPLAINED)


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return process.cmdline()
    return []


def main() -> int:
    """Run a soak; 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="scripts/soak")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--swaps", type=int, default=0)
    parser.add_argument("--requests", type=int, default=0)
    options = parser.parse_args()
    _say(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as folder, Appliance(Path(folder)) as appliance:
        soak = Soak(appliance, options.seed, options.clients, _say)
        try:
            if options.swaps or options.requests:
                soak.endure(options.swaps, options.requests)
            else:
                soak.live(options.minutes * 60)
        except AssertionError as error:
            soak.findings.append(str(error))
        for number, size in enumerate(soak.sizes, 1):
            _say(f"size {number} of {len(soak.sizes)}: {msgspec.json.encode(size).decode()}")
        if soak.findings:
            kept = Path(tempfile.gettempdir()) / f"soak-{options.seed}.log"
            shutil.copy(appliance.log, kept)
            _say(f"the daemon's log is in {kept}")
    for finding in soak.findings:
        _say(f"FOUND: {finding}")
    _say(f"{len(soak.findings)} findings" if soak.findings else "nothing was found")
    return 1 if soak.findings else 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
