"""Requests from lane frame to answer: decode, let the model infer, encode; one, or a batch.

Whatever bundle code raises ends here as a typed error of this one request. Nothing it does short
of ending the process may stop the loop that calls.

A local client's requests bear the same header as long as names, datatypes and shapes stay (their
numbers are in the frame), so what a header says is worked out once (`_Form`).
"""

from __future__ import annotations

import traceback
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from superbrain.serve import child
from superbrain.wire import lane
from superbrain.wire.datatypes import Array, TensorLayout, datatype_of, encode_tensor
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
    SharedMemory,
    TensorHeader,
    decode_header,
    encode_error,
    salvage_id,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from superbrain.domain.manifest import Batching
    from superbrain.domain.proof import Proof
    from superbrain.serve.regions import Regions, Room

    Executing = Callable[[Sequence[int]], None]
    _Output = tuple[np.dtype[Any], tuple[int, ...], SharedMemory | None]

_REQUEST = msgspec.json.Decoder(InferRequest)
_MOST_FORMS = 256
_LONGEST_KEPT_BYTES = 4096
_NO_ROOMS: Mapping[str, Room] = MappingProxyType({})


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

    def answer(self, request: dict[str, Array]) -> Mapping[str, Array]:
        """Answer one request whose names, datatypes and shapes are those of one that fits.

        Raises:
            RequestError: the model failed on it.
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


class _Form:
    """What a request header says, checked: good for every request that bears it.

    `fits`: a request of this form has been found to fit the model's interface.
    """

    __slots__ = ("_answers", "_inputs", "_placed", "fits", "id", "outputs", "wanted")

    def __init__(self, model: ServedModel, header: memoryview | bytes) -> None:
        request = decode_header(header, _REQUEST, "an inference request")
        _check_address(model, request)
        self.id = request.id
        self.fits = False
        self.wanted = _wanted_outputs(model, request)
        self.outputs = [output for output in request.outputs if output.parameters is not None]
        self._inputs = [
            (TensorLayout(one.name, one.datatype, one.shape), one.parameters)
            for one in request.inputs
        ]
        self._placed = sum(one.parameters is not None for one in request.inputs)
        self._answers: dict[tuple[_Output, ...], bytes] = {}
        _check_names(request.inputs)

    def arrays(self, tensors: Sequence[memoryview], regions: Regions) -> dict[str, Array]:
        """Give the request's tensors by name, out of its frames and the lane's shared memory."""
        count = len(self._inputs) - self._placed
        if count != len(tensors):
            raise InvalidArgument(
                f"expected one frame for each of {count} input tensors, found {len(tensors)}"
            )
        frames = iter(tensors)
        arrays: dict[str, Array] = {}
        for layout, place in self._inputs:
            if place is None:
                arrays[layout.name] = layout.read(next(frames))
            else:
                data = regions.tensor_bytes(layout.name, layout.datatype, place)
                arrays[layout.name] = layout.read(data)
        return arrays

    def rooms(self, regions: Regions) -> Mapping[str, Room]:
        """Find where outputs have to be written to, by name."""
        return regions.rooms(self.outputs) if self.outputs else _NO_ROOMS

    def respond(
        self, model: ServedModel, outputs: Mapping[str, Array], rooms: Mapping[str, Room]
    ) -> tuple[bytes, list[lane.Data]]:
        """Give the header of the response, and what of its tensors is not in shared memory."""
        tensors: list[lane.Data] = []
        key: list[_Output] = []
        for name in self.wanted:
            array = outputs[name]
            data = encode_tensor(array)
            room = rooms.get(name)
            place = room.put(data) if room is not None else None
            key.append((array.dtype, array.shape, place))
            if place is None:
                tensors.append(data)
        answer = tuple(key)
        header = self._answers.get(answer)
        if header is None:
            header = self._header(model, outputs, answer)
            if len(self._answers) < _MOST_FORMS:
                self._answers[answer] = header
        return header, tensors

    def _header(
        self, model: ServedModel, outputs: Mapping[str, Array], answer: Sequence[_Output]
    ) -> bytes:
        headers = [
            TensorHeader(name, datatype_of(outputs[name]), list(shape), place)
            for name, (_, shape, place) in zip(self.wanted, answer, strict=True)
        ]
        return msgspec.json.encode(InferResponse(model.name, model.version, headers, self.id))


class _Question:
    """A request frame, decoded."""

    __slots__ = ("arrays", "form", "number", "rooms")

    def __init__(self, form: _Form, frame: lane.LaneFrame, regions: Regions) -> None:
        self.form = form
        self.number = frame.request_id
        self.rooms = form.rooms(regions)
        self.arrays = form.arrays(frame.tensors, regions)

    def answered(self, model: ServedModel, outputs: Mapping[str, Array]) -> Outcome:
        """Encode the response."""
        header, tensors = self.form.respond(model, outputs, self.rooms)
        return Outcome(lane.encode(lane.RESPONSE, header, tensors, request_id=self.number), None)


class Execution:
    """Answers request frames with one model. Not thread-safe."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model
        self._forms: dict[bytes, _Form] = {}

    def one(self, frame: lane.LaneFrame, regions: Regions) -> Outcome:
        """Answer one request frame; never raises, whatever the bundle's code does.

        Args:
            frame: the request.
            regions: shared memory of the lane that the request came by.
        """
        model = self._model
        try:
            form = self._form(frame)
            question = _Question(form, frame, regions)
            if form.fits:
                return question.answered(model, model.answer(question.arrays))
            outputs = model.infer(question.arrays)
            form.fits = True
            return question.answered(model, outputs)
        except BaseException as error:  # noqa: BLE001 - SystemExit of bundle code ends a request, not us
            return _failed(frame, error)

    def together(
        self, requests: Sequence[tuple[lane.LaneFrame, Regions]], executing: Executing
    ) -> list[Outcome]:
        """Answer several request frames with as few runs as may be; never raises.

        Args:
            requests: frames, each with the shared memory of its lane.
            executing: is told before every step whose work it is, as positions in `requests`.
        """
        questions: dict[int, _Question] = {}
        outcomes: dict[int, Outcome] = {}
        for position, (frame, regions) in enumerate(requests):
            try:
                questions[position] = _Question(self._form(frame), frame, regions)
            except BaseException as error:  # noqa: BLE001 - as in `one`
                outcomes[position] = _failed(frame, error)
        positions = list(questions)

        def told(members: Sequence[int]) -> None:
            executing([positions[n] for n in members])

        arrays = [question.arrays for question in questions.values()]
        answers = self._model.infer_together(arrays, told)
        for position, answer in zip(positions, answers, strict=True):
            outcomes[position] = self._outcome(requests[position][0], questions[position], answer)
        return [outcomes[position] for position in range(len(requests))]

    def _form(self, frame: lane.LaneFrame) -> _Form:
        """Read a header, or remember it; what the gateway forwards bears an id of its own each."""
        if frame.kind != lane.REQUEST:
            return _Form(self._model, frame.header)
        header = bytes(frame.header)
        form = self._forms.get(header)
        if form is None:
            form = _Form(self._model, header)
            if len(self._forms) >= _MOST_FORMS:
                self._forms.clear()
            if len(header) <= _LONGEST_KEPT_BYTES:
                self._forms[header] = form
        return form

    def _outcome(
        self,
        frame: lane.LaneFrame,
        question: _Question,
        answer: Mapping[str, Array] | BaseException,
    ) -> Outcome:
        if isinstance(answer, BaseException):
            return _failed(frame, answer)
        try:
            return question.answered(self._model, answer)
        except BaseException as error:  # noqa: BLE001 - as in `one`
            return _failed(frame, error)


def _failed(frame: lane.LaneFrame, error: BaseException) -> Outcome:
    """Answer one request frame with what it failed with."""
    if isinstance(error, RequestError):
        return refuse(frame, error)
    return refuse(frame, _unforeseen(error, _called(frame)))


def refuse(frame: lane.LaneFrame, error: RequestError) -> Outcome:
    """Answer one request frame with an error."""
    header = encode_error(error, salvage_id(frame.header))
    return Outcome(lane.encode(lane.ERROR, header, request_id=frame.request_id), error)


def _called(frame: lane.LaneFrame) -> str:
    """Give a request's id for the log: on a client's own lane its number is part of it."""
    request_id = salvage_id(frame.header)
    return f"{request_id}-{frame.request_id}" if frame.kind == lane.REQUEST else request_id


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


def _check_names(headers: Sequence[TensorHeader]) -> None:
    seen: set[str] = set()
    for header in headers:
        if header.name in seen:
            raise InvalidArgument(f"expected each input tensor once, found {header.name!r} twice")
        seen.add(header.name)


def _unforeseen(error: BaseException, request_id: str) -> RequestError:
    described = str(error) if isinstance(error, SuperbrainError) else repr(error)
    child.log(
        "request_failed",
        request_id=request_id,
        error=described,
        traceback="".join(traceback.format_exception(error, limit=-8)),
    )
    return Internal(f"expected an answer of the model, its code raised {described[:500]}")
