"""Roads to servers, as bytes on a socket: HTTP/1.1, ZMTP (ZeroMQ), and superbrain's lanes."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence

import msgspec

from scripts.peers_models import BenchModel
from superbrain.wire import lane, zmtp
from superbrain.wire.messages import (
    INFER,
    PROTOCOL,
    RESOLVE,
    InferRequest,
    ModelQuery,
    Resolved,
    TensorHeader,
)

_HEAD_END = b"\r\n\r\n"
_LANE_PREFIX = struct.Struct("<BBHIQQ")
_CONNECT_S = 5.0


class Http:
    """HTTP/1.1 with keep-alive; the answer is recognised by `expected` in its body."""

    def __init__(
        self, port: int, path: str, body: bytes, expected: bytes, headers: Sequence[str] = ()
    ) -> None:
        self._port = port
        self.expected = expected
        lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Content-Length: {len(body)}"]
        self.request = "\r\n".join((*lines, *headers, "", "")).encode() + body

    def connect(self) -> socket.socket:
        """Connect."""
        made = socket.create_connection(("127.0.0.1", self._port), _CONNECT_S)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def answer_bytes(self, received: bytearray) -> int:
        """Find the end by Content-Length, or of the last chunk."""
        end = received.find(_HEAD_END)
        if end < 0:
            return 0
        head = bytes(received[:end]).lower()
        where = head.find(b"\r\ncontent-length:")
        if where < 0:
            return len(received) if received.endswith(b"0" + _HEAD_END) else 0
        size = int(head[where + 17 :].split(b"\r\n", 1)[0])
        whole = end + len(_HEAD_END) + size
        return whole if len(received) >= whole else 0

    def is_right(self, answer: bytes) -> bool:
        """Whether it is a 200 with what is expected."""
        return answer.startswith(b"HTTP/1.1 200") and self.expected in answer

    def is_goodbye(self, _answer: bytes) -> bool:
        """Never: HTTP has no word for it that these servers use."""
        return False


class Zmtp:
    """ZeroMQ, as a REQ or DEALER socket speaks it."""

    def __init__(
        self, address: tuple[str, int] | str, kind: bytes, parts: Sequence[bytes], expected: bytes
    ) -> None:
        self._address = address
        self._kind = kind
        self.expected = expected
        self.request = b"".join(zmtp.encode(parts))

    def connect(self) -> socket.socket:
        """Connect and exchange greetings."""
        family = socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
        made.settimeout(_CONNECT_S)
        made.connect(self._address)
        if family == socket.AF_INET:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.sendall(zmtp.GREETING)
        _exactly(made, zmtp.GREETING_BYTES)
        body = b"".join(
            bytes((len(name),)) + name + struct.pack(">I", len(value)) + value
            for name, value in ((b"Socket-Type", self._kind), (b"Identity", b""))
        )
        made.sendall(zmtp.encode_command(b"READY", body))
        flags, size = _exactly(made, 2)
        if flags & zmtp.LONG:
            size = int.from_bytes(bytes((size,)) + _exactly(made, 7), "big")
        _exactly(made, size)
        return made

    def answer_bytes(self, received: bytearray) -> int:
        """Find the end of the last frame."""
        at = 0
        while len(received) >= at + 2:
            flags = received[at]
            if flags & zmtp.LONG:
                if len(received) < at + 9:
                    return 0
                at += 9 + int.from_bytes(received[at + 1 : at + 9], "big")
            else:
                at += 2 + received[at + 1]
            if not flags & zmtp.MORE:
                return at if len(received) >= at else 0
        return 0

    def is_right(self, answer: bytes) -> bool:
        """Whether what is expected is in it."""
        return self.expected in answer

    def is_goodbye(self, _answer: bytes) -> bool:
        """Never: the gateway stays."""
        return False


class Lane:
    """A lane of superbrain: straight to the worker, found anew for every connection."""

    def __init__(self, gateway: str, model: BenchModel) -> None:
        question = [PROTOCOL + RESOLVE, msgspec.json.encode(ModelQuery(model.name))]
        self._gateway = Zmtp(gateway, b"DEALER", question, b"")
        self.expected = model.expected
        header = infer_header(model.name, model.input, list(model.x.shape))
        tensors = [memoryview(model.x).cast("B")]
        self.request = b"".join(lane.encode(lane.REQUEST, header, tensors, request_id=1))

    def connect(self) -> socket.socket:
        """Ask the gateway where the worker is, connect, and wait for its greeting."""
        end = time.monotonic() + _CONNECT_S
        while True:
            try:
                return self._greeted()
            except OSError:  # the model is on the move
                if time.monotonic() > end:
                    raise
                time.sleep(0.001)

    def _greeted(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(_CONNECT_S)
        made.connect(self._lane())
        greeting = bytearray()
        while not (size := self.answer_bytes(greeting)) or size < len(greeting):
            greeting += _exactly(made, max(1, (size or _LANE_PREFIX.size) - len(greeting)))
        return made

    def _lane(self) -> str:
        with self._gateway.connect() as connection:
            connection.sendall(self._gateway.request)
            received = bytearray()
            while not self._gateway.answer_bytes(received):
                received += _exactly(connection, 1)
        start = received.find(b"{")
        lanes = msgspec.json.decode(bytes(received[start:]), type=Resolved).lanes
        return lanes[0] if lanes else ""

    def answer_bytes(self, received: bytearray) -> int:
        """Find the end of the first frame."""
        if len(received) < _LANE_PREFIX.size:
            return 0
        _, _, count, header, _, _ = _LANE_PREFIX.unpack_from(received)
        head = _LANE_PREFIX.size + 8 * count
        if len(received) < head:
            return 0
        size = header
        for tensor in struct.unpack_from(f"<{count}Q", received, _LANE_PREFIX.size):
            size += -size % lane.ALIGNMENT + tensor
        return head + size if len(received) >= head + size else 0

    def is_right(self, answer: bytes) -> bool:
        """Whether it is a response with what is expected."""
        return answer[0] == lane.RESPONSE and self.expected in answer

    def is_goodbye(self, answer: bytes) -> bool:
        """Whether the worker retires: what it has not answered is to be sent to the next."""
        return answer[0] == lane.GOODBYE


def infer_header(model: str, name: str, shape: list[int]) -> bytes:
    """Write the header of an inference request with one tensor."""
    return msgspec.json.encode(InferRequest(model, [TensorHeader(name, "FP32", shape)], "1"))


def infer_parts(model: str, name: str, shape: list[int], tensor: bytes) -> list[bytes]:
    """Give the frames of an inference request over ZeroMQ."""
    return [PROTOCOL + INFER, infer_header(model, name, shape), tensor]


def _exactly(made: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = made.recv(count - len(data))
        if not more:
            raise ConnectionResetError("the server hung up")
        data += more
    return data
