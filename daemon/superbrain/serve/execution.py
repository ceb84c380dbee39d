"""Requests from lane frame to answer: decode, let the model infer, encode; one, or a batch.

Whatever bundle code raises ends here as a typed error of this one request. Nothing it does short
of ending the process may stop the loop that calls `execute`.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Protocol

import msgspec

from superbrain.serve import child
from superbrain.wire import lane
from superbrain.wire.datatypes import Array, datatype_of, decode_tensor, encode_tensor
from superbrain.wire.errors import (
    Internal,
    InvalidArgument,
    NotFound,
    RequestError,
    SuperbrainError,
)
from superbrain.wire.messages import (
    InferRequest,
    InferResponse,
    TensorHeader,
    decode_header,
    encode_error,
    salvage_id,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from superbrain.domain.manifest import Batching
    from superbrain.domain.proof import Proof
    from superbrain.serve.regions import Regions, Room

    Executing = Callable[[Sequence[int]], None]

_REQUEST = msgspec.json.Decoder(InferRequest)


class ServedModel(Protocol):
    """What a worker serves: an opened bundle on one rung."""

    @property
    def name(self) -> str:
        """Model name as callers address it."""

    @property
    def version(self) -> str:
        """Version that every answer bears."""

    @property
    def runtime(self) -> str:
        """Library and version that run the graphs."""

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the response tensors, in the manifest's order."""

    @property
    def queue_size(self) -> int:
        """How many requests may wait."""

    @property
    def request_timeout_ms(self) -> int:
        """How long a request may take that does not say so itself."""

    @property
    def batching(self) -> Batching:
        """How requests share runs."""

    def infer(self, request: dict[str, Array]) -> Mapping[str, Array]:
        """Answer one request.

        Raises:
            RequestError: the request does not fit, or the model failed on it.
        """

    def infer_together(
        self, requests: Sequence[dict[str, Array]], executing: Executing
    ) -> Sequence[Mapping[str, Array] | BaseException]:
        """Answer several requests, each by its response or what it failed with.

        `executing` is told before every step whose work it is, as positions in `requests`.
        """

    def prove(self) -> Proof:
        """Run every golden case through `infer`."""

    def reprove(self, case: int) -> Proof:
        """Run golden case number `case` through `infer` again; it wraps around.

        Raises:
            StoreError: its files cannot be read any more, so nothing is said about the model.
        """


class Outcome:
    """How one request ended: the frame to send, and the error in it, if it is one."""

    __slots__ = ("buffers", "error")

    def __init__(self, buffers: list[lane.Data], error: RequestError | None) -> None:
        self.buffers = buffers
        self.error = error


class _Question:
    """A request frame, decoded."""

    __slots__ = ("arrays", "id", "number", "rooms", "wanted")

    def __init__(self, model: ServedModel, frame: lane.LaneFrame, regions: Regions) -> None:
        request = decode_header(frame.header, _REQUEST, "an inference request")
        self.id = request.id
        self.number = frame.request_id
        _check_address(model, request)
        self.wanted = _wanted_outputs(model, request)
        self.rooms = regions.rooms(request.outputs)
        self.arrays = _decode_tensors(request.inputs, frame.tensors, regions)

    def answered(self, model: ServedModel, outputs: Mapping[str, Array]) -> Outcome:
        """Encode the response."""
        headers, tensors = _encode_outputs(outputs, self.wanted, self.rooms)
        response = InferResponse(model.name, model.version, headers, self.id)
        header = msgspec.json.encode(response)
        return Outcome(lane.encode(lane.RESPONSE, header, tensors, request_id=self.number), None)


def execute(model: ServedModel, frame: lane.LaneFrame, regions: Regions) -> Outcome:
    """Answer one request frame; never raises, whatever the bundle's code does.

    Args:
        model: what answers.
        frame: the request.
        regions: shared memory of the lane that the request came by.
    """
    try:
        question = _Question(model, frame, regions)
        return question.answered(model, model.infer(question.arrays))
    except BaseException as error:  # noqa: BLE001 - SystemExit of bundle code ends a request, not us
        return _failed(frame, error)


def execute_together(
    model: ServedModel,
    requests: Sequence[tuple[lane.LaneFrame, Regions]],
    executing: Executing,
) -> list[Outcome]:
    """Answer several request frames with as few runs as may be; never raises.

    Args:
        model: what answers.
        requests: frames, each with the shared memory of its lane.
        executing: is told before every step whose work it is, as positions in `requests`.
    """
    questions: dict[int, _Question] = {}
    outcomes: dict[int, Outcome] = {}
    for position, (frame, regions) in enumerate(requests):
        try:
            questions[position] = _Question(model, frame, regions)
        except BaseException as error:  # noqa: BLE001 - as in `execute`
            outcomes[position] = _failed(frame, error)
    positions = list(questions)

    def told(members: Sequence[int]) -> None:
        executing([positions[n] for n in members])

    arrays = [question.arrays for question in questions.values()]
    for position, answer in zip(positions, model.infer_together(arrays, told), strict=True):
        outcomes[position] = _outcome(model, requests[position][0], questions[position], answer)
    return [outcomes[position] for position in range(len(requests))]


def _outcome(
    model: ServedModel,
    frame: lane.LaneFrame,
    question: _Question,
    answer: Mapping[str, Array] | BaseException,
) -> Outcome:
    if isinstance(answer, BaseException):
        return _failed(frame, answer)
    try:
        return question.answered(model, answer)
    except BaseException as error:  # noqa: BLE001 - as in `execute`
        return _failed(frame, error)


def _failed(frame: lane.LaneFrame, error: BaseException) -> Outcome:
    """Answer one request frame with what it failed with."""
    if isinstance(error, RequestError):
        return refuse(frame, error)
    return refuse(frame, _unforeseen(error, salvage_id(frame.header)))


def refuse(frame: lane.LaneFrame, error: RequestError) -> Outcome:
    """Answer one request frame with an error."""
    header = encode_error(error, salvage_id(frame.header))
    return Outcome(lane.encode(lane.ERROR, header, request_id=frame.request_id), error)


def _check_address(model: ServedModel, request: InferRequest) -> None:
    if request.model_name != model.name:
        raise NotFound(f"expected model {model.name!r}, found {request.model_name[:100]!r}")
    if request.model_version and request.model_version != model.version:
        raise NotFound(
            f"model {model.name!r}: expected version {model.version!r}, "
            f"found {request.model_version[:100]!r}",
            mend="Leave model_version out to take whichever serves",
        )


def _wanted_outputs(model: ServedModel, request: InferRequest) -> Sequence[str]:
    if not request.outputs:
        return model.outputs
    wanted = [output.name for output in request.outputs]
    for name in wanted:
        if name not in model.outputs:
            raise InvalidArgument(
                f"expected requested outputs among {list(model.outputs)}, found {name[:100]!r}"
            )
    return wanted


def _decode_tensors(
    headers: Sequence[TensorHeader], tensors: Sequence[memoryview], regions: Regions
) -> dict[str, Array]:
    count = sum(header.parameters is None for header in headers)
    if count != len(tensors):
        raise InvalidArgument(
            f"expected one frame for each of {count} input tensors, found {len(tensors)}"
        )
    frames = iter(tensors)
    arrays: dict[str, Array] = {}
    for header in headers:
        data = _bytes_of(header, frames, regions)
        if header.name in arrays:
            raise InvalidArgument(f"expected each input tensor once, found {header.name!r} twice")
        arrays[header.name] = decode_tensor(header.name, header.datatype, header.shape, data)
    return arrays


def _bytes_of(
    header: TensorHeader, frames: Iterator[memoryview], regions: Regions
) -> memoryview | bytes:
    if header.parameters is None:
        return next(frames)
    return regions.tensor_bytes(header.name, header.datatype, header.parameters)


def _encode_outputs(
    outputs: Mapping[str, Array], wanted: Sequence[str], rooms: Mapping[str, Room]
) -> tuple[list[TensorHeader], list[lane.Data]]:
    """Write the headers, put into shared memory what belongs there; the rest goes in frames."""
    headers: list[TensorHeader] = []
    tensors: list[lane.Data] = []
    for name in wanted:
        array = outputs[name]
        data = encode_tensor(array)
        room = rooms.get(name)
        place = room.put(data) if room is not None else None
        if place is None:
            tensors.append(data)
        headers.append(TensorHeader(name, datatype_of(array), list(array.shape), place))
    return headers, tensors


def _unforeseen(error: BaseException, request_id: str) -> RequestError:
    described = str(error) if isinstance(error, SuperbrainError) else repr(error)
    child.log(
        "request_failed",
        request_id=request_id,
        error=described,
        traceback="".join(traceback.format_exception(error, limit=-8)),
    )
    return Internal(f"expected an answer of the model, its code raised {described[:500]}")
