"""Why a gateway does not let this program in: what ZeroMQ's monitor tells, as a sentence.

ZeroMQ keeps trying in the background and says nothing. Some failures are final (it then does not
even try again); one that has no detail may be a gateway that is just going away, so only several in
a row are taken for an answer. No I/O.
"""

from __future__ import annotations

from typing import Final

import zmq

from superbrain.client.endpoint import CurveKeys
from superbrain.wire.errors import Unavailable

WATCHED: Final = int(
    zmq.EVENT_CONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
)
_CONNECTED = int(zmq.EVENT_CONNECTED)
_SUCCEEDED = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
_AUTH = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
_PROTOCOL = int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
_NO_DETAIL = int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
_FAILURES_UNTIL_SURE: Final = 5
_ASK_FOR_KEYS = (
    "Make a pair with `superbrain access generate NAME`, let the host allow NAME.pub, and give "
    "Client(curve=CurveKeys.load('server.pub', 'NAME.key')), or --curve-server and --curve-key"
)


class Handshake:
    """What this program's attempts to connect have met since the last success."""

    def __init__(self, endpoint: str, curve: CurveKeys | None) -> None:
        self._endpoint = endpoint
        self._curve = curve
        self._failures = 0
        self._reached = False

    def event(self, kind: int) -> Unavailable | None:
        """Take note of an event of the monitor; an error when it will not get better by itself."""
        if kind == _SUCCEEDED:
            self._failures, self._reached = 0, False
        elif kind == _CONNECTED:
            self._reached = True
        elif kind == _AUTH:
            return self._unknown_key()
        elif kind == _PROTOCOL:
            return self._other_mechanism()
        elif kind == _NO_DETAIL:
            self._failures += 1
            if self._curve is not None and self._failures >= _FAILURES_UNTIL_SURE:
                self._failures = 0
                return self.suspicion()
        return None

    def suspicion(self) -> Unavailable | None:
        """What is probably wrong when somebody was reached who never finished the handshake."""
        if not self._reached or not self._endpoint.startswith("tcp:"):
            return None
        return Unavailable(
            f"{self._endpoint} takes connections, but does not finish the handshake",
            mend="Most likely the server's public key is another one (compare it with the host's "
            "server.pub), or something else listens there; else look at the host's log"
            if self._curve is not None
            else _ASK_FOR_KEYS,
        )

    def _unknown_key(self) -> Unavailable:
        key = self._curve.public if self._curve is not None else "none"
        return Unavailable(
            f"{self._endpoint} does not allow this program's key, whose public half is {key}",
            mend="On the host: superbrain access allow NAME.pub, then superbrain reload",
        )

    def _other_mechanism(self) -> Unavailable:
        if self._curve is None:
            what = f"{self._endpoint} expects CURVE keys, and this program has given none"
            return Unavailable(what, mend=_ASK_FOR_KEYS)
        return Unavailable(
            f"{self._endpoint} does not speak CURVE as this program does",
            mend="Is it a superbrain host's TCP address? A Unix socket needs no keys",
        )
