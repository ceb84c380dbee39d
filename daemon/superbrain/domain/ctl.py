"""What the daemon says to its children over their control channel, and what they answer.

The channel is a Unix stream socketpair that the child inherits; each message is a four-byte
little-endian length and one MessagePack structure of a kind below. A child whose channel ends
exits at once, so that a killed daemon leaves nobody behind. Orders to a worker come one at a
time; `Ping` may come at any time and is answered even while a request is being executed. Orders
to the gateway come one at a time too, and are answered in order.

    Load -> Loaded | Failed      the worker opens bundle, engines and pipeline on one rung
    Prove -> Proven | Failed     it runs every golden case
    Time -> Timed | Failed       it runs all of them again and again, for their time
    Serve -> Done                it listens on its lane
    StandBy -> Done              it finishes what has come, ends its lanes, stays warm
    Reprove -> Reproven | Failed  it runs one golden case again, between two requests
    Prepare -> Done | Failed     the gateway joins the lanes of what comes next
    Route -> Done | Failed       it moves a model's traffic
    Open -> Done                 it begins to read what clients send
    ReadClients -> Done | Failed the TCP face reads again who may connect
    Ping -> WorkerPong | GatewayPong | TcpPong
"""

from __future__ import annotations

import struct
from typing import Generic, TypeVar

import msgspec

from superbrain.domain.durations import Histogram, Stage, check_buckets
from superbrain.domain.engine import EngineFile
from superbrain.domain.proof import Proof, Timing
from superbrain.domain.records import RecordPolicy, RequestRecord
from superbrain.domain.sandbox import Sandbox, SandboxPolicy
from superbrain.domain.told import Count, Name, Span, shorten
from superbrain.wire.errors import SuperbrainError
from superbrain.wire.messages import UNREADABLE, ModelMetadata

T = TypeVar("T")

LENGTH = struct.Struct("<I")
MAX_MESSAGE_BYTES = 16 << 20


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of every control message; the class name travels as its tag."""


# --- daemon to worker -------------------------------------------------------------------------


class Load(Message, frozen=True):
    """Open the bundle in `bundle_path` (a folder of the store), engines on `rung`.

    `scratch_path` is the one folder that the worker may write to; empty for none. `engines` are
    those that a builder has made for the rung, one for each graph; none where it needs none.
    `records` says of which requests to tell.
    """

    deployment_id: int
    bundle_path: str
    manifest_sha256: str
    rung: str
    lane_path: str
    scratch_path: str = ""
    sandbox: SandboxPolicy = SandboxPolicy()
    engines: list[EngineFile] = []
    records: RecordPolicy = RecordPolicy()


class Prove(Message, frozen=True):
    """Run every golden case."""


class Time(Message, frozen=True):
    """Run every golden case again and again, and say how long a request takes."""


class Serve(Message, frozen=True):
    """Listen on the lane and answer."""


class StandBy(Message, frozen=True):
    """Say GOODBYE, finish what has come as far as that is soon done, end all lanes, stay loaded."""


class Reprove(Message, frozen=True):
    """Run golden case number `case` again as it was proven; unless you `insist`, only when idle."""

    case: int
    insist: bool = False


class Ping(Message, frozen=True):
    """Say that you are alive, with your figures."""


# --- worker to daemon -------------------------------------------------------------------------


class Loaded(Message, frozen=True):
    """Engines and pipeline are there; `runtime` names library and version, `sandbox` what holds."""

    runtime: Name
    sandbox: Sandbox = Sandbox()


class Proven(Message, frozen=True):
    """All golden cases ran; whether they agreed is in the proof."""

    proof: Proof


class Timed(Message, frozen=True):
    """How long the golden requests took."""

    timing: Timing


class Reproven(Message, frozen=True):
    """One golden case ran again, and whether it agreed; no proof: requests wait, so it did not."""

    proof: Proof | None = None


class Failed(Message, frozen=True):
    """The order could not be carried out.

    `bundle_at_fault`: True when the bundle itself is wrong (a graph that contradicts the
    manifest, code that does not import), False when another rung or another try may succeed.
    """

    code: Name
    message: str
    mend: str = ""
    bundle_at_fault: bool = False

    def __post_init__(self) -> None:
        """Keep its sentences as long as a person reads."""
        shorten(self, "message", "mend")


class Done(Message, frozen=True):
    """The order is carried out."""


class Quantiles(msgspec.Struct, frozen=True):
    """Latency over the recent window, in milliseconds."""

    p50: Span = 0.0
    p90: Span = 0.0
    p99: Span = 0.0
    max: Span = 0.0


class WorkerPong(Message, frozen=True):
    """A worker's figures since it started.

    `executing_s`: how long the request being executed has run, 0.0 when idle; `executing`: the
    ids of those that have run for long. `direct_*`: those of `requests` that did not come through
    the gateway; `batched_requests` were executed together, in `batches`. All `runs` together took
    `executed_s`, the longest of them `longest_s`. `latency` is of those that ended well, from
    arrival to answer, and `stages` where that time went.
    """

    requests: Count = 0
    direct_requests: Count = 0
    direct_errors: Count = 0
    ok: Count = 0
    caller_errors: Count = 0
    internal_errors: Count = 0
    expired: Count = 0
    refused: Count = 0
    queued: Count = 0
    batches: Count = 0
    batched_requests: Count = 0
    executing_s: Span = 0.0
    executing: list[str] = []
    runs: Count = 0
    executed_s: Span = 0.0
    longest_s: Span = 0.0
    latency_ms: Quantiles = Quantiles()
    last_error: str = ""
    latency: Histogram = Histogram()
    stages: dict[Stage, Histogram] = {}

    def __post_init__(self) -> None:
        """Keep the last error as long as a person reads; refuse histograms of another form.

        Raises:
            ValueError: one has too few buckets, or too many.
        """
        shorten(self, "last_error")
        for histogram in (self.latency, *self.stages.values()):
            check_buckets(histogram)


class Records(Message, frozen=True):
    """What a worker or the gateway tells of single requests; sent unasked.

    `left_out`: how many records there was no room for since the last time.
    """

    records: list[RequestRecord]
    left_out: Count = 0


# --- daemon to gateway ------------------------------------------------------------------------


class LaneAddress(msgspec.Struct, frozen=True):
    """Where one worker answers."""

    path: str
    worker_id: int


class Route(Message, frozen=True):
    """From now on `model` is answered by `lanes`; requests that have no answer go there.

    The gateway first reads the old lanes to their end. With no lanes and no `reason` requests
    wait (a swap or a restart is under way); with a `reason` they are answered UNAVAILABLE.
    `waiting`: what to tell those that waited in vain, where there is something to tell.
    """

    model: str
    version: str
    deployment_id: int
    lanes: list[LaneAddress]
    metadata: ModelMetadata
    queue_size: int
    request_timeout_ms: int
    reason: str = ""
    waiting: str = ""


class Prepare(Message, frozen=True):
    """`route` comes next: it holds as soon as every lane there is now has ended with GOODBYE.

    The gateway gets acquainted with the new lanes meanwhile. What follows is the same `Route`, or
    another one, of which nothing is known beforehand.
    """

    route: Route


class Open(Message, frozen=True):
    """Begin to read what clients send; until then it waits in the socket, all routes come first."""


class Unroute(Message, frozen=True):
    """Forget a model; its waiting requests are answered NOT_FOUND."""

    model: str


# --- gateway to daemon ------------------------------------------------------------------------


class GatewayReady(Message, frozen=True):
    """The public socket is bound; sent once, unasked, at the start."""


class Poisoned(Message, frozen=True):
    """A request that ended `deaths` workers was answered with an error; sent unasked."""

    model: str
    deployment_id: int
    request_id: str
    deaths: int = 2


class LaneLost(Message, frozen=True):
    """A lane ended on which a model was answered, and its worker had not said GOODBYE; unasked.

    `reason`: what came there that was no answer; empty where it merely ended.
    """

    model: str
    worker_id: int
    reason: str = ""


class ModelTraffic(msgspec.Struct, frozen=True):
    """The gateway's figures of one model since it started; latency as callers see it.

    `workers`: those that it has a lane to.
    """

    model: str
    requests: int
    answered: int
    errors: int
    waiting: int
    outstanding: int
    redispatched: int
    latency_ms: Quantiles
    latency: Histogram = Histogram()
    workers: list[int] = []


class GatewayPong(Message, frozen=True):
    """The gateway's figures since it started.

    `dropped`: clients given up because they do not read.
    """

    models: list[ModelTraffic]
    malformed: int = 0
    dropped: int = 0


# --- daemon and TCP face ----------------------------------------------------------------------


class ReadClients(Message, frozen=True):
    """Read the folder of clients again, and cut the connections of those no longer in it."""


class TcpReady(Message, frozen=True):
    """All addresses are bound; sent once, unasked, at the start."""


class TcpRefused(Message, frozen=True):
    """Keys, folder or an address cannot be used; sent unasked before the face ends."""

    message: str
    mend: str = ""


class TcpPong(Message, frozen=True):
    """The TCP face's figures since it started.

    `clients` have sent something and are connected now, `connections` counts all; `allowed` is how
    many keys may connect, `cut` how many connections were ended from this side.
    """

    clients: int = 0
    connections: int = 0
    allowed: int = 0
    accepted: int = 0
    refused: int = 0
    cut: int = 0


ToWorker = Load | Prove | Time | Serve | StandBy | Reprove | Ping
FromWorker = Loaded | Proven | Timed | Reproven | Failed | Done | WorkerPong | Records
ToGateway = Route | Prepare | Unroute | Open | Ping
FromGateway = GatewayReady | Done | Failed | Poisoned | LaneLost | GatewayPong | Records
ToTcpFace = ReadClients | Ping
FromTcpFace = TcpReady | TcpRefused | Done | Failed | TcpPong


# --- framing ----------------------------------------------------------------------------------


class CtlError(SuperbrainError):
    """The other end of a control channel sent what is no message: one of the two is broken."""


def encode_message(message: Message) -> bytes:
    """Write one message as it travels: its length and its MessagePack structure."""
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body


class MessageBuffer(Generic[T]):
    """Turns received bytes back into messages: `MessageBuffer(msgpack.Decoder(FromWorker))`."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[T]) -> None:
        self._decoder = decoder
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[T]:
        """Take in received bytes; give the messages that are now whole.

        Raises:
            CtlError: the bytes are no message of the expected kinds, or one beyond the limit.
        """
        self._bytes += data
        messages: list[T] = []
        while len(self._bytes) >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._bytes)
            if size > MAX_MESSAGE_BYTES:
                msg = (
                    f"expected a control message of at most {MAX_MESSAGE_BYTES} bytes, found {size}"
                )
                raise CtlError(msg)
            end = LENGTH.size + size
            if len(self._bytes) < end:
                break
            messages.append(self._decode(bytes(self._bytes[LENGTH.size : end])))
            del self._bytes[:end]
        return messages

    def _decode(self, body: bytes) -> T:
        try:
            return self._decoder.decode(body)
        except UNREADABLE as error:
            raise CtlError(f"expected a control message of this channel, found: {error}") from error
