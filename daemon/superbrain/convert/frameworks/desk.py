"""What the parent may ask for, one method for each operation."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from . import onnx_file
from .talk import Model, Order, Refused, Tensor, read_inputs, version_of, write_outputs


class Desk:
    """One framework, and the model that it has loaded."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._model: Model | None = None

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry one order out."""
        operation = order.pop("do")
        found: dict[str, Any] = getattr(self, f"do_{operation}")(**order)
        return found

    def do_load(self, **order: Any) -> dict[str, Any]:
        """Load a model and say what it takes and gives."""
        order["inputs"] = [Tensor(**one) for one in order["inputs"]]
        framework = importlib.import_module(f".{self._module}", __package__)
        self._model = model = framework.load(Order(**order))
        return {
            "inputs": [one._asdict() for one in model.inputs],
            "outputs": list(model.outputs),
            "notes": list(model.notes),
            "dynamic": getattr(model, "dynamic", {}),
            "versions": version_of(*framework.PACKAGES, "onnx", "onnxslim"),
        }

    def do_answer(self, samples: list[str]) -> dict[str, Any]:
        """Answer samples, each in its folder."""
        model = self._loaded()
        for sample in map(Path, samples):
            write_outputs(sample, model.answer(read_inputs(sample, model.inputs)))
        return {"outputs": list(model.outputs)}

    def do_export(self, path: str, opset: int, dynamic: dict[str, list[int]]) -> dict[str, Any]:
        """Write the model as ONNX."""
        model = self._loaded()
        before = len(model.notes)
        model.export(Path(path), opset, dynamic)
        return {"outputs": list(model.outputs), "notes": model.notes[before:]}

    def do_native(self, path: str, declaration: str) -> dict[str, Any]:
        """Write the model in its framework's own form, with what is declared of it."""
        model = self._loaded()
        save = getattr(model, "save_native", None)
        if save is None:
            raise Refused("NATIVE_NONE", "expected a model of torch for --native, found another")
        save(Path(path), declaration)
        return {}

    def do_finish(self, **options: Any) -> dict[str, Any]:
        """Rename, simplify and check an ONNX file."""
        return {"notes": onnx_file.finish(**options)}

    def do_declare(self, **options: Any) -> dict[str, Any]:
        """Write the sizes that were seen into an ONNX file."""
        return {"notes": onnx_file.declare(**options)}

    def _loaded(self) -> Model:
        if self._model is None:
            raise Refused("FRAMEWORK_ORDER", "expected a loaded model, found none")
        return self._model
