"""What differs between TensorRT 10, TensorRT 11 and TensorRT for RTX: all of it is here.

TensorRT 10 chooses precisions by builder flags and may be told to keep to the ONNX file's types;
version 11 and TensorRT for RTX always keep to them. So `fp16` is a flag on 10 and a property of
the file on the others. Flags travel by name: their numbers have changed between versions.
Source: https://docs.nvidia.com/deeplearning/tensorrt/ and the bindings themselves, which the tests
hold this against.
"""

from __future__ import annotations

import importlib
from typing import Any, Final, NamedTuple

from superbrain.engines.port import RungUnavailable

Capability = tuple[int, int]

PRECISIONS: Final = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
# The first GPUs that compute in a precision; what a runtime itself needs comes on top.
_SINCE: Final[dict[str, Capability]] = {
    "fp32": (5, 0),
    "tf32": (8, 0),
    "fp16": (5, 3),
    "bf16": (8, 0),
    "int8": (6, 1),
    "fp8": (8, 9),
}
# Tensors of one of these types must be in the ONNX file where its types decide.
TYPES_OF: Final[dict[str, str]] = {"fp16": "HALF", "bf16": "BF16", "int8": "INT8", "fp8": "FP8"}
# TensorRT's names of datatypes. numpy has neither BF16 nor FP8, so a manifest calls them FP32 and
# the runner converts.
DATATYPES: Final[dict[str, str]] = {
    "FLOAT": "FP32",
    "HALF": "FP16",
    "BF16": "FP32",
    "FP8": "FP32",
    "INT8": "INT8",
    "UINT8": "UINT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "BOOL": "BOOL",
}
_ALWAYS_STRONGLY_TYPED: Final = 11


class Flavour(NamedTuple):
    """One library of the family.

    `modules`: the names that it may be imported by; `always_typed`: whether every version takes
    its types from the ONNX file; `keeps_timing`: whether timing caches do anything;
    `captures_itself`: whether it captures CUDA graphs inside.
    """

    runtime: str
    title: str
    modules: tuple[str, ...]
    mend: str
    always_typed: bool
    keeps_timing: bool
    captures_itself: bool

    @property
    def rungs(self) -> tuple[str, ...]:
        """The rungs it makes."""
        return tuple(f"{self.runtime}:{precision}" for precision in PRECISIONS)


TENSORRT: Final = Flavour(
    "tensorrt",
    "TensorRT",
    ("tensorrt", "tensorrt_bindings"),
    "Install it with: pip install 'superbrain[tensorrt]'",
    always_typed=False,
    keeps_timing=True,
    captures_itself=False,
)
RTX: Final = Flavour(
    "tensorrt-rtx",
    "TensorRT for RTX",
    ("tensorrt_rtx", "tensorrt_rtx_bindings"),
    "Install it with: pip install 'superbrain[tensorrt-rtx]'",
    always_typed=True,
    keeps_timing=False,
    captures_itself=True,
)
FLAVOURS: Final[dict[str, Flavour]] = {one.runtime: one for one in (TENSORRT, RTX)}


class Recipe(NamedTuple):
    """How a precision is asked for: builder flags on and off, and whether the file's types hold."""

    on: tuple[str, ...]
    off: tuple[str, ...]
    strongly_typed: bool

    @property
    def names(self) -> list[str]:
        """Every flag that is on, for the engine's key."""
        return sorted((*self.on, *(("STRONGLY_TYPED",) if self.strongly_typed else ())))


def flavour_of(rung: str) -> Flavour:
    """Give the library that makes `rung`; the registry has checked that there is one."""
    return FLAVOURS[rung.partition(":")[0]]


def recipe(flavour: Flavour, version: str, precision: str) -> Recipe:
    """Say how one version of a library is asked for a precision."""
    typed = flavour.always_typed or major(version) >= _ALWAYS_STRONGLY_TYPED
    tf32 = () if precision == "fp32" else ("TF32",)
    off = ("TF32",) if precision == "fp32" else ()
    if not typed and precision in {"fp16", "bf16"}:
        return Recipe((*tf32, precision.upper()), off, strongly_typed=False)
    return Recipe(tf32, off, strongly_typed=True)


def major(version: str) -> int:
    """Give the first number of a version."""
    return int(version.partition(".")[0])


def import_library(flavour: Flavour) -> Any:  # noqa: ANN401 - these libraries have no types
    """Import a library; only ever in a process that may crash.

    Raises:
        RungUnavailable: it is not installed, or its libraries do not load.
    """
    said = ""
    for name in flavour.modules:
        try:
            library = importlib.import_module(name)
            _ = library.Builder
        except (ImportError, OSError, AttributeError, RuntimeError) as error:
            said = said or str(error)
        else:
            return library
    raise RungUnavailable(
        f"expected the package {flavour.modules[0]}, found none that works: {said}",
        mend=flavour.mend,
    )


def lacks(flavour: Flavour, precision: str, name: str, capability: Capability) -> str:
    """Say why a GPU cannot run a precision with a library; empty when it can."""
    found = f"found {'.'.join(map(str, capability))} ({name})"
    if flavour is RTX and capability != (7, 5) and capability[0] not in {8, 12}:
        return f"{flavour.title} runs on GPUs of compute capability 7.5, 8.x and 12.x, {found}"
    least = _SINCE[precision]
    if capability < least:
        return f"{precision} needs a GPU of compute capability {least[0]}.{least[1]}, {found}"
    return ""
