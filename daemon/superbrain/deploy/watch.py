"""Watching the workers that serve a model: what they hold, and how long their work takes.

Samples come from the operating system and from the workers' own figures, the rules are in
domain/watch.py. Nothing is done here: `look` says what was found, its caller acts on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from superbrain.domain.watch import (
    DESCRIPTORS,
    THREADS,
    Drift,
    Growth,
    Slower,
    Usual,
    memory_resource,
)
from superbrain.host.facts import Held, held_by

if TYPE_CHECKING:
    from superbrain.deploy.crew import Crew, Worker
    from superbrain.domain.proof import Proof
    from superbrain.domain.watch import Watch


class Finding(NamedTuple):
    """What a worker was found to do."""

    worker: Worker
    what: str


class WorkerWatch:
    """What is known of one worker since it serves."""

    def __init__(self, worker: Worker, watch: Watch, now: float) -> None:
        self._worker = worker
        self._watch = watch
        self._sample_at = now + watch.warm_up_s
        self._memory = Growth(memory_resource(watch), watch.leak_share)
        self._descriptors = Growth(DESCRIPTORS, watch.leak_share)
        self._threads = Growth(THREADS, watch.leak_share)
        self._counted = (0, 0.0)
        self._usual = Usual(watch.baseline_s)
        self._service = Drift(watch.drift_factor, watch.drift_s, "when it was new")
        self._golden = Drift(watch.drift_factor, watch.drift_s, "proven")
        self.reproved_at = now
        self.reproofs = 0

    @property
    def slower(self) -> Slower | None:
        """How much slower it has become, by golden cases if they tell, else by its own work."""
        return self._golden.slower or self._service.slower

    @property
    def ratio(self) -> float:
        """How many times slower it is now; 0.0 while that is not known."""
        return self._golden.ratio or self._service.ratio

    def look(self, now: float) -> Finding | None:
        """Take a sample."""
        self._take_times(now)
        if now < self._sample_at:
            return None
        held = held_by(self._worker.child.pid)
        if held is None:
            return None
        self._sample_at = now + self._watch.sample_s
        leak = self._leak(held)
        return Finding(self._worker, leak) if leak else None

    def reproved(self, now: float, proof: Proof) -> None:
        """Take in how long a golden case took that was run again."""
        for case in proof.times:
            self._golden.add(now, case.milliseconds, self._worker.proven_ms.get(case.case, 0.0))

    def _take_times(self, now: float) -> None:
        """Take in the mean time of what was executed since the last look."""
        pong = self._worker.pong
        runs, seconds = pong.runs - self._counted[0], pong.executed_s - self._counted[1]
        if runs <= 0:
            return
        self._counted = (pong.runs, pong.executed_s)
        mean_ms = 1000 * seconds / runs
        self._usual.add(now, mean_ms)
        self._service.add(now, mean_ms, self._usual.ms)

    def _leak(self, held: Held) -> str:
        samples = (
            (self._memory, held.memory_bytes),
            (self._descriptors, held.descriptors),
            (self._threads, held.threads),
        )
        for growth, amount in samples:
            if amount is not None:
                growth.add(amount)
        return next(filter(None, (growth.leak() for growth, _ in samples)), "")


class CrewWatch:
    """The watches of all workers of the crew that serves."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._workers: dict[int, WorkerWatch] = {}

    def of(self, worker: Worker, now: float) -> WorkerWatch:
        """Give the watch of a worker, begun when it is first asked for."""
        if worker.worker_id not in self._workers:
            self._workers[worker.worker_id] = WorkerWatch(worker, self._watch, now)
        return self._workers[worker.worker_id]

    def look(self, crew: Crew, now: float) -> list[Finding]:
        """Take a sample of every living worker; forget those that are gone."""
        alive = [worker for worker in crew.workers if worker.child.alive]
        known = {worker.worker_id for worker in alive}
        self._workers = {one: watch for one, watch in self._workers.items() if one in known}
        found = (self.of(worker, now).look(now) for worker in alive)
        return [finding for finding in found if finding is not None]

    @property
    def slower(self) -> Slower | None:
        """The worst drift among the workers."""
        drifts = [watch.slower for watch in self._workers.values() if watch.slower is not None]
        return max(drifts, key=lambda drift: drift.ratio, default=None)

    @property
    def ratio(self) -> float:
        """How many times slower the slowest worker is; 0.0 while that is not known."""
        return max((watch.ratio for watch in self._workers.values()), default=0.0)
