"""What the header of an inference request says, checked once for all requests that bear the same.

A local client's requests bear the same header as long as names, datatypes and shapes stay, for the
number of each is in its frame. So a form holds what follows from the header alone: how the frames
become arrays, which outputs are wanted and where they go, and the header of the response.
"""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import msgspec

from superbrain.domain.quantities import bytes_text
from superbrain.transport.packing import packing_for, packing_of
from superbrain.wire import trace_context
from superbrain.wire.datatypes import Array, TensorLayout, datatype_of, encode_tensor
from superbrain.wire.errors import Internal, InvalidArgument, NotFound
from superbrain.wire.messages import (
    MAX_HEADER_BYTES,
    MAX_ID_CHARACTERS,
    MAX_MESSAGE_BYTES,
    InferRequest,
    InferResponse,
    SharedMemory,
    TensorHeader,
    decode_header,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from superbrain.engines.port import Bound
    from superbrain.serve.regions import Regions, Room
    from superbrain.serve.served import ServedModel
    from superbrain.transport.packing import Packing
    from superbrain.wire import lane

    # What is bound to the graph: take its turn, let go, run, inputs, outputs, copies of those.
    Memory = tuple[
        Callable[[bool], bool],
        Callable[[], None],
        Callable[[], object],
        tuple[memoryview, ...],
        tuple[memoryview, ...],
        Callable[[], dict[str, Array]],
    ]
    # How the arrays of a request are made and those of its answer taken apart, the answer's header;
    # with shared memory the bytes of the inputs that are there, and the room of each output; what
    # does without arrays.
    Usual = tuple[
        Packing,
        Packing,
        bytes,
        list[memoryview] | None,
        tuple[memoryview | None, ...] | None,
        Memory | None,
    ]
    _Output = tuple[np.dtype[Any], tuple[int, ...], SharedMemory | None]

_REQUEST = msgspec.json.Decoder(InferRequest)
_MOST_ANSWERS = 256
_ID_BYTES = 4 * MAX_ID_CHARACTERS  # at most, and put into the header afterwards
MOST_ANSWER_BYTES = MAX_MESSAGE_BYTES - 2 * MAX_HEADER_BYTES  # room for header and padding
NO_ROOMS: Mapping[str, Room] = MappingProxyType({})


class RequestForm:
    """What a request header says, checked: good for every request that bears it.

    `fits`: a request of this form has been found to fit the model's interface. `trace`: what its
    caller says it belongs to; `lone`: no other request bears the same header, for the ids in it.
    `shares`: some of its tensors are in shared memory.
    """

    __slots__ = (
        "_answers",
        "_bound",
        "_inputs",
        "_last",
        "_packing",
        "_placed",
        "fits",
        "id",
        "lone",
        "outputs",
        "shares",
        "trace",
        "wanted",
    )

    def __init__(self, model: ServedModel, header: memoryview | bytes) -> None:
        request = decode_header(header, _REQUEST, "an inference request")
        _check_address(model, request)
        self.id = request.id
        self.trace = None
        if request.parameters.traceparent:
            self.trace = trace_context.parse(request.parameters.traceparent)
        self.lone = self.trace is not None and self.trace.known
        self.fits = False
        self.wanted = _wanted_outputs(model, request)
        self.outputs = [output for output in request.outputs if output.parameters is not None]
        self._inputs = [
            (TensorLayout(one.name, one.datatype, one.shape), one.parameters)
            for one in request.inputs
        ]
        self._placed = sum(one.parameters is not None for one in request.inputs)
        self.shares = bool(self._placed or self.outputs)
        self._answers: dict[tuple[_Output, ...], bytes] = {}
        _check_names(request.inputs)
        self._packing: Packing | None = None
        self._bound: tuple[Bound | None, Memory | None] = None, None
        self._last: tuple[Packing | None, bytes] = None, b""

    def arrays(self, tensors: list[memoryview], regions: Regions) -> dict[str, Array]:
        """Give the request's tensors by name, out of its frames and the lane's shared memory."""
        if self._packing is not None:
            arrays = self._packing.unpack(tensors)
            if arrays is not None:
                return arrays
        elif self.fits and not self._placed:  # it comes again, and will come often
            self._packing = packing_for([layout for layout, _ in self._inputs])
        return self._each_array(tensors, regions)

    def _each_array(self, tensors: Sequence[memoryview], regions: Regions) -> dict[str, Array]:
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

    def usual(self, model: ServedModel) -> Usual | None:
        """How a request of this form was answered the last time; None when that says nothing."""
        packing, header = self._last
        if self.shares or self._packing is None or packing is None:
            return None
        memory = self._memory(model, self._packing, packing)
        return self._packing, packing, header, None, None, memory

    def _memory(self, model: ServedModel, unpacking: Packing, packing: Packing) -> Memory | None:
        """Give what is bound to the graph, if that is for requests and answers like these."""
        bound = model.bound()
        if bound is self._bound[0]:
            return self._bound[1]
        memory = None
        if bound is not None:
            names = [one.name for one, _ in self._inputs if one.name in bound.inputs]
            outputs = {name: bound.outputs[name] for name in self.wanted}
            taken = unpacking.pack({name: bound.inputs[name] for name in names})
            given = packing.pack(outputs)
            if taken is not None and given is not None:
                turn, run = bound.turn, bound.run
                copies = partial(_copies, outputs)
                memory = turn.acquire, turn.release, run, tuple(taken), tuple(given), copies
        self._bound = bound, memory
        return memory

    def usual_on(self, model: ServedModel, regions: Regions) -> Usual | None:
        """As `usual`, for tensors in these regions; None where they are not all used in place.

        Raises:
            InvalidArgument: a region is not what the request says.
        """
        packing, header = self._last
        if packing is None:
            return None
        unpacking, placed = self._packing, None
        if self._placed:
            if self._placed < len(self._inputs):
                return None
            unpacking = packing_for([layout for layout, _ in self._inputs])
            placed = regions.in_place(self._inputs)
        if unpacking is None or (self._placed and placed is None):
            return None
        rooms = self.rooms(regions)
        views = [rooms[name].view if name in rooms else None for name in self.wanted]
        memory = self._memory(model, unpacking, packing)
        return unpacking, packing, header, placed, tuple(views) if rooms else None, memory

    def rooms(self, regions: Regions) -> Mapping[str, Room]:
        """Find where outputs have to be written to, by name."""
        return regions.rooms(self.outputs) if self.outputs else NO_ROOMS

    def respond(
        self, model: ServedModel, outputs: Mapping[str, Array], rooms: Mapping[str, Room]
    ) -> tuple[bytes, list[lane.Data]]:
        """Give the header of the response, and what of its tensors is not in shared memory."""
        packing, header = self._last
        if packing is not None and not rooms:
            packed = packing.pack(outputs)
            if packed is not None:
                return header, cast("list[lane.Data]", packed)
        return self._each_output(model, outputs, rooms)

    def _each_output(
        self, model: ServedModel, outputs: Mapping[str, Array], rooms: Mapping[str, Room]
    ) -> tuple[bytes, list[lane.Data]]:
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
        _check_size(sum(map(len, tensors)))
        header = self._answers.get(answer)
        if header is None:
            header = self._header(model, outputs, answer)
            if len(self._answers) < _MOST_ANSWERS:
                self._answers[answer] = header
        if self.fits:
            self._last = packing_of({name: outputs[name] for name in self.wanted}), header
        return header, tensors

    def _header(
        self, model: ServedModel, outputs: Mapping[str, Array], answer: Sequence[_Output]
    ) -> bytes:
        headers = [
            TensorHeader(name, datatype_of(outputs[name]), list(shape), place)
            for name, (_, shape, place) in zip(self.wanted, answer, strict=True)
        ]
        header = msgspec.json.encode(InferResponse(model.name, model.version, headers, self.id))
        if len(header) > MAX_HEADER_BYTES - _ID_BYTES:
            raise Internal(
                f"expected an answer's header in {MAX_HEADER_BYTES} bytes, found {len(header)}",
                mend="Ask for fewer outputs, or let the model give outputs with fewer dimensions",
            )
        return header


def _check_size(size_bytes: int) -> None:
    """Refuse what no peer would take.

    Raises:
        Internal: the tensors are larger than a message may be.
    """
    if size_bytes > MOST_ANSWER_BYTES:
        raise Internal(
            f"expected an answer of at most {bytes_text(MOST_ANSWER_BYTES)} in frames, found "
            f"{bytes_text(size_bytes)}",
            mend="Ask for it in shared memory, or for fewer outputs, or for a smaller answer",
        )


def _copies(outputs: Mapping[str, Array]) -> dict[str, Array]:
    return {name: memory.copy() for name, memory in outputs.items()}


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
    if len(set(wanted)) < len(wanted):
        twice = next(name for name in wanted if wanted.count(name) > 1)
        raise InvalidArgument(f"expected each requested output once, found {twice[:100]!r} twice")
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
