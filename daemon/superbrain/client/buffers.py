"""Tensors in shared memory: written once by the program, read where they are by the worker.

>>> with client.buffers("camera", image=(1080, 1920, 3)) as buffers:    # doctest: +SKIP
...     for frame in frames:
...         buffers["image"][:] = frame
...         scores = buffers.infer()["scores"]

The inputs lie in one region, which workers cannot write, the outputs of fixed size in another.
Where there is no lane (TCP, a model on the move, a host at its limits) the same call sends the
tensors inline through the gateway, and answers the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import msgspec

from superbrain.client import calls, tracing
from superbrain.client.alike import LastShared
from superbrain.client.arrays import as_array, describe, find_tensor
from superbrain.client.region import Region
from superbrain.client.result import Result, misfit, read_result, response_form
from superbrain.wire import messages
from superbrain.wire.datatypes import NUMPY_DTYPES, Array, datatype_of, decode_tensor, encode_tensor
from superbrain.wire.errors import DeadlineExceeded, InvalidArgument, RequestError
from superbrain.wire.trace_context import NOT_RECORDED

if TYPE_CHECKING:
    from superbrain.client.asynchronous import AsyncClient
    from superbrain.client.blocking import Client
    from superbrain.wire.messages import InterfaceTensor, ModelMetadata

_ALIGNMENT = 64
_encode = msgspec.json.Encoder().encode


class _Tensors:
    """Some tensors of an interface, side by side in one region."""

    def __init__(self, shapes: Mapping[str, tuple[str, list[int]]], *, writable: bool) -> None:
        self.arrays: dict[str, Array] = {}
        self.places: dict[str, messages.SharedMemory] = {}
        offset = 0
        for name, (datatype, shape) in shapes.items():
            size = math.prod(shape) * NUMPY_DTYPES[datatype].itemsize
            self.places[name] = messages.SharedMemory(0, size, offset)
            offset += size + -size % _ALIGNMENT
        self._shapes = shapes
        self._writable = writable
        self.region = Region(max(offset, 1), writable=writable)
        self._place()

    def renew(self) -> Region:
        """Take fresh memory; give the region that is not used any more."""
        old, self.region = self.region, Region(self.region.size, writable=self._writable)
        self._place()
        return old

    def _place(self) -> None:
        region = self.region
        for name, (datatype, shape) in self._shapes.items():
            place = self.places[name]
            place = messages.SharedMemory(region.number, place.byte_size, place.offset)
            self.places[name] = place
            self.arrays[name] = decode_tensor(name, datatype, shape, self.view(place))

    def view(self, place: messages.SharedMemory) -> memoryview:
        """Give the bytes at `place`."""
        return self.region.memory[place.offset : place.offset + place.byte_size]


class _Releases(Protocol):
    def release(self, regions: Sequence[Region]) -> None:
        """Let go of shared memory, here and in the workers."""


class SharedTensors:
    """What `Buffers` and `AsyncBuffers` have in common; for one thread or task at a time."""

    def __init__(
        self,
        owner: _Releases,
        interface: ModelMetadata,
        shapes: Mapping[str, Sequence[int]],
        *,
        outputs: bool,
    ) -> None:
        for name in shapes:
            find_tensor(name, interface)
        self._owner = owner
        self._model = interface.name
        self._inputs = _Tensors(
            {
                tensor.name: (tensor.datatype, _shape(tensor, shapes.get(tensor.name)))
                for tensor in interface.inputs
                if tensor.datatype in NUMPY_DTYPES
            },
            writable=False,
        )
        fixed = {
            tensor.name: (tensor.datatype, tensor.shape)
            for tensor in interface.outputs
            if outputs and tensor.datatype in NUMPY_DTYPES and min(tensor.shape, default=0) >= 0
        }
        self._outputs = _Tensors(fixed, writable=True) if fixed else None
        self._output_names = [tensor.name for tensor in interface.outputs]
        self._calls: dict[tuple[str, int, str], calls.Call[Result]] = {}
        self._last: LastShared | None = None  # of the usual call
        self._in_doubt = False  # a request that nobody waits for may still write its outputs

    def close(self) -> None:
        """Let go of the memory, here and in the workers."""
        self._owner.release([part.region for part in self._parts])
        self._forget()
        for part in self._parts:
            part.arrays.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __getitem__(self, name: str) -> Array:
        """Give the array of an input, to be written by the caller."""
        try:
            return self._inputs.arrays[name]
        except KeyError:
            known = ", ".join(self._inputs.arrays) or "none"
            raise KeyError(f"no input {name!r} in shared memory; there are: {known}") from None

    @property
    def _parts(self) -> list[_Tensors]:
        return [self._inputs] if self._outputs is None else [self._inputs, self._outputs]

    def _call(
        self, inline: Mapping[str, Any], version: str, priority: int, traceparent: str = ""
    ) -> calls.Call[Result]:
        """Give the call; `inline` holds the inputs that are not in shared memory.

        Without any, a call is the same as the last one: what changes is in the memory.
        """
        if inline or traceparent not in {"", NOT_RECORDED}:
            return self._make_call(inline, version, priority, traceparent)
        key = version, priority, traceparent
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = self._make_call(inline, version, priority, traceparent)
        return call

    def _make_call(
        self, inline: Mapping[str, Any], version: str, priority: int, traceparent: str = ""
    ) -> calls.Call[Result]:
        arrays, places = self._inputs.arrays, self._inputs.places
        extra = {name: as_array(name, value) for name, value in inline.items()}
        plain = calls.infer(
            self._model,
            {**arrays, **extra},
            version=version,
            priority=priority,
            traceparent=traceparent,
        )
        parameters = messages.RequestParameters(traceparent=traceparent)
        tensors = [
            messages.TensorHeader(name, datatype_of(array), list(array.shape), places.get(name))
            for name, array in (*arrays.items(), *extra.items())
        ]
        wanted = []
        if self._outputs is not None:
            rooms = self._outputs.places
            wanted = [
                messages.RequestedOutput(name, rooms.get(name)) for name in self._output_names
            ]

        @lru_cache(1)
        def header(request_id: str) -> bytes:
            return _encode(
                messages.InferRequest(self._model, tensors, request_id, version, parameters, wanted)
            )

        regions = [part.region for part in self._parts]
        frames = [encode_tensor(array) for array in extra.values()]
        return plain._replace(read=self._read, shared=calls.Shared(regions, header, frames))

    def _begin(self) -> None:
        """Begin to ask, on memory that nobody else writes to."""
        if self._in_doubt:  # whoever asked last was interrupted, and again in `_ended`
            self._gave_up()
        self._in_doubt = True

    def _ended(self, error: BaseException) -> None:
        """Take note of what a request has ended with instead of an answer."""
        if not _answered(error):
            self._gave_up()
        self._in_doubt = False

    def _gave_up(self) -> None:
        """Let an answer that comes too late write where nobody looks any more."""
        if self._outputs is not None:
            self._forget()
            self._owner.release([self._outputs.renew()])

    def _forget(self) -> None:
        """Forget calls, which lie on memory that is given away."""
        self._calls.clear()
        self._last = None

    def _usual(self) -> LastShared | None:
        """Give what calls without any argument have in common; None where tensors come inline."""
        if self._last is None and self._outputs is not None:
            call = self._call({}, "", 0)
            if call.shared is not None and not call.shared.tensors:
                self._last = LastShared(call, self._outputs.view)
        return self._last

    def _read(self, header: calls.Frame, tensors: list[memoryview], request_id: str) -> Result:
        """Read an answer whose tensors are partly, or not at all, in shared memory."""
        form = response_form(bytes(header))
        if not any(form.places):
            return read_result(header, tensors, request_id)
        frames = iter(tensors)
        outputs: dict[str, Array] = {}
        try:
            for layout, place in zip(form.layouts, form.places, strict=True):
                outputs[layout.name] = layout.read(self._bytes_of(place, frames))
        except (InvalidArgument, StopIteration) as error:
            raise misfit(repr(error)) from error
        return Result(form.model_name, form.model_version, outputs, request_id)

    def _bytes_of(
        self, place: messages.SharedMemory | None, frames: Iterator[memoryview]
    ) -> memoryview:
        if place is None:
            return next(frames)
        assert self._outputs is not None  # noqa: S101 - nothing was asked for in shared memory else
        return self._outputs.view(place)


class Buffers(SharedTensors):
    """Inputs and outputs of one model in shared memory, for one thread of a `Client`."""

    def __init__(
        self,
        client: Client,
        interface: ModelMetadata,
        shapes: Mapping[str, Sequence[int]],
        *,
        outputs: bool,
    ) -> None:
        super().__init__(client, interface, shapes, outputs=outputs)
        self._client = client

    def infer(
        self,
        *,
        version: str = "",
        timeout: float | None = None,
        priority: int = 0,
        traceparent: str | None = None,
        **inline: object,
    ) -> Result:
        """Ask for one inference on what the arrays hold now.

        Args:
            version: as for `Client.infer`; so are `timeout`, `priority` and `traceparent`.
            timeout: seconds.
            priority: 0 to 9.
            traceparent: the trace it belongs to.
            inline: the inputs that are not in shared memory: those of datatype BYTES.

        Returns:
            The outputs. Those in shared memory are overwritten by the next `infer`: copy what is
            to stay.
        """
        if not (traceparent or tracing.in_use()):
            last = None if inline or version or priority else self._usual()
            return self._ask(self._call(inline, version, priority, ""), last, timeout)
        with tracing.asking(self._model, traceparent) as named:
            trace = self._client.trace(named, timeout)
            return self._ask(self._call(inline, version, priority, trace), None, timeout)

    def _ask(
        self, call: calls.Call[Result], last: LastShared | None, timeout: float | None
    ) -> Result:
        self._begin()
        try:
            result = self._client.ask_shared(call, last, timeout)
        except BaseException as error:
            self._ended(error)
            raise
        self._in_doubt = False
        return result


class AsyncBuffers(SharedTensors):
    """Inputs and outputs of one model in shared memory, for one task of an `AsyncClient`."""

    def __init__(
        self,
        client: AsyncClient,
        interface: ModelMetadata,
        shapes: Mapping[str, Sequence[int]],
        *,
        outputs: bool,
    ) -> None:
        super().__init__(client, interface, shapes, outputs=outputs)
        self._client = client

    async def infer(
        self,
        *,
        version: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - it travels to the server
        priority: int = 0,
        traceparent: str | None = None,
        **inline: object,
    ) -> Result:
        """Ask for one inference on what the arrays hold now; as `Buffers.infer`."""
        if not (traceparent or tracing.in_use()):
            return await self._ask(self._call(inline, version, priority, ""), timeout)
        with tracing.asking(self._model, traceparent) as named:
            trace = await self._client.trace(named, timeout)
            return await self._ask(self._call(inline, version, priority, trace), timeout)

    async def _ask(
        self,
        call: calls.Call[Result],
        timeout: float | None,  # noqa: ASYNC109
    ) -> Result:
        self._begin()
        try:
            result = await self._client.ask_shared(call, timeout)
        except BaseException as error:
            self._ended(error)
            raise
        self._in_doubt = False
        return result


def _answered(error: BaseException) -> bool:
    """Tell whether a request that ended so will not be executed any more."""
    return isinstance(error, RequestError) and not isinstance(error, DeadlineExceeded)


def _shape(tensor: InterfaceTensor, wanted: Sequence[int] | None) -> list[int]:
    """Give the shape of an input's buffer: as wanted, within what the interface allows.

    Raises:
        InvalidArgument: it has another rank or size, or a size is any and none is wanted.
    """
    shape = list(tensor.shape if wanted is None else wanted)
    fits = len(shape) == len(tensor.shape) and all(
        size >= 0 and theirs in {-1, size} for size, theirs in zip(shape, tensor.shape, strict=True)
    )
    if fits:
        return shape
    found = "no shape" if wanted is None else f"{list(wanted)}"
    msg = f"input {tensor.name!r}: expected a shape for {describe(tensor)}, found {found}"
    raise InvalidArgument(msg, mend=f"Say client.buffers(model, {tensor.name}=(...))")
