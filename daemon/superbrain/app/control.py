"""The control socket: operators' questions and orders, one JSON structure each way.

It is a Unix socket of its own that only the service's user (and root) may use; inference never
comes here. Its mode keeps others out, and whoever comes in is asked for by the kernel's word
(control_peer.py): a stranger is refused even if somebody has loosened the mode. Every message gets
an answer, also one that is no operation; every order goes into the audit trail, before it is
carried out and after.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import zmq
import zmq.asyncio

from superbrain.app.control_peer import (
    ControlError,
    may_give_orders,
    peer_of,
    require_credentials,
)
from superbrain.deploy.orders import OrderRefused, Orders
from superbrain.domain import operations as op
from superbrain.domain.audit import Action, Peer
from superbrain.domain.errors import StoreError
from superbrain.domain.rung_facts import rung_facts
from superbrain.domain.settings import explain, explain_sandbox
from superbrain.host.events import Event
from superbrain.host.logs import event
from superbrain.wire.errors import SuperbrainError
from superbrain.wire.messages import UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from superbrain.app.observer import Observer
    from superbrain.app.trust_desk import TrustDesk
    from superbrain.bundle.store import Store
    from superbrain.deploy.journal import Journal
    from superbrain.domain.deployment import Deployment
    from superbrain.domain.manifest import Manifest
    from superbrain.host.audit_log import AuditLog

log = logging.getLogger(__name__)

CONTROL_UMASK = 0o077
MAX_MESSAGE_BYTES = 8 << 20
HISTORY_LIMIT = 10_000
_decode = msgspec.json.Decoder(op.AnyOperation).decode


class ControlServer:
    """Answers operators."""

    def __init__(
        self,
        endpoint: str,
        orders: Orders,
        observer: Observer,
        journal: Journal,
        store: Store,
        desk: TrustDesk,
        audit: AuditLog,
        reload: Callable[[], Awaitable[str]],
    ) -> None:
        self._endpoint = endpoint
        self._path = Path(endpoint.removeprefix("ipc://"))
        self._orders = orders
        self._observer = observer
        self._journal = journal
        self._store = store
        self._desk = desk
        self._audit = audit
        self._reload = reload
        self._socket: zmq.asyncio.Socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers: set[int | None] = set()

    def open(self, context: zmq.asyncio.Context) -> None:
        """Bind the socket; only this user may connect to it.

        Raises:
            ControlError: the endpoint cannot be bound, or nobody could tell who connects to it.
        """
        require_credentials(self._path.parent)
        socket = context.socket(zmq.ROUTER)
        socket.linger = 0
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        try:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
            self._bind(socket)
        except (zmq.ZMQError, OSError) as error:
            socket.close()
            msg = f"the control socket {self._endpoint} cannot be opened: {error}"
            raise ControlError(msg, mend="Check the runtime folder and its permissions") from error
        self._socket = socket

    def _bind(self, socket: zmq.asyncio.Socket) -> None:
        before = os.umask(CONTROL_UMASK)
        try:
            socket.bind(self._endpoint)
        finally:
            os.umask(before)

    async def run(self) -> None:
        """Answer for ever; a slow order does not keep the next question waiting."""
        assert self._socket is not None  # noqa: S101 - opened before
        while True:
            frames: list[Any] = await self._socket.recv_multipart(copy=False)
            task = asyncio.create_task(self._answer(frames))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def look_after(self) -> None:
        """Bind the socket again where somebody has removed its file: nobody finds it without."""
        if self._socket is None or self._path.exists():
            return
        with contextlib.suppress(zmq.ZMQError):
            self._socket.unbind(self._endpoint)
        with contextlib.suppress(zmq.ZMQError, OSError):  # the next look tries again
            self._bind(self._socket)
            event(log, Event.SOCKET_MADE_AGAIN, logging.WARNING, path=str(self._path))

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()

    async def _answer(self, frames: list[zmq.Frame]) -> None:
        assert self._socket is not None  # noqa: S101 - opened before
        peer = peer_of(frames[-1])
        if may_give_orders(peer):
            reply = await self._carry_out(frames[-1].bytes, peer)
        else:
            reply = self._turn_away(peer)
        envelope = [frame.bytes for frame in frames[:-1]]
        with contextlib.suppress(zmq.ZMQError):
            await self._socket.send_multipart([*envelope, msgspec.json.encode(reply)])

    def _turn_away(self, peer: Peer | None) -> op.Refusal:
        """Refuse a stranger; the trail tells of each user once, so that none can fill it."""
        uid = peer.uid if peer else None
        expected = f"expected root or user id {os.geteuid()} on the control socket, found {uid}"
        event(log, Event.CONTROL_PEER_REFUSED, logging.WARNING, expected)
        if uid not in self._strangers:
            self._strangers.add(uid)
            self._audit.write(Action.STRANGER, "control socket", "refused", expected, peer)
        return op.Refusal("PERMISSION_DENIED", expected, "Run it with sudo")

    async def _carry_out(self, message: bytes, peer: Peer | None) -> op.AnyReply:
        try:
            operation = _decode(message)
        except UNREADABLE as error:
            event(log, Event.CONTROL_REQUEST_REFUSED, logging.WARNING, str(error))
            kinds = "health, history, report, trust, audit, rollback, retire, retry, reload"
            return op.Refusal(
                "INVALID_ARGUMENT", f"expected an operation ({kinds}), found: {error}"
            )
        if not isinstance(operation, op.ORDERS):
            return await self._perform_or_refuse(operation)
        order = _order_text(operation)
        self._audit.write(Action.ORDER, order, "asked", peer=peer)
        reply = await self._perform_or_refuse(operation)
        refused = isinstance(reply, op.Refusal)
        detail = reply.message if isinstance(reply, op.Refusal | op.Outcome) else ""
        self._audit.write(
            Action.ORDER, order, "refused" if refused else "carried out", detail, peer
        )
        return reply

    async def _perform_or_refuse(self, operation: op.AnyOperation) -> op.AnyReply:
        try:
            return await self._perform(operation)
        except OrderRefused as refused:
            event(log, Event.OPERATION_REFUSED, logging.WARNING, refused.message)
            return op.Refusal(refused.code, refused.message, refused.mend)
        except SuperbrainError as error:
            event(log, Event.OPERATION_REFUSED, logging.ERROR, error.message)
            return op.Refusal("INTERNAL", error.message, error.mend)
        except Exception as error:  # noqa: BLE001 - whoever asks hears of a fault of ours, too
            said = f"{type(error).__name__}: {error}"
            event(log, Event.OPERATION_REFUSED, logging.ERROR, said, exc_info=error)
            return op.Refusal("INTERNAL", said, "Report this; the daemon's log has the traceback")

    async def _perform(self, operation: op.AnyOperation) -> op.AnyReply:
        match operation:
            case op.GetHealth():
                return op.HealthReply(self._observer.report())
            case op.GetHistory(model, limit):
                limit = max(1, min(limit, HISTORY_LIMIT))
                return op.HistoryReply(self._journal.history(model=model, limit=limit))
            case op.GetReport(model, version):
                return self._report(model, version)
            case op.GetTrust():
                return op.TrustReply(self._desk.facts())
            case op.GetAudit(limit):
                return await self._desk.audit(max(1, min(limit, HISTORY_LIMIT)))
            case op.VerifyAudit():
                return await self._desk.verify_audit()
            case _:
                outcome = await self._obey(operation)
        event(log, Event.OPERATION_CARRIED_OUT, message=outcome)
        return op.Outcome(outcome)

    async def _obey(self, order: op.AnyOperation) -> str:
        """Carry an order out; a sentence about what was done."""
        match order:
            case op.Rollback(model):
                return await self._orders.roll_back(model)
            case op.Retire(model):
                return await self._orders.retire(model)
            case op.Retry(model, version):
                return self._orders.retry(model, version)
            case op.ImportTrust(updates):
                return await self._desk.import_updates(updates)
            case op.ForgetTime():
                return self._desk.forget_time()
            case _:
                return await self._reload()

    def _report(self, model: str, version: str) -> op.ReportReply:
        deployment = self._wanted(model, version)
        manifest = self._kept_manifest(deployment)
        proofs = self._journal.proofs(deployment.id)
        passed = [record.proof for record in proofs if record.proof.passed]
        return op.ReportReply(
            model=model,
            version=deployment.version,
            deployment_id=deployment.id,
            state=str(deployment.state),
            digest=deployment.digest,
            sequence=deployment.sequence,
            created=manifest.created if manifest else None,
            description=manifest.description if manifest else "",
            ladder=list(deployment.ladder),
            rung=deployment.rung,
            signers=self._journal.signers(deployment.digest),
            settings=[
                *explain(manifest, passed[-1] if passed else None, os.cpu_count() or 1),
                *map(explain_sandbox, self._observer.sandboxes(deployment)),
            ]
            if manifest
            else [],
            proofs=proofs,
            transitions=list(
                reversed(self._journal.history(deployment_id=deployment.id, limit=200))
            ),
            rungs=rung_facts(deployment),
            select=deployment.select,
            stored=manifest is not None,
            reason=deployment.reason,
        )

    def _kept_manifest(self, deployment: Deployment) -> Manifest | None:
        """None where the store has none of it: refused before it was taken, or not kept longer."""
        try:
            return self._store.manifest(deployment.digest)
        except StoreError as error:
            if error.reason == "STORE_MISSING":
                return None
            raise

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


def _order_text(order: op.AnyOperation) -> str:
    """Name an order as the trail does: `rollback ocr`."""
    kind = str(order.__struct_config__.tag).replace("_", "-")
    match order:
        case op.Rollback(model) | op.Retire(model):
            return f"{kind} {model}"
        case op.Retry(model, version):
            return f"{kind} {model} {version}".rstrip()
    return kind
