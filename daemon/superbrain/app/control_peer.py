"""Who is at the other end of the control socket: as the kernel says, not as the peer claims.

libzmq asks the kernel (SO_PEERCRED) when a connection to an ipc socket is accepted, and gives what
it heard with every message as `Peer-Address`, "localhost:UID:GID:PID". That is set before anything
the peer sends, and a property that the peer sends cannot replace it. A libzmq that was built
without it gives nothing, and a peer could then say what it likes: `require_credentials` finds that
out at the start, and the control socket is not opened.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import zmq

from superbrain.domain.audit import Peer
from superbrain.wire.errors import SuperbrainError

_ADDRESS = re.compile(r"[^:]*:([0-9]{1,10}):([0-9]{1,10}):([0-9]{1,10})")
_PATIENCE_MS = 10_000


class ControlError(SuperbrainError):
    """The control socket cannot be opened."""


def peer_of(frame: zmq.Frame) -> Peer | None:
    """Tell who sent a message; None when nobody can tell."""
    try:
        address = frame.get("Peer-Address")
    except (zmq.ZMQError, ValueError, UnicodeDecodeError):
        return None
    found = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
    return Peer(int(found[1]), int(found[2]), int(found[3])) if found else None


def may_give_orders(peer: Peer | None) -> bool:
    """Only root and the service's own user may."""
    return peer is not None and peer.uid in {0, os.geteuid()}


def require_credentials(folder: Path) -> None:
    """Make sure that libzmq names peers here, by asking it about ourselves.

    Raises:
        ControlError: it does not.
    """
    me = Peer(os.geteuid(), os.getegid(), os.getpid())
    try:
        with tempfile.TemporaryDirectory(prefix=".peer-", dir=folder) as private:
            found = _ask_about_ourselves(f"ipc://{private}/s")
    except OSError as error:
        msg = f"the control socket cannot be opened: {folder}: {error.strerror}"
        raise ControlError(msg, mend="Check the runtime folder and its permissions") from error
    if found != me:
        msg = f"the control socket cannot be opened: expected libzmq to name {me}, found {found}"
        mend = "Install the pyzmq wheel from the package index: its libzmq asks the kernel"
        raise ControlError(msg, mend=mend)


def _ask_about_ourselves(endpoint: str) -> Peer | None:
    with (
        zmq.Context() as context,
        context.socket(zmq.PULL) as pull,
        context.socket(zmq.PUSH) as push,
    ):
        push.linger = pull.linger = 0
        pull.rcvtimeo = push.sndtimeo = _PATIENCE_MS
        try:
            pull.bind(endpoint)
            push.connect(endpoint)
            push.send(b"who am I")
            return peer_of(pull.recv(copy=False))
        except zmq.ZMQError:
            return None
