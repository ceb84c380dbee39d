"""One `Call` for every verb: how its request is written and how its reply is read. No I/O.

The header is written when the request is sent, not before, because the id belongs to the
connection and because the time that is left travels with it and shrinks while it waits. On a lane
neither is in the header, so requests that are alike share one, which is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import index
from typing import Any, Generic, NamedTuple, SupportsIndex, TypeVar

import msgspec

from superbrain.client.arrays import Unsendable, as_array
from superbrain.client.region import Region
from superbrain.client.result import Result, read_result
from superbrain.wire import messages
from superbrain.wire.datatypes import datatype_of, encode_tensor
from superbrain.wire.errors import Internal, InvalidArgument
from superbrain.wire.trace_context import NOT_RECORDED

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

Frame = bytes | memoryview
TensorForm = tuple[str, str, tuple[int, ...]]  # name, datatype, shape
_FORMS = 256
_ALIKE = ("", NOT_RECORDED)  # of any other trace no two requests bear the same header
HIGHEST_PRIORITY = 9
# The gateway counts the header in, and hangs up on a frame beyond its limit.
MAX_INPUT_BYTES = messages.MAX_MESSAGE_BYTES - 2 * messages.MAX_HEADER_BYTES
_encode = msgspec.json.Encoder().encode


class Shared(NamedTuple):
    """The same request with tensors in shared memory, for lanes: regions, header and what is left.

    Attributes:
        regions: memory that the lane has to know before.
        header: writes the JSON header for a request id.
        tensors: frames of the inputs that are not in shared memory.
    """

    regions: Sequence[Region]
    header: Callable[[str], bytes]
    tensors: Sequence[Frame]


class Call(NamedTuple, Generic[T]):
    """One question to the gateway.

    Attributes:
        what: what is asked, for error messages: "model 'orientation'".
        verb: one byte of `wire.messages`.
        header: writes the JSON header for a request id, the milliseconds left (0: not said), and
            whether a worker has died of this request.
        read: reads the reply's header and tensors, given the request's id.
        tensors: frames behind the header.
        model: whose lanes may carry this; "" for what only the gateway can answer.
        priority: 0 to 9; higher goes first.
        shared: how to ask the same by shared memory, where that is possible.
    """

    what: str
    verb: bytes
    header: Callable[[str, int, bool], bytes]
    read: Callable[[Frame, list[memoryview], str], T]
    tensors: Sequence[Frame] = ()
    model: str = ""
    priority: int = 0
    shared: Shared | None = None

    def detached(self) -> Call[T]:
        """Give the same call on copies of the tensors, safe from whoever changes the arrays.

        Who shares memory has been told not to.
        """
        if self.shared is not None:
            return self
        return self._replace(tensors=[bytes(tensor) for tensor in self.tensors])


def infer(
    model: str,
    inputs: Mapping[str, Any],
    *,
    version: str = "",
    outputs: Sequence[str] | None = None,
    priority: int = 0,
    interface: messages.ModelMetadata | None = None,
    traceparent: str = "",
) -> Call[Result]:
    """Ask for one inference; `interface` is needed where `arrays.needs_interface` says so.

    Raises:
        InvalidArgument: an input cannot be sent; they are too many or too large; the priority is
            not 0 to 9; a name is no text.
    """
    check_names(model, version, outputs)
    if type(priority) is not int or not 0 <= priority <= HIGHEST_PRIORITY:
        priority = _checked_priority(priority)
    described: list[TensorForm] = []
    tensors: list[Frame] = []
    for name, value in inputs.items():
        check_text("an input's name", name)
        array = as_array(name, value, interface)
        try:
            described.append((name, datatype_of(array), array.shape))
            tensors.append(encode_tensor(array))
        except (InvalidArgument, UnicodeEncodeError) as error:
            raise Unsendable.of(name, array, error, interface) from error
    _check_size(tensors)
    form = _Form(model, tuple(described), version, tuple(outputs or ()), priority, traceparent)
    what = f"model {model!r}"
    return Call(what, messages.INFER, form.header, read_result, tensors, model, priority)


class _Form(NamedTuple):
    """What the header of an inference request says of it, its id and its time apart."""

    model: str
    tensors: tuple[TensorForm, ...]
    version: str
    outputs: tuple[str, ...]
    priority: int
    traceparent: str

    def header(self, request_id: str, timeout_ms: int, suspect: bool) -> bytes:  # noqa: FBT001
        """Write the header."""
        if timeout_ms or suspect or self.traceparent not in _ALIKE:
            return self.write(request_id, timeout_ms, suspect=suspect)
        return _written(self, request_id)

    def write(self, request_id: str, timeout_ms: int = 0, *, suspect: bool = False) -> bytes:
        """Write the header anew."""
        tensors = [messages.TensorHeader(name, kind, list(sizes)) for name, kind, sizes in self[1]]
        parameters = messages.RequestParameters(
            timeout_ms, self.priority, suspect, self.traceparent
        )
        wanted = [messages.RequestedOutput(name) for name in self.outputs]
        return _encode(
            messages.InferRequest(self.model, tensors, request_id, self.version, parameters, wanted)
        )


@lru_cache(_FORMS)
def _written(form: _Form, request_id: str) -> bytes:
    """Give the header of a request without a time: on a lane there are few different ones."""
    return form.write(request_id)


def last_written(
    write: Callable[[str, int, bool], bytes],
) -> Callable[[str, int, bool], bytes]:
    """Give what writes as `write` does, and keeps the last header without a time."""
    kept: tuple[str | None, bytes] = None, b""

    def header(request_id: str, timeout_ms: int, suspect: bool) -> bytes:  # noqa: FBT001
        nonlocal kept
        if timeout_ms or suspect:
            return write(request_id, timeout_ms, suspect)
        last_id, written = kept
        if request_id != last_id:
            written = write(request_id, 0, False)
            kept = request_id, written
        return written

    return header


def model_metadata(model: str, version: str = "") -> Call[messages.ModelMetadata]:
    """Ask for a model's interface."""
    return _about_model(messages.MODEL_METADATA, model, version, messages.ModelMetadata)


def model_ready(model: str, version: str = "") -> Call[messages.ModelReady]:
    """Ask whether a proven process serves the model right now."""
    return _about_model(messages.MODEL_READY, model, version, messages.ModelReady)


def resolve(model: str) -> Call[messages.Resolved]:
    """Ask on which lanes the model answers."""
    return _about_model(messages.RESOLVE, model, "", messages.Resolved)


def model_list() -> Call[messages.ModelList]:
    """Ask for all models."""
    return _about_server(messages.MODEL_LIST, messages.ModelList)


def server_metadata() -> Call[messages.ServerMetadata]:
    """Ask for the server's name, version and extensions."""
    return _about_server(messages.SERVER_METADATA, messages.ServerMetadata)


def server_live() -> Call[messages.ServerLive]:
    """Ask whether the gateway answers at all."""
    return _about_server(messages.SERVER_LIVE, messages.ServerLive)


def check_text(what: str, text: str) -> None:
    """Refuse what no header can have: something else than text, or text that is not Unicode.

    Raises:
        InvalidArgument: it is so.
    """
    if isinstance(text, str):
        if text.isascii():
            return
        try:
            text.encode()
        except UnicodeEncodeError:
            pass
        else:
            return
    raise InvalidArgument(f"expected text as {what}, found {text!r:.80}")


def check_names(model: str, version: str, outputs: Sequence[str] | None) -> None:
    """Refuse names of a model, its version and its outputs that no header can have.

    Raises:
        InvalidArgument: they are such.
    """
    check_text("a model's name", model)
    if version:
        check_text("a version", version)
    if not outputs:
        return
    if isinstance(outputs, str):
        msg = f"expected a list of outputs' names, found the text {outputs!r:.80}"
        raise InvalidArgument(msg, mend=f"Say outputs=[{outputs!r:.80}]")
    for name in outputs:
        check_text("an output's name", name)


def _checked_priority(priority: object) -> int:
    """Give a priority that is a whole number of another kind, such as numpy's."""
    if isinstance(priority, SupportsIndex) and 0 <= index(priority) <= HIGHEST_PRIORITY:
        return index(priority)
    msg = f"expected a priority of 0 to {HIGHEST_PRIORITY}, a whole number, found {priority!r:.80}"
    raise InvalidArgument(msg)


def _check_size(tensors: Sequence[Frame]) -> None:
    """Refuse here what the gateway would answer by hanging up, again and again."""
    size = 0
    for tensor in tensors:  # a loop, because this is asked before every request
        size += len(tensor)
    if len(tensors) > messages.MAX_TENSORS or size > MAX_INPUT_BYTES:
        msg = (
            f"expected at most {messages.MAX_TENSORS} inputs of together {MAX_INPUT_BYTES} bytes, "
            f"found {len(tensors)} of {size} bytes"
        )
        raise InvalidArgument(msg)


def _about_model(verb: bytes, model: str, version: str, kind: type[S]) -> Call[S]:
    check_names(model, version, None)

    def header(request_id: str, _timeout_ms: int, _suspect: bool) -> bytes:  # noqa: FBT001
        return _encode(messages.ModelQuery(model, request_id, version))

    return Call(f"model {model!r}", verb, header, _reader(kind))


def _about_server(verb: bytes, kind: type[S]) -> Call[S]:
    def header(request_id: str, _timeout_ms: int, _suspect: bool) -> bytes:  # noqa: FBT001
        return _encode(messages.ServerQuery(request_id))

    return Call("the server", verb, header, _reader(kind))


def _reader(kind: type[S]) -> Callable[[Frame, list[memoryview], str], S]:
    def read(header: Frame, _tensors: list[memoryview], _request_id: str) -> S:
        try:
            return msgspec.json.decode(header, type=kind)
        except messages.UNREADABLE as error:
            msg = f"expected {kind.__name__} from the server, found what does not fit: {error}"
            raise Internal(msg, mend="Are client and daemon of the same release?") from error

    return read
