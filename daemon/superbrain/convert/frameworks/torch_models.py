"""PyTorch: exported programs, TorchScript, functions that make a module, and pickled modules.

Outputs may be a tensor, a tuple, a list or a dict of them: they are laid flat in PyTorch's own
order, a dict's under its keys. Weights are loaded without running code (`weights_only`), unless the
file is trusted. Nothing trains here: every module is put into evaluation mode.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from .talk import Array, Order, Refused, Tensor, datatype_of

PACKAGES = ("torch", "onnxscript", "safetensors")
_DTYPES = {
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "FP16": torch.float16,
    "FP32": torch.float32,
    "FP64": torch.float64,
}


class TorchModel:
    """A callable module, and how it is exported."""

    def __init__(self, order: Order) -> None:
        self.notes: list[str] = []
        self.dynamic: dict[str, list[int]] = {}
        self._program: Any = None
        self._script = order.kind == "script"
        self._module = self._loaded(order)
        self.inputs = self._inputs(order)
        self.outputs: list[str] = []

    def answer(self, inputs: dict[str, Array]) -> list[Array]:
        with torch.no_grad():
            found = self._module(*map(torch.from_numpy, inputs.values()))
        names, tensors = _flat(found)
        self.outputs = names
        return [tensor.detach().cpu().numpy() for tensor in tensors]

    def export(self, path: Path, opset: int, dynamic: dict[str, list[int]]) -> None:
        if self._script:
            self._export_script_or_say(path, opset, dynamic)
            return
        program = self._program or self._traced(dynamic)
        exported = torch.onnx.export(
            program, dynamo=True, opset_version=max(opset, 18), verbose=False, external_data=False
        )
        if exported is None:
            raise Refused("FRAMEWORK_EXPORT", "expected torch.onnx to give a program, found none")
        exported.save(str(path))

    def save_native(self, path: Path, declaration: str) -> None:
        """Write TorchScript: the file's own code, or what the module is scripted to."""
        if self._program is not None:
            raise Refused(
                "NATIVE_NONE",
                "expected a module that torch.jit.script takes, found an exported program",
                "An exported program goes through ONNX; for --native give TorchScript or "
                "module:function",
            )
        try:
            scripted = self._module if self._script else torch.jit.script(self._module)
            torch.jit.save(scripted, str(path), _extra_files={"superbrain.json": declaration})
        except Exception as error:
            raise Refused(
                "NATIVE_NONE", f"torch.jit.script does not take it: {_first_lines(error)}"
            ) from error

    # --- loading ------------------------------------------------------------------------------

    def _loaded(self, order: Order) -> Any:
        match order.kind:
            case "export":
                self._program = torch.export.load(order.source)
                return self._program.module()
            case "script":
                return torch.jit.load(order.source, map_location="cpu").eval()
            case "function":
                return _made(order)
            case _:
                found = torch.load(order.source, map_location="cpu", weights_only=False)
                return _module(found, order.source)

    def _inputs(self, order: Order) -> list[Tensor]:
        if self._program is not None:
            return self._of_program()
        if order.inputs:
            return order.inputs
        names = [
            name for name in inspect.signature(self._module.forward).parameters if name != "self"
        ]
        example = " ".join(
            f"--input {name}=float32[batch,…]" for name in names if name.isidentifier()
        )
        raise Refused(
            "INPUTS_UNKNOWN",
            "expected to be told the inputs, for this form of model does not know its sizes",
            f"Say them in order: {example or '--input x=float32[batch,3,224,224]'}",
        )

    def _of_program(self) -> list[Tensor]:
        """The inputs of an exported program, a name for each of its symbols, and their bounds."""
        signature = self._program.graph_signature
        values = {node.name: node.meta.get("val") for node in self._program.graph.nodes}
        ranges = {str(symbol): bounds for symbol, bounds in self._program.range_constraints.items()}
        found, names = [], dict[str, str]()
        for name in signature.user_inputs:
            value = values.get(name)
            if not isinstance(value, torch.Tensor):
                raise Refused("FRAMEWORK_TYPE", f"input {name!r}: expected a tensor, found {value}")
            shape: list[int | str] = []
            for axis, size in enumerate(value.shape):
                symbol = str(size)
                if symbol.isdecimal():
                    shape.append(int(symbol))
                    continue
                given = names.setdefault(symbol, "batch" if axis == 0 else f"{name}_{axis}")
                shape.append(given)
                self._remember(given, ranges.get(symbol))
            found.append(Tensor(str(name), datatype_of(_numpy_of(value.dtype)), shape))
        return found

    def _remember(self, name: str, bounds: Any) -> None:
        """Keep the bounds that an exported program declares, when they are of this world."""
        least, most = (str(getattr(bounds, side, "")) for side in ("lower", "upper"))
        if most.isdecimal() and int(most) < 1 << 31:
            least_size = int(least) if least.isdecimal() else 1
            self.dynamic[name] = [least_size, (least_size + int(most)) // 2, int(most)]

    # --- exporting ----------------------------------------------------------------------------

    def _traced(self, dynamic: dict[str, list[int]]) -> Any:
        """Trace the module with sizes that are neither 0 nor 1: tracing takes those for fixed."""
        sizes = {name: max(bounds[1], 2) for name, bounds in dynamic.items()}
        examples = tuple(_example(one, sizes) for one in self.inputs)
        dims = {
            name: torch.export.Dim(name, min=bounds[0], max=bounds[2])
            for name, bounds in dynamic.items()
        }
        shapes = tuple(
            {axis: dims[size] for axis, size in enumerate(one.shape) if isinstance(size, str)}
            for one in self.inputs
        )
        try:
            return torch.export.export(
                self._module, examples, dynamic_shapes=_star(self._module, shapes)
            )
        except Exception as error:
            raise Refused(
                "FRAMEWORK_EXPORT",
                f"torch.export could not trace the module: {_first_lines(error)}",
                "A size that the model's own code fixes or divides cannot be dynamic as it is: "
                "change its bounds with --dynamic, or export it yourself and give the .pt2",
            ) from error

    def _export_script_or_say(self, path: Path, opset: int, dynamic: dict[str, list[int]]) -> None:
        try:
            self._export_script(path, opset, dynamic)
        except Exception as error:
            raise Refused(
                "FRAMEWORK_EXPORT",
                f"torch.onnx could not export the script: {_first_lines(error)}",
                "What ONNX cannot say runs as it is: superbrain convert … --native",
            ) from error

    def _export_script(self, path: Path, opset: int, dynamic: dict[str, list[int]]) -> None:
        sizes = {name: max(bounds[1], 2) for name, bounds in dynamic.items()}
        examples = tuple(_example(one, sizes) for one in self.inputs)
        # Freezing takes dicts apart, which the exporter does not know; the script's branches stay.
        flat = torch.jit.trace(_Flattened(self._module).eval(), examples, check_trace=False)
        torch.onnx.export(
            torch.jit.freeze(flat.eval()),
            examples,
            str(path),
            dynamo=False,
            opset_version=min(opset, 20),
            input_names=[f"input_{at}" for at in range(len(self.inputs))],
            dynamic_axes={
                f"input_{at}": {
                    axis: size for axis, size in enumerate(one.shape) if isinstance(size, str)
                }
                for at, one in enumerate(self.inputs)
            },
        )


class _Flattened(torch.nn.Module):  # type: ignore[misc] # torch has no types here
    """A scripted module whose outputs are one tuple of tensors."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Any) -> Any:
        return tuple(_flat(self.inner(*inputs))[1])


def load(order: Order) -> TorchModel:
    """Load a model of any of the four kinds."""
    return TorchModel(order)


def _made(order: Order) -> Any:
    """Call `module:function` and give its module the weights."""
    name, _, function = order.source.partition(":")
    sys.path.insert(0, order.search)
    try:
        made = getattr(importlib.import_module(name), function)
    except (ImportError, AttributeError) as error:
        raise Refused(
            "FRAMEWORK_LOAD",
            f"expected to import {order.source} from {order.search}, found: {error}",
            "It may import nothing but torch, numpy and modules beside it",
        ) from error
    module = made() if not isinstance(made, torch.nn.Module) else made
    if not isinstance(module, torch.nn.Module):
        raise Refused(
            "FRAMEWORK_LOAD",
            f"{order.source}: expected it to return a Module, found {type(module).__name__}",
        )
    if order.weights:
        _give_weights(module, order)
    return module.eval()


def _give_weights(module: torch.nn.Module, order: Order) -> None:
    weights = _weights(order)
    found = weights.get("state_dict", weights) if isinstance(weights, dict) else weights
    if not isinstance(found, dict):
        raise Refused("FRAMEWORK_LOAD", f"expected a state dict, found {type(found).__name__}")
    wanted = module.state_dict().keys()
    for prefix in ("", "model.", "module.", "net."):
        stripped = {key.removeprefix(prefix): value for key, value in found.items()}
        if stripped.keys() == wanted:
            module.load_state_dict(stripped)
            return
    missing, extra = sorted(wanted - found.keys()), sorted(found.keys() - wanted)
    raise Refused(
        "FRAMEWORK_LOAD",
        f"expected weights for every part of the module and no others, found none for "
        f"{', '.join(missing[:3]) or 'nothing'} and some for {', '.join(extra[:3]) or 'nothing'}",
        "Are these the weights of this module?",
    )


def _weights(order: Order) -> Any:
    if order.weights.endswith(".safetensors"):
        return importlib.import_module("safetensors.torch").load_file(order.weights)
    try:
        return torch.load(order.weights, map_location="cpu", weights_only=not order.trusted)
    except Exception as error:
        if "weights_only" in str(error) and not order.trusted:
            raise Refused("PICKLE_NOT_TRUSTED", Path(order.weights).name) from error
        raise Refused(
            "FRAMEWORK_LOAD", f"{Path(order.weights).name}: {_first_lines(error)}"
        ) from error


def _module(found: Any, source: str) -> torch.nn.Module:
    if isinstance(found, torch.nn.Module):
        return found.eval()
    raise Refused(
        "FRAMEWORK_LOAD",
        f"{Path(source).name}: expected a whole module, found {type(found).__name__}",
        "Weights alone need the code that uses them: superbrain convert module:function --weights "
        + Path(source).name,
    )


def _flat(found: Any) -> tuple[list[str], list[torch.Tensor]]:
    """Names and tensors of whatever a module returned."""
    pairs, _ = pytree.tree_flatten_with_path(found)
    named = [(_path_name(path), value) for path, value in pairs if value is not None]
    if wrong := next((one for one in named if not isinstance(one[1], torch.Tensor)), None):
        raise Refused(
            "FRAMEWORK_ANSWER", f"expected tensors, found {type(wrong[1]).__name__} as {wrong[0]!r}"
        )
    if len(named) == 1:
        return [named[0][0] or "output"], [named[0][1]]
    names = [f"output_{name}" if name.isdecimal() else name for name, _ in named]
    return names, [value for _, value in named]


def _path_name(path: Any) -> str:
    parts = re.findall(r"[A-Za-z0-9_]+", pytree.keystr(path))
    return "_".join(parts)


def _example(one: Tensor, sizes: dict[str, int]) -> torch.Tensor:
    shape = [sizes[size] if isinstance(size, str) else size for size in one.shape]
    dtype = _DTYPES.get(one.datatype)
    if dtype is None:
        raise Refused(
            "FRAMEWORK_TYPE",
            f"input {one.name!r}: expected one of {', '.join(_DTYPES)}, found {one.datatype}",
        )
    return (
        torch.randn(shape).to(dtype) if dtype.is_floating_point else torch.zeros(shape, dtype=dtype)
    )


def _star(module: Any, shapes: tuple[dict[int, Any], ...]) -> Any:
    """Dynamic shapes as torch.export wants them: packed where `forward` takes *args."""
    parameters = inspect.signature(module.forward).parameters.values()
    has_star = any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters)
    return (shapes,) if has_star else shapes


def _numpy_of(dtype: torch.dtype) -> Any:
    try:
        return torch.empty(0, dtype=dtype).numpy().dtype
    except TypeError as error:
        raise Refused(
            "FRAMEWORK_TYPE", f"expected types that numpy holds, found {dtype}"
        ) from error


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:4])[:500] or type(error).__name__
