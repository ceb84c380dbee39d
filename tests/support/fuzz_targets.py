"""What reads bytes that somebody else has written, each as a function that may raise nothing.

A target swallows the typed errors that its reader promises. Whatever else comes out is a finding.
`tests/unit/test_fuzz_targets.py` gives each a little of everything, `scripts/soak --fuzz` whatever
coverage leads to. `seeds` are good inputs to begin with.
"""

from __future__ import annotations

import io
import itertools
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
import numpy as np

from superbrain.bundle.archive import VerifiedBundle, check_members, open_bundle, peek
from superbrain.bundle.signing import read_envelope, verify_envelope
from superbrain.bundle.tensors import read_tensor
from superbrain.client.calls import server_metadata
from superbrain.client.ledger import Exchange, Ledger
from superbrain.domain import ctl
from superbrain.domain.errors import BundleError
from superbrain.domain.manifest import InterfaceTensor
from superbrain.domain.manifest_json import encode_manifest, parse_manifest
from superbrain.domain.trust import Trust
from superbrain.transport.frame_reader import PythonReader, frame_reader
from superbrain.wire import lane, zmtp
from superbrain.wire.curve import parse_certificate
from superbrain.wire.datatypes import DATATYPES, decode_tensor
from superbrain.wire.errors import InvalidArgument, SuperbrainError
from superbrain.wire.messages import (
    ERROR,
    PROTOCOL,
    RESULT,
    InferRequest,
    ModelQuery,
    Routing,
    ServerQuery,
    decode_header,
    salvage_id,
)
from tests.support.bundles import make_bundle, sign_key, trust_in, verified

HELLO = zmtp.GREETING + zmtp.encode_command(b"READY", b"\x0bSocket-Type\0\0\0\3REQ")
NUMBERS = InterfaceTensor("x", "FP32", [-1, 2])
WORDS = InterfaceTensor("words", "BYTES", [-1])
_HEADERS: tuple[msgspec.json.Decoder[Any], ...] = tuple(
    map(
        msgspec.json.Decoder,
        (InferRequest, Routing, ModelQuery, ServerQuery, lane.Region, lane.RegionRelease),
    )
)
_DATATYPES = sorted(DATATYPES)
_LIMIT = 1 << 20


class Target(NamedTuple):
    """One reader."""

    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]


class _Sample(NamedTuple):
    data: bytes
    bundle: VerifiedBundle
    trust: Trust


@cache
def _sample() -> _Sample:
    with TemporaryDirectory() as folder:
        key = sign_key(Path(folder))
        built = make_bundle(Path(folder), key)
        return _Sample(built.path.read_bytes(), verified(built, key), trust_in(key))


def _archive(data: bytes) -> None:
    file = io.BytesIO(data)
    with suppress(BundleError):
        peek(file)
    with suppress(BundleError):
        check_members(file, open_bundle(file, _sample().trust))


def _members(data: bytes) -> None:
    """What stands behind a good envelope."""
    sample = _sample()
    start = _members_at(sample)
    with suppress(BundleError):
        check_members(io.BytesIO(sample.data[:start] + data), sample.bundle)


def _members_at(sample: _Sample) -> int:
    size = len(sample.bundle.envelope)
    return 512 + size + -size % 512


def _manifest(data: bytes) -> None:
    with suppress(BundleError):
        parse_manifest(data)


def _envelope(data: bytes) -> None:
    with suppress(BundleError):
        read_envelope(data)
    with suppress(BundleError):
        verify_envelope(data, _sample().trust)


def _zmtp(data: bytes) -> None:
    """Behind a good greeting or not, in pieces of a size that the input chooses."""
    size = data[0] + 1 if data else 1
    stream = (HELLO if size % 2 else b"") + data[1:]
    decoder = zmtp.Decoder(8, _LIMIT)
    with suppress(zmtp.ZmtpError):
        for piece in _pieces(stream, size):
            room = decoder.room
            taken = 0
            if room is not None:
                taken = min(len(room), len(piece))
                room[:taken] = piece[:taken]
                decoder.filled(taken)
            if taken < len(piece):
                decoder.feed(piece[taken:])


def _lane(data: bytes) -> None:
    size = data[0] + 1 if data else 1
    decoder = lane.LaneDecoder(_LIMIT)
    with suppress(lane.LaneError):
        for piece in _pieces(data[1:], size):
            left = piece
            while left:
                room = decoder.buffer()
                taken = min(len(room), len(left))
                room[:taken] = left[:taken]
                decoder.received(taken)
                left = left[taken:]


def _lane_socket(data: bytes) -> None:
    """The reader that lanes have here, over a socket; it must make of it what its twin does."""
    size = data[0] + 1 if data else 1
    outcomes = [_read(data[1:], size, python=python) for python in (False, True)]
    assert outcomes[0] == outcomes[1]


def _read(stream: bytes, size: int, *, python: bool) -> list[object]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    reader = PythonReader(ours, []) if python else frame_reader(ours, [])
    found: list[object] = []
    with ours, theirs, suppress(lane.LaneError):
        for piece in _pieces(stream, size):
            theirs.sendall(piece)
            frames = reader.receive(ours.fileno(), False)
            while frames or not reader.between_frames:
                found += [(one.kind, bytes(one.header), one.request_id) for one in frames]
                found += [bytes(tensor) for one in frames for tensor in one.tensors]
                frames = reader.receive(ours.fileno(), False)
                if not frames:
                    break
    return found


def _pieces(stream: bytes, size: int) -> Iterator[bytes]:
    return (stream[start : start + size] for start in range(0, len(stream), size))


def _header(data: bytes) -> None:
    kind = data[0] % len(_HEADERS) if data else 0
    with suppress(InvalidArgument):
        decode_header(data[1:], _HEADERS[kind], "a message")
    salvage_id(data[1:])


def _reply(data: bytes) -> None:
    """What a client does with a reply, whatever is in it."""
    ledger = Ledger("f")
    exchange = Exchange(server_metadata(), 1e9)
    ledger.add(exchange)
    kind = PROTOCOL + (ERROR if data[:1] < b"\x80" else RESULT)
    found = ledger.settle([kind, data[1:].replace(b"@ID", exchange.id.encode())])
    exchange.refuse(data)
    if found is not None:
        with suppress(SuperbrainError):
            found.outcome()


def _tensor(data: bytes) -> None:
    """A datatype, a rank, the sizes, then the bytes."""
    head, rest = data[:6].ljust(6, b"\0"), data[6:]
    shape = [size - 4 for size in head[2 : 2 + head[1] % 4]]
    with suppress(InvalidArgument):
        decode_tensor("x", _DATATYPES[head[0] % len(_DATATYPES)], shape, rest)


def _npy(data: bytes) -> None:
    with suppress(BundleError):
        read_tensor("x.npy", data, NUMBERS)


def _texts(data: bytes) -> None:
    with suppress(BundleError):
        read_tensor("words.json", data, WORDS)


def _ctl(data: bytes) -> None:
    """What a worker in which bundle code runs may tell the daemon, and the other way round."""
    for kinds in (ctl.FromWorker | ctl.FromGateway, ctl.ToWorker | ctl.ToGateway):
        buffer: ctl.MessageBuffer[Any] = ctl.MessageBuffer(msgspec.msgpack.Decoder(kinds))
        with suppress(ctl.CtlError):
            buffer.feed(data)


def _curve(data: bytes) -> None:
    with suppress(InvalidArgument):
        parse_certificate(data.decode("utf-8", "replace"), "f")


# --- good inputs --------------------------------------------------------------------------------


def _npy_seeds() -> list[bytes]:
    arrays = (np.zeros((2, 2), np.float32), np.zeros((0, 2), np.float32), np.array(["a"], object))
    seeds = []
    for array in arrays:
        file = io.BytesIO()
        np.save(file, array, allow_pickle=True)
        seeds.append(file.getvalue())
    return seeds


def _request() -> bytes:
    return msgspec.json.encode(InferRequest("adder", [], "id", "1.0.0"))


def _lane_seeds() -> list[bytes]:
    frame = lane.encode(lane.REQUEST, _request(), [b"abc", b"d" * 70], request_id=1, priority=2)
    return [b"\xff" + b"".join(map(bytes, frame)) * 2, b"\x07" + bytes(frame[0])]


def _zmtp_seeds() -> list[bytes]:
    frames = b"".join(map(bytes, zmtp.encode([b"", b"SB1I", _request(), bytes(300)])))
    ping = zmtp.encode_command(b"PING", b"\0\x0fcontext")
    return [b"\xfe" + frames + ping, b"\xff" + HELLO + frames, b"\x02" + frames * 3]


def _header_seeds() -> list[bytes]:
    deep = b'{"z":' + b"[" * 3000 + b"]" * 3000 + b"}"
    return [
        bytes([kind]) + text for kind in range(6) for text in (_request(), deep, b'{"id":"\xff"}')
    ]


def _reply_seeds() -> list[bytes]:
    error = b'{"error":{"code":"INTERNAL","message":"m"},"id":"@ID"}'
    return [b"\0" + error, b'\xff{"name":"s","version":"1","extensions":[],"id":"@ID"}']


def _ctl_seeds() -> list[bytes]:
    messages: list[ctl.Message] = [ctl.WorkerPong(), ctl.Loaded("ort"), ctl.Failed("C", "m")]
    messages += [ctl.Load(1, "p", "s", "r", "l"), ctl.Ping()]
    return [*map(ctl.encode_message, messages), b"".join(map(ctl.encode_message, messages))]


TARGETS: dict[str, Target] = {
    "archive": Target(_archive, lambda: [_sample().data]),
    "members": Target(_members, lambda: [_sample().data[_members_at(_sample()) :]]),
    "manifest": Target(_manifest, lambda: [encode_manifest(_sample().bundle.manifest)]),
    "envelope": Target(_envelope, lambda: [_sample().bundle.envelope]),
    "zmtp": Target(_zmtp, _zmtp_seeds),
    "lane": Target(_lane, _lane_seeds),
    "lane_socket": Target(_lane_socket, _lane_seeds),
    "header": Target(_header, _header_seeds),
    "reply": Target(_reply, _reply_seeds),
    "tensor": Target(
        _tensor,
        lambda: [
            bytes([kind, rank, 6, 5, 5, 5]) + bytes(8)
            for kind, rank in itertools.product(range(len(_DATATYPES)), range(3))
        ],
    ),
    "npy": Target(_npy, _npy_seeds),
    "texts": Target(_texts, lambda: [b'["a", {"base64": "YQ=="}]', b"[]"]),
    "ctl": Target(_ctl, _ctl_seeds),
    "curve": Target(_curve, lambda: [b'curve\n    public-key = "' + b"a" * 40 + b'"\n']),
}
