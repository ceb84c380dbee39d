"""The answer to one inference request: its output tensors by name, and which version gave them.

>>> result = client.infer("orientation", {"image": jpeg})     # doctest: +SKIP
>>> result.model_version, result["scores"].argmax(), result.text("label")    # doctest: +SKIP
('1.2.0', 0, 'upright')
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

import msgspec

from superbrain.transport.packing import Packing, packing_for
from superbrain.wire.datatypes import Array, TensorLayout
from superbrain.wire.errors import Internal, InvalidArgument
from superbrain.wire.messages import UNREADABLE, InferResponse
from superbrain.wire.naming import without_id

_RESPONSE = msgspec.json.Decoder(InferResponse)
_FORMS = 256


class Result(Mapping[str, Array]):
    """Output tensors by name, in the model's order.

    `result["scores"]` is always a numpy array. A BYTES tensor is an object array of `bytes`, also
    when it has shape []; `bytes` and `text` unwrap a tensor of one element. Arrays of numbers are
    writable and belong to the caller; they lie on the memory the answer was received in.
    """

    __slots__ = ("_outputs", "id", "model_name", "model_version")

    def __init__(
        self, model_name: str, model_version: str, outputs: Mapping[str, Array], id: str = ""
    ) -> None:
        self.model_name = model_name
        self.model_version = model_version
        self.id = id
        self._outputs = dict(outputs)

    def __getitem__(self, name: str) -> Array:
        try:
            return self._outputs[name]
        except KeyError:
            msg = f"no output {name!r}; this answer has: {', '.join(self._outputs) or 'none'}"
            raise KeyError(msg) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __repr__(self) -> str:
        outputs = ", ".join(f"{k}: {v.dtype}{list(v.shape)}" for k, v in self._outputs.items())
        return f"<Result of {self.model_name} {self.model_version} {{{outputs}}}>"

    def bytes(self, name: str) -> bytes:
        """Give the one element of a BYTES output.

        Raises:
            KeyError: there is no such output.
            InvalidArgument: it holds numbers, or not exactly one element.
        """
        array = self[name]
        if array.dtype != object or array.size != 1:
            msg = (
                f"output {name!r}: expected a BYTES tensor of one element, "
                f"found {array.dtype} of shape {list(array.shape)}"
            )
            raise InvalidArgument(msg, mend=f"result[{name!r}] is the array")
        element: bytes = array.item()
        return element

    def text(self, name: str) -> str:
        """Give the one element of a BYTES output as text (UTF-8).

        Raises:
            KeyError: there is no such output.
            InvalidArgument: as for `bytes`, or it is not UTF-8.
        """
        try:
            return self.bytes(name).decode()
        except UnicodeDecodeError as error:
            msg = f"output {name!r}: expected UTF-8, found {error.object[:20]!r}…"
            raise InvalidArgument(msg, mend=f"result.bytes({name!r}) gives it as it is") from error


class ResponseForm:
    """What the header of a response says, read once for all answers that bear the same."""

    __slots__ = ("_comes_again", "_packing", "layouts", "model_name", "model_version", "places")

    def __init__(self, response: InferResponse) -> None:
        self.model_name = response.model_name
        self.model_version = response.model_version
        self.layouts = [TensorLayout(one.name, one.datatype, one.shape) for one in response.outputs]
        self.places = [one.parameters for one in response.outputs]
        self._packing: Packing | None = None
        self._comes_again = False

    @property
    def packing(self) -> Packing | None:
        """How its tensors become arrays in one step: made when the header comes a second time."""
        if self._packing is None:
            if self._comes_again:
                self._packing = packing_for(self.layouts)
            self._comes_again = True
        return self._packing


def response_form(header: bytes) -> ResponseForm:
    """Read the header of a response, of which there are few different ones but for the id.

    Raises:
        Internal: it contradicts itself or the protocol.
    """
    return form_without_id(without_id(header)[0])


@lru_cache(_FORMS)
def form_without_id(header: bytes) -> ResponseForm:
    """As `response_form`, for a header whose id has been taken out."""
    try:
        return ResponseForm(_RESPONSE.decode(header))
    except (*UNREADABLE, InvalidArgument) as error:
        raise misfit(error) from error


def read_result(header: bytes | memoryview, tensors: list[memoryview], request_id: str) -> Result:
    """Read the reply to the inference request of that id.

    Raises:
        Internal: the server's answer contradicts itself or the protocol.
    """
    form = response_form(bytes(header))
    packing = form.packing
    if packing is not None:
        arrays = packing.unpack(tensors)
        if arrays is not None:
            return Result(form.model_name, form.model_version, arrays, request_id)
    layouts = form.layouts
    if len(layouts) != len(tensors):
        raise misfit(f"expected {len(layouts)} output frames, found {len(tensors)}")
    outputs: dict[str, Array] = {}
    try:
        for layout, data in zip(layouts, tensors, strict=True):
            outputs[layout.name] = layout.read(data)
    except InvalidArgument as error:
        raise misfit(error) from error
    return Result(form.model_name, form.model_version, outputs, request_id)


def misfit(found: object) -> Internal:
    """Say that an answer is none of this protocol."""
    msg = f"the server's answer does not fit the protocol: {found}"
    return Internal(msg, mend="Are client and daemon of the same release?")
