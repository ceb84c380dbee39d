"""The control socket: operators' questions and orders, one JSON structure each way.

It is a Unix socket of its own that only the service's user (and root) may use; inference never
comes here. Every message gets an answer, also one that is no operation.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import zmq
import zmq.asyncio

from superbrain.deploy.orders import OrderRefused, Orders
from superbrain.domain import operations as op
from superbrain.domain.settings import explain, explain_sandbox
from superbrain.host.events import Event
from superbrain.host.logs import event
from superbrain.wire.errors import SuperbrainError
from superbrain.wire.messages import UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from superbrain.app.observer import Observer
    from superbrain.bundle.store import Store
    from superbrain.deploy.journal import Journal
    from superbrain.domain.deployment import Deployment

log = logging.getLogger(__name__)

CONTROL_UMASK = 0o077
HISTORY_LIMIT = 10_000
_decode = msgspec.json.Decoder(op.AnyOperation).decode


class ControlError(SuperbrainError):
    """The control socket cannot be opened."""


class ControlServer:
    """Answers operators."""

    def __init__(
        self,
        endpoint: str,
        orders: Orders,
        observer: Observer,
        journal: Journal,
        store: Store,
        reload: Callable[[], Awaitable[str]],
    ) -> None:
        self._endpoint = endpoint
        self._orders = orders
        self._observer = observer
        self._journal = journal
        self._store = store
        self._reload = reload
        self._socket: zmq.asyncio.Socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, context: zmq.asyncio.Context) -> None:
        """Bind the socket; only this user may connect to it.

        Raises:
            ControlError: the endpoint cannot be bound.
        """
        path = Path(self._endpoint.removeprefix("ipc://"))
        socket = context.socket(zmq.ROUTER)
        socket.linger = 0
        socket.setsockopt(zmq.MAXMSGSIZE, 1 << 20)
        before = os.umask(CONTROL_UMASK)
        try:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            socket.bind(self._endpoint)
        except (zmq.ZMQError, OSError) as error:
            socket.close()
            msg = f"the control socket {self._endpoint} cannot be opened: {error}"
            raise ControlError(msg, mend="Check the runtime folder and its permissions") from error
        finally:
            os.umask(before)
        self._socket = socket

    async def run(self) -> None:
        """Answer for ever; a slow order does not keep the next question waiting."""
        assert self._socket is not None  # noqa: S101 - opened before
        while True:
            frames = await self._socket.recv_multipart()
            task = asyncio.create_task(self._answer(frames))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()

    async def _answer(self, frames: list[bytes]) -> None:
        assert self._socket is not None  # noqa: S101 - opened before
        reply = await self._carry_out(frames[-1])
        with contextlib.suppress(zmq.ZMQError):
            await self._socket.send_multipart([*frames[:-1], msgspec.json.encode(reply)])

    async def _carry_out(self, message: bytes) -> op.AnyReply:
        try:
            operation = _decode(message)
        except UNREADABLE as error:
            event(log, Event.CONTROL_REQUEST_REFUSED, logging.WARNING, str(error))
            kinds = "health, history, report, rollback, retire, retry, reload"
            return op.Refusal(
                "INVALID_ARGUMENT", f"expected an operation ({kinds}), found: {error}"
            )
        try:
            return await self._perform(operation)
        except OrderRefused as refused:
            event(log, Event.OPERATION_REFUSED, logging.WARNING, refused.message)
            return op.Refusal(refused.code, refused.message, refused.mend)
        except SuperbrainError as error:
            event(log, Event.OPERATION_REFUSED, logging.ERROR, error.message)
            return op.Refusal("INTERNAL", error.message, error.mend)

    async def _perform(self, operation: op.AnyOperation) -> op.AnyReply:
        match operation:
            case op.GetHealth():
                return op.HealthReply(self._observer.report())
            case op.GetHistory(model, limit):
                limit = max(1, min(limit, HISTORY_LIMIT))
                return op.HistoryReply(self._journal.history(model=model, limit=limit))
            case op.GetReport(model, version):
                return self._report(model, version)
            case op.Rollback(model):
                outcome = await self._orders.roll_back(model)
            case op.Retire(model):
                outcome = await self._orders.retire(model)
            case op.Retry(model, version):
                outcome = self._orders.retry(model, version)
            case op.Reload():
                outcome = await self._reload()
        event(log, Event.OPERATION_CARRIED_OUT, message=outcome)
        return op.Outcome(outcome)

    def _report(self, model: str, version: str) -> op.ReportReply:
        deployment = self._wanted(model, version)
        manifest = self._store.manifest(deployment.digest)
        proofs = self._journal.proofs(deployment.id)
        passed = [record.proof for record in proofs if record.proof.passed]
        return op.ReportReply(
            model=model,
            version=deployment.version,
            deployment_id=deployment.id,
            state=str(deployment.state),
            digest=deployment.digest,
            sequence=deployment.sequence,
            created=manifest.created,
            description=manifest.description,
            ladder=list(deployment.ladder),
            rung=deployment.rung,
            signers=self._journal.signers(deployment.digest),
            settings=[
                *explain(manifest, passed[-1] if passed else None, os.cpu_count() or 1),
                *map(explain_sandbox, self._observer.sandboxes(deployment)),
            ],
            proofs=proofs,
            transitions=list(
                reversed(self._journal.history(deployment_id=deployment.id, limit=200))
            ),
        )

    def _wanted(self, model: str, version: str) -> Deployment:
        if not version:
            current = self._journal.current(model)
            if current is not None:
                return current
        for deployment in self._journal.of_model(model):
            if version in ("", deployment.version):
                return deployment
        names = ", ".join(self._journal.models()) or "none"
        msg = f"no deployment of {model} {version}".rstrip() + f" is known here; models: {names}"
        raise OrderRefused("NOT_FOUND", msg, "superbrain history lists them")
