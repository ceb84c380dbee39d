"""The JSON headers of the inference protocol, as typed structures, and the verbs they go with.

Names and meanings are those of the Open Inference Protocol v2. A message on ZeroMQ is
`[PROTOCOL + verb][header][one frame per tensor]`; on a lane the same header and tensors travel
behind a fixed prefix (`wire.lane`). The full description for strangers is docs/protocol.md.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec

from superbrain.wire.errors import InvalidArgument, RequestError, error_from_code
from superbrain.wire.sentences import sentence

T = TypeVar("T")

# What msgspec raises for bytes that somebody else has written: no JSON or not of the type, a string
# that is no UTF-8, brackets within brackets without end.
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

PROTOCOL = b"SB1"

# Verbs of a request, the fourth byte of the first frame.
INFER = b"I"
MODEL_METADATA = b"M"
MODEL_LIST = b"L"
SERVER_METADATA = b"S"
SERVER_LIVE = b"H"
MODEL_READY = b"R"
RESOLVE = b"W"
# Verbs of a reply.
RESULT = b"r"
ERROR = b"e"

MAX_HEADER_BYTES = 1 << 20
MAX_TENSORS = 1024
MAX_MESSAGE_BYTES = 1 << 28  # header and tensors of one message together
MAX_TIMEOUT_MS = 86_400_000
MAX_ID_CHARACTERS = 4096
MAX_PRIORITY = 9

# A request's id: replies bear it, and it must leave room for the rest of their headers.
Id = Annotated[str, msgspec.Meta(max_length=MAX_ID_CHARACTERS)]


class SharedMemory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a tensor's bytes are, in a region that is registered on the same lane."""

    region: Annotated[int, msgspec.Meta(ge=0)] = msgspec.field(name="shared_memory_region")
    byte_size: Annotated[int, msgspec.Meta(ge=0)] = msgspec.field(name="shared_memory_byte_size")
    offset: Annotated[int, msgspec.Meta(ge=0)] = msgspec.field(
        name="shared_memory_offset", default=0
    )


class TensorHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One tensor of a request or response.

    Its bytes are in shared memory if `parameters` says so, else in a frame; the frames stand in the
    order of the tensors that have one.
    """

    name: str
    datatype: str
    shape: list[int]
    parameters: SharedMemory | None = None


class RequestedOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The name of one output the caller wants, and where to write it; none named means all."""

    name: str
    parameters: SharedMemory | None = None


class RequestParameters(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What a caller may say about one request.

    `timeout_ms`: how long the answer is worth waiting for, at most a day; 0 means the model's own
    limit. `priority`: 0 (default) to 9; higher is served first among those waiting. `suspect`: a
    worker died while it executed this request, which came to it over a lane; a second one is not
    risked twice. `traceparent`: the trace that it belongs to (`wire.trace_context`).
    """

    timeout_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_TIMEOUT_MS)] = 0
    priority: Annotated[int, msgspec.Meta(ge=0, le=MAX_PRIORITY)] = 0
    suspect: bool = False
    traceparent: str = ""


_NO_PARAMETERS = RequestParameters()


class InferRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Header of an inference request."""

    model_name: str
    inputs: list[TensorHeader]
    id: Id = ""
    model_version: str = ""
    parameters: RequestParameters = _NO_PARAMETERS
    outputs: list[RequestedOutput] = []


class Routing(msgspec.Struct, frozen=True):
    """The few fields of an inference request that the gateway reads."""

    model_name: str
    id: Id = ""
    model_version: str = ""
    parameters: RequestParameters = _NO_PARAMETERS


class InferResponse(msgspec.Struct, frozen=True):
    """Header of an answer; `model_version` is written by the process that computed it."""

    model_name: str
    model_version: str
    outputs: list[TensorHeader]
    id: str = ""


class ErrorBody(msgspec.Struct, frozen=True):
    """Why there is no answer: a code of `wire.errors`, a sentence, and what to do about it."""

    code: str
    message: str
    mend: str = ""


class ErrorResponse(msgspec.Struct, frozen=True):
    """Header of a reply that is an error."""

    error: ErrorBody
    id: str = ""


class _OnlyId(msgspec.Struct, frozen=True):
    """What can often still be read of a header that is wrong elsewhere."""

    id: Id = ""


class ModelQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Header of model metadata and model ready requests."""

    model_name: str
    id: Id = ""
    model_version: str = ""


class ServerQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Header of the requests that name no model (list, server metadata, live)."""

    id: Id = ""


class InterfaceTensor(msgspec.Struct, frozen=True):
    """One tensor of a model's interface; -1 in `shape` means any size."""

    name: str
    datatype: str
    shape: list[int]
    description: str = ""


class ModelMetadata(msgspec.Struct, frozen=True):
    """What a caller needs to know of a model: `versions` holds the one that serves."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[InterfaceTensor]
    outputs: list[InterfaceTensor]
    description: str = ""
    id: str = ""


class ModelSummary(msgspec.Struct, frozen=True):
    """One line of the model list; `reason` says why a model is not ready."""

    name: str
    version: str
    ready: bool
    reason: str = ""


class ModelList(msgspec.Struct, frozen=True):
    """Answer to MODEL_LIST."""

    models: list[ModelSummary]
    id: str = ""


class ServerMetadata(msgspec.Struct, frozen=True):
    """Answer to SERVER_METADATA."""

    name: str
    version: str
    extensions: list[str]
    id: str = ""


class ServerLive(msgspec.Struct, frozen=True):
    """Answer to SERVER_LIVE."""

    live: bool
    id: str = ""


class ModelReady(msgspec.Struct, frozen=True):
    """Answer to MODEL_READY: true when a proven process serves the model right now."""

    name: str
    ready: bool
    reason: str = ""
    id: str = ""


class Resolved(msgspec.Struct, frozen=True):
    """Answer to RESOLVE: the lanes on which the model answers; none while it is on the move."""

    name: str
    version: str
    lanes: list[str]
    id: str = ""


def encode_error(error: RequestError, request_id: str = "") -> bytes:
    """Write the header of an error reply."""
    body = ErrorBody(error.code, sentence(error.message), sentence(error.mend))
    return msgspec.json.encode(ErrorResponse(body, request_id))


def decode_error(header: bytes | memoryview) -> RequestError:
    """Read an error reply's header back into the error it stands for."""
    body = msgspec.json.decode(header, type=ErrorResponse).error
    return error_from_code(body.code, body.message, body.mend)


def decode_header(header: bytes | memoryview, kind: msgspec.json.Decoder[T], what: str) -> T:
    """Decode a header strictly.

    Raises:
        InvalidArgument: it is not JSON, or a field is missing, unknown or of the wrong type.
    """
    try:
        return kind.decode(header)
    except UNREADABLE as error:
        msg = f"expected the JSON header of {what}, found one that does not fit: {error}"
        raise InvalidArgument(msg, mend="docs/protocol.md lists the fields") from error


def salvage_id(header: bytes | memoryview) -> str:
    """Read the `id` of a header that does not fit otherwise, for the error reply to bear."""
    try:
        return msgspec.json.decode(header, type=_OnlyId).id
    except UNREADABLE:
        return ""
