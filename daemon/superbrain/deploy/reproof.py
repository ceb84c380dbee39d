"""The periodic re-proof: one golden case, in the process that serves, between two requests.

Each time the next case, in every worker of the crew in turn, one at a time on the whole host. It
waits for the worker to be idle, but not for ever. A case that fails is run again at once; only
when it fails twice the process is distrusted. A case that cannot be read says nothing about it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Protocol

from superbrain.deploy.child import ChildError
from superbrain.domain import ctl
from superbrain.domain.deployment import Reason
from superbrain.domain.health_rules import REPROOF_FAILED
from superbrain.domain.policy import hang_limit_s
from superbrain.domain.watch import reproof_interval_s
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from superbrain.deploy.crew import Crew, Worker
    from superbrain.deploy.watch import CrewWatch, WorkerWatch
    from superbrain.domain.health import IncidentKind
    from superbrain.domain.proof import Proof
    from superbrain.domain.watch import Rules

log = logging.getLogger(__name__)


class Doubter(Protocol):
    """The model whose workers are proven again."""

    name: str

    def distrust(self, worker: Worker, reason: Reason) -> None:
        """Take a worker out of service that answers wrongly."""

    def end_hung(self, worker: Worker, what: str) -> None:
        """End a worker that does not answer."""

    def happened(self, kind: IncidentKind, message: str, mend: str = "") -> None:
        """Take note of an incident."""


class Reproofs:
    """Runs golden cases again in one model's workers.

    `passed_at`: wall time of the last one that passed, None before any.

    Args:
        model: whom to tell.
        rules: when.
        turn: held while one runs, so that no two do on this host.
    """

    def __init__(self, model: Doubter, rules: Rules, turn: asyncio.Semaphore) -> None:
        self.passed_at: float | None = None
        self._model = model
        self._rules = rules
        self._turn = turn
        self._task: asyncio.Task[None] | None = None
        self._unreadable = ""

    def look(self, crew: Crew, watch: CrewWatch, *, in_probation: bool) -> None:
        """Begin a re-proof if one is due and none is under way."""
        every_s = reproof_interval_s(
            self._rules.reproof, self._rules.probation_s, in_probation=in_probation
        )
        if not every_s or (self._task is not None and not self._task.done()):
            return
        now = time.monotonic()
        for worker in crew.workers:
            watched = watch.of(worker, now)
            overdue_s = now - watched.reproved_at - every_s
            if worker.child.alive and overdue_s >= 0:
                insist = overdue_s >= self._rules.reproof.postpone_s
                self._task = asyncio.create_task(self._reprove(crew, worker, watched, insist))
                return

    def forget(self) -> None:
        """Stop what is under way; its crew no longer serves."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _reprove(self, crew: Crew, worker: Worker, watch: WorkerWatch, insist: bool) -> None:  # noqa: FBT001 - from `look`
        limit_s = hang_limit_s(
            crew.bringup.manifest.serving.request_timeout_ms, self._rules.watch.hang_grace_s
        )
        try:
            async with self._turn:
                await self._run_case(worker, watch, limit_s, insist=insist)
        except ChildError as error:
            watch.reproved_at = time.monotonic()
            self._could_not(worker, error)

    async def _run_case(
        self, worker: Worker, watch: WorkerWatch, limit_s: float, *, insist: bool
    ) -> None:
        order = ctl.Reprove(watch.reproofs, insist)
        proof = (await worker.child.order(order, ctl.Reproven, limit_s)).proof
        if proof is None:  # busy: the next look tries again
            return
        watch.reproofs += 1
        watch.reproved_at = time.monotonic()
        if proof.passed:
            self._passed(watch, proof)
            return
        order = ctl.Reprove(order.case, insist=True)
        second = (await worker.child.order(order, ctl.Reproven, limit_s)).proof
        self._failed(worker, proof, confirmed=second is not None and not second.passed)

    def _passed(self, watch: WorkerWatch, proof: Proof) -> None:
        self.passed_at = time.time()
        self._unreadable = ""
        watch.reproved(time.monotonic(), proof)

    def _failed(self, worker: Worker, proof: Proof, *, confirmed: bool) -> None:
        message = f"{worker.child.name} no longer reproduces a golden case: {proof.first_failure}"
        event(
            log,
            Event.REPROOF_FAILED,
            logging.ERROR,
            message,
            model=self._model.name,
            confirmed=confirmed,
            **worker.child.concerns,
        )
        if not confirmed:
            mend = "It agreed when it was run again: look at the memory of this host, and watch it"
            self._model.happened("ReproofMismatch", f"{message}, once", mend)
            return
        mend = (
            f"`superbrain history {self._model.name}` shows what followed; send the figures to the "
            "author, and look at the memory of this host if other models do it too"
        )
        self._model.happened("ReproofMismatch", message, mend)
        self._model.distrust(worker, Reason(REPROOF_FAILED, message, mend))

    def _could_not(self, worker: Worker, error: ChildError) -> None:
        if error.code == "DIED":
            return  # it is replaced, and its successor proves every case
        if error.code == "TIMED_OUT":
            self._model.end_hung(worker, f"golden case: {error.message}")
            return
        about: dict[str, Any] = {"model": self._model.name, **worker.child.concerns}
        event(log, Event.REPROOF_UNREADABLE, logging.WARNING, error.message, **about)
        if self._unreadable != error.message:
            self._unreadable = error.message
            mend = error.mend or "Look at the disk that holds the store"
            self._model.happened("ReproofUnreadable", error.message, mend)
