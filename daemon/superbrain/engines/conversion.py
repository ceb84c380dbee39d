"""ONNX files in another precision, made by AutoCast or by the converters that ONNX Runtime brings.

    fp16   AutoCast where it is installed, else every float32 inside becomes float16; inputs and
           outputs keep their datatype
    int8   static quantisation with QDQ nodes, calibrated with real inputs

Neither is right for every graph: fp16 overflows beyond 65504, int8 has 256 steps. What comes out is
measured and proven before anybody believes it, and it is told which converter made it: they give
different numbers. For authors: needs the package `onnx`. All of them write to `target` and only
read `source`; callers give them a copy all the same.
Sources: https://onnxruntime.ai/docs/performance/model-optimizations/float16.html,
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec

from superbrain.engines import autocast
from superbrain.engines.port import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from superbrain.engines.port import Array

    Samples = Sequence[Mapping[str, Array]]
    Converter = Callable[[Path, Path, Samples], "Made"]

#: From this opset on a scale for each channel of a weight can be written.
_PER_CHANNEL_OPSET: Final = 13


class Made(msgspec.Struct, frozen=True):
    """Which converter wrote a file, with its version; `note`: why not the one that was to."""

    converter: str = ""
    note: str = ""


def convert(
    precision: str, source: Path, target: Path, samples: Samples, *, light: bool = False
) -> Made:
    """Write the graph of `source` in another precision to `target`, and say by what.

    Args:
        precision: one of `CONVERTERS`.
        source: an ONNX file, with its external data beside it.
        target: where to write.
        samples: inputs of the graph as it gets them: int8 is calibrated with them, AutoCast sees
            from them what would leave the range of float16.
        light: fp16 without AutoCast, though it may be installed.

    Raises:
        EngineError: the converter refused, and what it said.
    """
    try:
        converter = CONVERTERS[precision]
        if light and precision == "fp16":
            converter = _rounded
        return converter(source, target, samples)
    except EngineError:
        raise
    except Exception as error:  # whatever a converter throws, the graph is not convertible
        found = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise EngineError(
            f"{source.name}: expected a graph that converts to {precision}, found {found}",
            mend="Convert it with the framework it comes from, and add the file yourself",
        ) from error


def mend_of(precision: str, *, light: bool) -> str:
    """Say what may help when the process that converts has ended or does not end."""
    without = precision == "fp16" and not light and autocast.installed_version()
    return "Make it without AutoCast: --light" if without else ""


def _to_fp16(source: Path, target: Path, samples: Samples) -> Made:
    """Convert with AutoCast, or by rounding where it is missing or fails."""
    version = autocast.installed_version()
    if not version:
        return _rounded(source, target, samples)
    name = f"AutoCast, {autocast.PACKAGE} {version}"
    try:
        autocast.cast(source, target, samples)
    except autocast.AutoCastFailed as error:
        note = f"{name}, is installed and did not convert {source.name}: {error}"
        return msgspec.structs.replace(_rounded(source, target, samples), note=note)
    return Made(name)


def _rounded(source: Path, target: Path, _samples: Samples) -> Made:
    onnx = importlib.import_module("onnx")
    float16 = importlib.import_module("onnxruntime.transformers.float16")
    onnx.save(float16.convert_float_to_float16(onnx.load(source), keep_io_types=True), target)
    return Made(f"rounding, {_runtime()}")


def _to_int8(source: Path, target: Path, samples: Samples) -> Made:
    """Quantise: symmetric, so that TensorRT takes the file too, weights to seven of eight bits.

    With all eight, processors without VNNI add pairs of products in 16 bits, which saturate: the
    same file would then give other answers on other hosts.
    """
    if not samples:
        raise EngineError(
            f"{source.name}: expected golden cases that run through this graph, found none",
            mend="Record golden cases first: int8 is calibrated with them",
        )
    quantization = importlib.import_module("onnxruntime.quantization")
    prepared = target.with_suffix(".prepared")
    logging.getLogger().setLevel(logging.ERROR)  # it recommends what has just been done
    _prepare(source, prepared)
    int8 = quantization.QuantType.QInt8
    try:
        quantization.quantize_static(
            str(prepared),
            str(target),
            _reader(quantization, samples),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=_opset(source) >= _PER_CHANNEL_OPSET,
            reduce_range=True,
            activation_type=int8,
            weight_type=int8,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )
    finally:
        prepared.unlink(missing_ok=True)
    return Made(f"static quantisation, {_runtime()}")


def _runtime() -> str:
    """Name ONNX Runtime, of whichever of its builds: `onnxruntime 1.31.1`."""
    return f"onnxruntime {importlib.import_module('onnxruntime').__version__}"


def _prepare(source: Path, target: Path) -> None:
    """Fold what can be folded, and write down the shapes that the quantiser needs to know."""
    shapes = importlib.import_module("onnxruntime.quantization.shape_inference")
    shapes.quant_pre_process(str(source), str(target), skip_symbolic_shape=True)


def _opset(source: Path) -> int:
    onnx = importlib.import_module("onnx")
    model = onnx.load(source, load_external_data=False)
    return max(int(one.version) for one in model.opset_import if one.domain in {"", "ai.onnx"})


def _reader(quantization: Any, samples: Samples) -> Any:  # noqa: ANN401 - no types
    """Give samples as the quantiser asks for them: one by one, None at the end."""
    waiting = iter(samples)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Mapping[str, Array] | None:
            return next(waiting, None)

    return Reader()


CONVERTERS: Final[Mapping[str, Converter]] = {"fp16": _to_fp16, "int8": _to_int8}
