"""TensorFlow and Keras: SavedModels, frozen graphs, `.keras` and `.h5`.

All of them become one function from a list of tensors to a list of tensors, which answers samples
and which tf2onnx converts: so there is one way to export, whatever the model came as. A Keras model
with a Lambda layer holds Python code, and is loaded only when it is trusted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
import tf2onnx

from .talk import Array, Order, Refused, Tensor, datatype_of

PACKAGES = ("tensorflow-cpu", "tensorflow", "keras", "tf2onnx")
NEWEST_OPSET = 18
SIGNATURE = "serving_default"
_NO_OUTPUT = {"Const", "Placeholder", "NoOp", "Assert"}


class TensorFlowModel:
    """A function of tensors, and what it takes and gives."""

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: list[Tensor],
        specs: list[Any],
        outputs: list[str],
    ) -> None:
        self.inputs, self.outputs, self.notes = inputs, outputs, list[str]()
        self._function = tf.function(function, input_signature=specs)
        self._specs = specs

    def answer(self, inputs: dict[str, Array]) -> list[Array]:
        arrays = [
            tf.constant(array, dtype=spec.dtype)
            for array, spec in zip(inputs.values(), self._specs, strict=True)
        ]
        return [tensor.numpy() for tensor in self._function(*arrays)]

    def export(self, path: Path, opset: int, _: dict[str, list[int]]) -> None:
        tf2onnx.convert.from_function(
            self._function,
            input_signature=self._specs,
            opset=min(opset, NEWEST_OPSET),
            output_path=str(path),
        )


def load(order: Order) -> TensorFlowModel:
    """Load a model of any of the three kinds."""
    makers = {"keras": _keras, "saved_model": _saved_model, "frozen": _frozen}
    return makers[order.kind](order)


def _keras(order: Order) -> TensorFlowModel:
    try:
        model = keras.saving.load_model(order.source, compile=False, safe_mode=not order.trusted)
    except Exception as error:
        if "safe_mode" in str(error) or "ambda" in str(error):
            raise Refused(
                "PICKLE_NOT_TRUSTED", f"{Path(order.source).name} has a Lambda layer"
            ) from error
        raise Refused("FRAMEWORK_LOAD", f"{Path(order.source).name}: {error}") from error
    inputs = [_tensor(one.name, one.shape, one.dtype) for one in model.inputs]
    specs = [
        tf.TensorSpec(one.shape, one.dtype, name=f"input_{at}")
        for at, one in enumerate(model.inputs)
    ]

    def function(*tensors: Any) -> list[Any]:
        given = tensors[0] if len(tensors) == 1 else list(tensors)
        found: list[Any] = keras.tree.flatten(model(given, training=False))
        return found

    return TensorFlowModel(function, inputs, specs, _plain(_output_names(model)))


def _saved_model(order: Order) -> TensorFlowModel:
    loaded = tf.saved_model.load(order.source)
    signatures = dict(loaded.signatures)
    if not signatures:
        raise Refused(
            "FRAMEWORK_LOAD",
            "expected a SavedModel with a signature, found none",
            "Save it with one: model.export(path) in Keras, signatures= in tf.saved_model.save",
        )
    signature = signatures.get(SIGNATURE, next(iter(signatures.values())))
    given = signature.structured_input_signature[1]
    names, outputs = sorted(given), sorted(signature.structured_outputs)
    specs = [
        tf.TensorSpec(given[name].shape, given[name].dtype, name=f"input_{at}")
        for at, name in enumerate(names)
    ]

    def function(*tensors: Any) -> list[Any]:
        found = signature(**dict(zip(names, tensors, strict=True)))
        return [found[name] for name in outputs]

    inputs = [_tensor(name, given[name].shape, given[name].dtype) for name in names]
    model = TensorFlowModel(function, inputs, specs, _plain(outputs))
    model.loaded = loaded  # type: ignore[attr-defined] # its variables live as long as it does
    return model


def _frozen(order: Order) -> TensorFlowModel:
    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(Path(order.source).read_bytes())
    except Exception as error:
        raise Refused("FRAMEWORK_LOAD", f"expected a frozen graph, found: {error}") from error
    used = {name.split(":")[0].lstrip("^") for node in graph.node for name in node.input}
    feeds = [node.name for node in graph.node if node.op == "Placeholder"]
    fetches = [
        node.name for node in graph.node if node.name not in used and node.op not in _NO_OUTPUT
    ]
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
    places = [wrapped.graph.get_tensor_by_name(f"{name}:0") for name in feeds]
    pruned = wrapped.prune(places, [wrapped.graph.get_tensor_by_name(f"{n}:0") for n in fetches])
    said = {one.name: one for one in order.inputs}
    specs = [
        tf.TensorSpec(_known_shape(place, said.get(name)), place.dtype, name=f"input_{at}")
        for at, (name, place) in enumerate(zip(feeds, places, strict=True))
    ]
    inputs = [
        _tensor(name, spec.shape, spec.dtype) for name, spec in zip(feeds, specs, strict=True)
    ]

    def function(*tensors: Any) -> list[Any]:
        return list(pruned(*tensors))

    return TensorFlowModel(function, inputs, specs, _plain(fetches))


def _known_shape(place: Any, said: Tensor | None) -> Any:
    """A frozen graph may have lost a shape; then the author's is taken."""
    if place.shape.rank is not None or said is None:
        return place.shape
    return [size if isinstance(size, int) else None for size in said.shape]


def _tensor(name: str, shape: Any, dtype: Any) -> Tensor:
    kind = tf.as_dtype(dtype)
    if getattr(shape, "rank", 0) is None:
        raise Refused(
            "INPUTS_UNKNOWN",
            f"input {name!r}: expected a known number of dimensions, found none",
            f"Say it: --input {name}=float32[batch,…]",
        )
    sizes: list[int | str] = [
        int(size) if size is not None else ("batch" if axis == 0 else f"{name}_{axis}")
        for axis, size in enumerate(shape)
    ]
    return Tensor(name, datatype_of(kind.as_numpy_dtype), sizes)


def _plain(names: list[str]) -> list[str]:
    """Names without what TensorFlow adds to them; numbered when that makes two the same."""
    short = [name.split(":")[0].rpartition("/")[2] or name for name in names]
    return short if len(set(short)) == len(short) else [f"output_{at}" for at in range(len(names))]


def _output_names(model: Any) -> list[str]:
    """A Keras model's outputs are called after their layers."""
    found = getattr(model, "output_names", None)
    return list(found) if found else [one.name for one in model.outputs]
