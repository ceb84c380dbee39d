"""The model behind a fake server: a Python function, its declared interface, and the checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from superbrain.client.arrays import as_array, describe
from superbrain.wire import messages
from superbrain.wire.datatypes import (
    BYTES,
    DATATYPES,
    Array,
    datatype_of,
    decode_tensor,
    encode_tensor,
)
from superbrain.wire.errors import Internal, InvalidArgument, RequestError

Function = Callable[[dict[str, Any]], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class FakeModel:
    """A function that answers, and the interface it is declared with.

    `inputs` and `outputs` are written `DATATYPE[sizes]`, -1 for any size: `{"x": "FP32[-1,3]"}`.
    An empty interface is not checked. `reason` says why the model is not `ready`.
    """

    function: Function
    inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    outputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    version: str = "1.0.0"
    ready: bool = True
    reason: str = ""

    def metadata(self, name: str) -> messages.ModelMetadata:
        """Give the interface as the server announces it."""
        inputs = [parse_tensor(*item) for item in self.inputs.items()]
        outputs = [parse_tensor(*item) for item in self.outputs.items()]
        return messages.ModelMetadata(name, [self.version], "superbrain_fake", inputs, outputs)

    def decode(self, request: messages.InferRequest, tensors: Sequence[bytes]) -> dict[str, Any]:
        """Read and check the inputs; a BYTES tensor of shape [] becomes plain `bytes`.

        Raises:
            InvalidArgument: they contradict their header or the interface.
        """
        if len(request.inputs) != len(tensors):
            msg = f"expected {len(request.inputs)} tensor frames, found {len(tensors)}"
            raise InvalidArgument(msg)
        inputs = {
            tensor.name: decode_tensor(tensor.name, tensor.datatype, tensor.shape, data)
            for tensor, data in zip(request.inputs, tensors, strict=True)
        }
        if self.inputs:
            _check(inputs, self.metadata(request.model_name).inputs)
        return {name: _unwrap(array) for name, array in inputs.items()}

    def run(self, name: str, inputs: dict[str, Any]) -> dict[str, Array]:
        """Call the function; outputs take the datatypes they are declared with.

        Raises:
            RequestError: what the function raised, made `Internal` if it was anything else.
        """
        metadata = self.metadata(name)
        declared = msgspec.structs.replace(metadata, inputs=metadata.outputs)
        try:
            outputs = self.function(inputs)
            if not metadata.outputs:
                return {key: _plain(key, value) for key, value in outputs.items()}
            return {key: as_array(key, value, declared) for key, value in outputs.items()}
        except RequestError:
            raise
        except Exception as error:
            msg = f"model {name!r} failed: {type(error).__name__}: {error}"
            raise Internal(msg) from error

    def encode(
        self, request: messages.InferRequest, outputs: Mapping[str, Array]
    ) -> tuple[messages.InferResponse, list[bytes | memoryview]]:
        """Write the answer, of the outputs that were asked for.

        Raises:
            InvalidArgument: an output was asked for that the function does not give.
        """
        names = [output.name for output in request.outputs] or list(outputs)
        missing = [name for name in names if name not in outputs]
        if missing:
            msg = f"expected outputs of {sorted(outputs)}, found {missing}"
            raise InvalidArgument(msg)
        headers = [
            messages.TensorHeader(name, datatype_of(outputs[name]), list(outputs[name].shape))
            for name in names
        ]
        response = messages.InferResponse(request.model_name, self.version, headers, request.id)
        return response, [encode_tensor(outputs[name]) for name in names]


def parse_tensor(name: str, text: str) -> messages.InterfaceTensor:
    """Read `DATATYPE[sizes]`, as in `FP32[-1,3]` or `BYTES[]`.

    Raises:
        InvalidArgument: it is not written so.
    """
    datatype, bracket, sizes = text.replace(" ", "").partition("[")
    try:
        shape = [int(size) for size in sizes.removesuffix("]").split(",") if size]
    except ValueError:
        shape = None
    if datatype not in DATATYPES or not bracket or not sizes.endswith("]") or shape is None:
        msg = f"tensor {name!r}: expected something like FP32[-1,3] or BYTES[], found {text!r}"
        raise InvalidArgument(msg)
    return messages.InterfaceTensor(name, datatype, shape)


def _check(inputs: Mapping[str, Array], interface: Sequence[messages.InterfaceTensor]) -> None:
    wanted = {tensor.name: tensor for tensor in interface}
    if set(inputs) != set(wanted):
        msg = f"expected the inputs {sorted(wanted)}, found {sorted(inputs)}"
        raise InvalidArgument(msg)
    for name, array in inputs.items():
        tensor = wanted[name]
        same_rank = len(tensor.shape) == array.ndim
        fits = same_rank and all(
            want in {-1, have} for want, have in zip(tensor.shape, array.shape, strict=True)
        )
        found = messages.InterfaceTensor(name, datatype_of(array), list(array.shape))
        if not fits or found.datatype != tensor.datatype:
            msg = f"input {name!r}: expected {describe(tensor)}, found {describe(found)}"
            raise InvalidArgument(msg)


def _unwrap(array: Array) -> Any:  # noqa: ANN401 - bytes or an array
    return array.item() if datatype_of(array) == BYTES and not array.shape else array


def _plain(name: str, value: object) -> Array:
    numbers = isinstance(value, (bool, int, float, list, tuple, np.generic))
    return np.asarray(value) if numbers else as_array(name, value)
