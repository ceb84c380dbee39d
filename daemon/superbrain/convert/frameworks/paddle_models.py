"""PaddlePaddle inference folders: `NAME.json` (or the older `NAME.pdmodel`) and `NAME.pdiparams`.

paddle2onnx may optimise what it has made, with a tool that installs by itself what it misses. It is
not asked to: every graph is simplified afterwards anyway.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import paddle
import paddle2onnx

from .talk import Array, Order, Refused, Tensor

PACKAGES = ("paddlepaddle", "paddle2onnx")
NEWEST_OPSET = 19
_TYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}


class PaddleModel:
    """A static program with its parameters."""

    def __init__(self, order: Order) -> None:
        self.notes: list[str] = []
        self._model = _model_file(Path(order.source))
        self._old = self._model.suffix == ".pdmodel"
        paddle.enable_static()
        self._executor = paddle.static.Executor(paddle.CPUPlace())
        with self._program_form():
            self._program, self._feeds, self._fetches = paddle.static.load_inference_model(
                str(self._model.with_suffix("")), self._executor
            )
            self.inputs = [self._tensor(name) for name in self._feeds]
        count = len(self._fetches)
        self.outputs = ["output"] if count == 1 else [f"output_{at}" for at in range(count)]

    def answer(self, inputs: dict[str, Array]) -> list[Array]:
        with self._program_form():
            found: list[Array] = self._executor.run(
                self._program,
                feed=dict(zip(self._feeds, inputs.values(), strict=True)),
                fetch_list=self._fetches,
            )
        return found

    def export(self, path: Path, opset: int, _: dict[str, list[int]]) -> None:
        paddle2onnx.export(
            str(self._model),
            str(self._model.with_suffix(".pdiparams")),
            str(path),
            opset_version=min(opset, NEWEST_OPSET),
            enable_optimize=False,
            verbose=False,
        )

    def _program_form(self) -> Any:
        """The older form of programs has to be asked for, around everything that touches one."""
        return paddle.pir_utils.OldIrGuard() if self._old else contextlib.nullcontext()

    def _tensor(self, name: str) -> Tensor:
        shape, dtype = self._declared(name)
        kind = _TYPES.get(str(dtype).rpartition(".")[2].lower())
        if kind is None:
            raise Refused(
                "FRAMEWORK_TYPE", f"input {name!r}: expected {list(_TYPES)}, found {dtype}"
            )
        sizes: list[int | str] = [
            int(size) if size >= 0 else ("batch" if axis == 0 else f"{name}_{axis}")
            for axis, size in enumerate(shape)
        ]
        return Tensor(name, kind, sizes)

    def _declared(self, name: str) -> tuple[list[int], Any]:
        block = self._program.global_block()
        if self._old:
            found = block.var(name)
            return list(found.shape), found.dtype
        for one in block.ops:
            if one.name() == "pd_op.data" and one.attrs()["name"] == name:
                result = one.results()[0]
                return list(result.shape), result.dtype
        raise Refused("FRAMEWORK_LOAD", f"expected the input {name!r} in the program, found none")


def load(order: Order) -> PaddleModel:
    """Load an inference folder."""
    return PaddleModel(order)


def _model_file(folder: Path) -> Path:
    """The program whose parameters lie beside it."""
    for weights in sorted(folder.glob("*.pdiparams")):
        for suffix in (".json", ".pdmodel"):
            if (found := weights.with_suffix(suffix)).exists():
                return found
    raise Refused(
        "FRAMEWORK_LOAD",
        "expected NAME.json or NAME.pdmodel beside NAME.pdiparams, found none",
        "Save it with paddle.jit.save(layer, 'folder/inference', input_spec=[…])",
    )
