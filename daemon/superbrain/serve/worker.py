"""The worker: holds one deployment's engines and pipeline, and serves them on its lane.

It begins when `worker_process` has closed the sandbox around it. Two threads. The control thread
reads the daemon's channel, answers `Ping` at once even while a request is being executed, and ends
the process when the daemon is gone. The main thread carries out the other orders and runs the data
loop. Promise 1 of the design is kept here: `Serve` is refused until `Prove` has passed in this very
process.
"""

from __future__ import annotations

import gc
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, NoReturn

from superbrain.domain import ctl
from superbrain.domain.errors import BundleError, StoreError
from superbrain.engines.port import GraphMismatch
from superbrain.serve import child
from superbrain.serve.figures import WorkerFigures
from superbrain.serve.worker_loop import LaneLoop
from superbrain.serve.worker_records import WorkerRecords
from superbrain.wire.errors import RequestError, SuperbrainError
from superbrain.wire.sentences import sentence

if TYPE_CHECKING:
    from collections.abc import Callable

    from superbrain.serve.ctl_channel import CtlChannel
    from superbrain.serve.served import ServedModel
    from superbrain.serve.worker_process import Beginning

    ModelOpener = Callable[[ctl.Load], ServedModel]

Order = ctl.Load | ctl.Prove | ctl.Time | ctl.Serve | ctl.StandBy | ctl.Reprove


class OrderRefused(SuperbrainError):
    """The daemon gave an order out of turn: a mistake in its program, not in the bundle."""


class Worker:
    """Carries out the daemon's orders, in the one sequence that is allowed."""

    def __init__(
        self, channel: CtlChannel[ctl.ToWorker], open_model: ModelOpener, beginning: Beginning
    ) -> None:
        self._channel = channel
        self._open_model = open_model
        self._figures = WorkerFigures()
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC)
        load = beginning.load
        self._records = WorkerRecords(load) if load.records.on else None
        self._loop = LaneLoop(
            self._wake_fd,
            self._carry_out,
            self._figures,
            beginning.listener,
            beginning.flight,
            self._records,
        )
        self._sandbox = beginning.sandbox
        self._load: ctl.Load | None = None
        self._model: ServedModel | None = None
        self._proven = False
        self._execution_ms = 0.0
        self._take(load)

    def run(self) -> NoReturn:
        """Work until the daemon is gone."""
        threading.Thread(target=self._listen, name="control", daemon=True).start()
        while True:
            self._loop.turn()

    def _listen(self) -> NoReturn:
        while True:
            for message in self._channel.listen(wait=True):
                if isinstance(message, ctl.Ping):
                    self._tell()
                    self._channel.send(self._figures.pong(time.monotonic_ns()))
                else:
                    self._take(message)

    def _tell(self) -> None:
        """Tell of the requests of which records were made."""
        if self._records is not None:
            for message in self._records.buffer.take():
                self._channel.send(message)

    def _take(self, order: Order) -> None:
        self._orders.put(order)
        os.eventfd_write(self._wake_fd, 1)

    def _carry_out(self) -> None:
        while not self._orders.empty():
            order = self._orders.get()
            try:
                reply = self._obey(order)
            except BaseException as error:  # noqa: BLE001 - bundle code runs here; becomes Failed
                reply = _failure(order, error)
            self._channel.send(reply)

    def _obey(self, order: Order) -> ctl.Message:
        match order:
            case ctl.Load():
                return self._open(order)
            case ctl.Prove():
                return self._prove()
            case ctl.Time():
                return ctl.Timed(self._proven_model(order).time())
            case ctl.Serve():
                return self._serve(order)
            case ctl.StandBy():
                self._loop.stand_by()
                self._tell()
                return ctl.Done()
            case ctl.Reprove():
                return self._reprove(order)

    def _open(self, order: ctl.Load) -> ctl.Loaded:
        if self._model is not None:
            raise OrderRefused("expected one Load per worker, found a second one")
        self._model = self._open_model(order)
        self._load = order
        return ctl.Loaded(self._model.runtime, self._sandbox)

    def _prove(self) -> ctl.Proven:
        if self._model is None:
            raise OrderRefused("expected Load before Prove, found no model loaded")
        proof = self._model.prove()
        self._proven = proof.passed
        self._execution_ms = min((case.milliseconds for case in proof.times), default=0.0)
        return ctl.Proven(proof)

    def _reprove(self, order: ctl.Reprove) -> ctl.Message:
        model = self._proven_model(order)
        if self._loop.waiting and not order.insist:
            return ctl.Reproven()
        return ctl.Reproven(model.reprove(order.case))

    def _proven_model(self, order: Order) -> ServedModel:
        if self._model is None or not self._proven:
            name = type(order).__name__
            raise OrderRefused(f"expected a passed proof in this process before {name}, found none")
        return self._model

    def _serve(self, order: ctl.Serve) -> ctl.Done:
        model, load = self._proven_model(order), self._load
        assert load is not None  # noqa: S101 - there is a model
        if not self._loop.serving:
            gc.collect()
            gc.freeze()  # what a loaded model holds stays: no later collection walks through it
            self._loop.serve(model, load.deployment_id, self._execution_ms)
        return ctl.Done()


def _failure(order: Order, error: BaseException) -> ctl.Failed:
    """Say why an order failed; `code` is the error's own, or its kind where it has none."""
    child.log("order_failed", order=type(order).__name__, error=sentence(repr(error)))
    if not isinstance(error, SuperbrainError):
        return ctl.Failed(type(error).__name__, f"{type(order).__name__} raised {error!r}")
    code = type(error).__name__
    if isinstance(error, RequestError):
        code = error.code
    elif isinstance(error, BundleError):
        code = error.reason
    at_fault = isinstance(error, (BundleError, GraphMismatch)) and not isinstance(error, StoreError)
    return ctl.Failed(code, error.message, error.mend, at_fault)
