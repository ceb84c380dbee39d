"""What every exported ONNX file goes through: names, opset, shapes, simplification, the checker.

Files are read from one place and written to another; nothing is changed where it lies.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto, helper, shape_inference, version_converter

from .talk import Refused, expect_count

OLDEST_OPSET = 13
NEWEST_IR = 10  # what ONNX Runtime 1.24 reads for sure
EXTERNAL_FROM_BYTES = 1_500_000_000  # protobuf ends at two billion


def finish(
    source: str, target: str, inputs: list[str], outputs: list[str], *, simplify: bool
) -> list[str]:
    """Make an ONNX file of an exporter's; give notes of what was done. `declare` ends it.

    Args:
        source: the exporter's file.
        target: where to write the new one.
        inputs: names of the inputs, in order.
        outputs: names of the outputs, in order.
        simplify: fold constants and drop what does nothing.
    """
    model = onnx.load(source)
    model, notes = _upgraded(model)
    _check_single(model.graph)
    rename(model.graph, inputs, outputs)
    if simplify:
        model, note = _simplified(model)
        notes += note
    model = _inferred(model)
    model.ir_version = min(model.ir_version, NEWEST_IR)
    save(model, Path(target))
    return notes


def declare(path: str, shapes: dict[str, list[int | str]]) -> list[str]:
    """Write the sizes of inputs and outputs, and hold the file to the checker.

    Gives notes where the file had said otherwise.
    """
    model = onnx.load(path)
    notes = []
    for value in (*model.graph.input, *model.graph.output):
        was, shape = sizes_of(value), shapes[value.name]
        if was is not None and _contradicts(was, shape):
            notes.append(f"{value.name}: the file declared {was}, seen was {shape}")
        _set_sizes(value, shape)
    if notes:  # what was inferred from a wrong declaration is wrong as well
        del model.graph.value_info[:]
    save(model, Path(path))
    check(Path(path))
    return notes


def sizes_of(value: onnx.ValueInfoProto) -> list[int | str | None] | None:
    """The declared sizes; None when the file declares none."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    return [
        one.dim_value if one.HasField("dim_value") else (one.dim_param or None)
        for one in value.type.tensor_type.shape.dim
    ]


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model; large weights go into one file beside it."""
    beside = path.with_name(f"{path.name}.data")
    beside.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    large = model.ByteSize() > EXTERNAL_FROM_BYTES
    onnx.save(model, path, save_as_external_data=large, location=beside.name if large else None)


def check(path: Path) -> None:
    """Hold a file to the ONNX checker."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as error:
        raise Refused(
            "ONNX_INVALID",
            f"expected a valid ONNX file, found: {' '.join(str(error).split())[:400]}",
            "Export it again with a newer exporter or another opset (--opset)",
        ) from error


def rename(graph: onnx.GraphProto, inputs: list[str], outputs: list[str]) -> None:
    """Give inputs and outputs their names; inner values that bear one of them make way."""
    weights = {one.name for one in graph.initializer}
    given = [one for one in graph.input if one.name not in weights]
    del graph.input[:]
    graph.input.extend(given)
    expect_count("inputs in the graph", inputs, len(graph.input))
    expect_count("outputs of the graph", outputs, len(graph.output))
    _through_identities(graph)
    wanted = {
        one.name: name
        for one, name in zip((*graph.input, *graph.output), (*inputs, *outputs), strict=True)
    }
    taken = set(wanted.values()) - wanted.keys()
    inner = {name for name in _names(graph) if name in taken}
    mapping = wanted | {name: f"{name}__inner" for name in inner}
    _map_names(graph, mapping)


def _through_identities(graph: onnx.GraphProto) -> None:
    """Give every output a value of its own, where it is an input or another output as well."""
    seen = {one.name for one in (*graph.input, *graph.initializer)}
    for at, value in enumerate(graph.output):
        if value.name in seen:
            own = f"{value.name}__out{at}"
            graph.node.append(helper.make_node("Identity", [value.name], [own]))
            value.name = own
        seen.add(value.name)


def _names(graph: onnx.GraphProto) -> set[str]:
    found = {one.name for one in graph.initializer}
    for node in graph.node:
        found.update(node.input, node.output)
        for inner in _subgraphs(node):
            found |= _names(inner)
    return found


def _map_names(graph: onnx.GraphProto, mapping: dict[str, str]) -> None:
    for one in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        one.name = mapping.get(one.name, one.name)
    for node in graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                names[at] = mapping.get(name, name)
        for inner in _subgraphs(node):
            _map_names(inner, mapping)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _check_single(graph: onnx.GraphProto) -> None:
    """Some exporters give two values one name: such a file loads or not, as the runtime likes."""
    seen: set[str] = set()
    for name in (out for node in graph.node for out in node.output if out):
        if name in seen:
            raise Refused(
                "ONNX_NAME_CLASH",
                f"expected every value of the graph to have its own name, found {name!r} twice",
                "Give the model's outputs other names than its inner values have",
            )
        seen.add(name)


def _upgraded(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """Lift an old opset; gives the model, and a note when something was done."""
    version = next((one.version for one in model.opset_import if one.domain in {"", "ai.onnx"}), 0)
    if not version or version >= OLDEST_OPSET:
        return model, []
    try:
        lifted = version_converter.convert_version(model, OLDEST_OPSET)
    except Exception as error:
        return model, [f"opset {version} was kept, for it could not be lifted: {error}"]
    return lifted, [f"opset {version} was lifted to {OLDEST_OPSET}"]


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    if model.ByteSize() > EXTERNAL_FROM_BYTES:
        return model
    try:
        return shape_inference.infer_shapes(model)
    except (shape_inference.InferenceError, RuntimeError):
        return model


def _simplified(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """Simplify a copy, and keep it when it is still sound."""
    try:
        import onnxslim
    except ImportError:
        return model, ["not simplified: onnxslim is not there"]
    before = len(model.graph.node)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy.onnx"
        try:
            save(model, copy)
            slim = onnxslim.slim(str(copy))
        except Exception as error:
            return model, [f"not simplified: {type(error).__name__}: {error}"]
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    if slim is None or _borders(slim) != _borders(model):
        return model, ["not simplified: the simplifier changed inputs or outputs"]
    return slim, [f"simplified from {before} to {len(slim.graph.node)} nodes"]


def _borders(model: onnx.ModelProto) -> list[tuple[str, int]]:
    values = (*model.graph.input, *model.graph.output)
    return [(one.name, one.type.tensor_type.elem_type) for one in values]


def _contradicts(was: list[int | str | None], shape: list[int | str]) -> bool:
    if len(was) != len(shape):
        return True
    return any(isinstance(old, int) and old != new for old, new in zip(was, shape, strict=True))


def _set_sizes(value: onnx.ValueInfoProto, shape: list[int | str]) -> None:
    kind = value.type.tensor_type.elem_type
    if kind == TensorProto.UNDEFINED:
        return
    value.CopyFrom(helper.make_tensor_value_info(value.name, kind, shape))
