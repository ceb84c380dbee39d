"""Who may come in by TCP: answers libzmq's question (ZAP) for every CURVE key that knocks.

libzmq asks over the inproc socket that ZAP prescribes, before a client can say anything. No answer
means no: the ROUTER enforces its ZAP domain, so a guard that is gone lets nobody in.
Source: https://rfc.zeromq.org/spec/27/.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import zmq
from zmq.utils import z85

from superbrain.serve import child

if TYPE_CHECKING:
    from collections.abc import Mapping

ZAP_ENDPOINT: Final = "inproc://zeromq.zap.01"
DOMAIN: Final = "superbrain"
_ALLOWED, _REFUSED = (b"200", b"OK"), (b"400", b"not among the clients of this host")
_KEY_BYTES = 32
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_REFUSALS_LOGGED = 20
_REFUSALS_WINDOW_S = 10.0


class RefusalLog:
    """Logs refused clients, but no more than a few in any stretch of time: strangers cause them."""

    def __init__(self) -> None:
        self.count = 0
        self._since = 0.0
        self._logged = 0

    def add(self, reason: str, now: float, **fields: str) -> None:
        """Count one refusal and, if there is room, log it."""
        self.count += 1
        if now - self._since >= _REFUSALS_WINDOW_S:
            self._since, self._logged = now, 0
        self._logged += 1
        if self._logged < _REFUSALS_LOGGED:
            child.log("tcp_client_refused", reason=reason, **fields)
        elif self._logged == _REFUSALS_LOGGED:
            more = f"more of them are counted, not logged, for {_REFUSALS_WINDOW_S:g} s"
            child.log("tcp_client_refused", reason=more)


class Guard:
    """Answers for the keys in `names`, which may be replaced at any time.

    Attributes:
        accepted: how many connections were let in.
        refusals: how many were not, and why.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], names: Mapping[str, str]) -> None:
        self.names = names
        self.accepted = 0
        self.refusals = RefusalLog()
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(ZAP_ENDPOINT)
        self.fd = self._socket.fileno()

    def answer(self) -> bool:
        """Answer one question that waits; false when none does."""
        if not int(self._socket.get(_EVENTS)) & _POLLIN:
            return False
        version, number, domain, address, _, mechanism, *credentials = self._socket.recv_multipart()
        allowed = (version, domain, mechanism) == (b"1.0", DOMAIN.encode(), b"CURVE")
        key = _key_of(credentials)
        name = self.names.get(key) if allowed else None
        code, text = _ALLOWED if name is not None else _REFUSED
        self._socket.send_multipart([version, number, code, text, key.encode(), b""])
        self._tell(name, key, address.decode("ascii", "replace"))
        return True

    def close(self) -> None:
        """Answer no more, which lets nobody in."""
        self._socket.close()

    def _tell(self, name: str | None, key: str, address: str) -> None:
        if name is not None:
            self.accepted += 1
            child.log("tcp_client_accepted", client=name, key=key, address=address)
        else:
            what = "its key is not in the folder of clients"
            self.refusals.add(what, time.monotonic(), key=key, address=address)


def _key_of(credentials: list[bytes]) -> str:
    """Write the key that CURVE has proven as text; empty when there is none."""
    if len(credentials) != 1 or len(credentials[0]) != _KEY_BYTES:
        return ""
    return z85.encode(credentials[0]).decode("ascii")
