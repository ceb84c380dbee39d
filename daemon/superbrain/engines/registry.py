"""The runtimes this build knows, and which of them makes a given rung.

A new runtime joins by one line in `runtimes`; everybody else asks for a rung by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from superbrain.engines.onnxruntime import OnnxRuntime
from superbrain.engines.port import RungUnavailable
from superbrain.engines.tensorrt import TensorRt
from superbrain.engines.tensorrt_flavour import FLAVOURS
from superbrain.engines.torchscript import TorchScript

if TYPE_CHECKING:
    from superbrain.engines.port import BuiltRuntime, Runtime


def runtimes() -> tuple[Runtime, ...]:
    """Every runtime of this build, whether or not this host can use it."""
    return (OnnxRuntime(), *built_runtimes(), TorchScript())


def built_runtimes() -> tuple[BuiltRuntime, ...]:
    """Those of them whose engines a builder process makes beforehand."""
    return tuple(TensorRt(flavour) for flavour in FLAVOURS.values())


def known_rungs() -> tuple[str, ...]:
    """Every rung that some runtime of this build makes."""
    return tuple(rung for runtime in runtimes() for rung in runtime.rungs)


def runtime_for(rung: str) -> Runtime:
    """Give the runtime that makes `rung`.

    Raises:
        RungUnavailable: no runtime of this build does.
    """
    for runtime in runtimes():
        if rung in runtime.rungs:
            return runtime
    raise RungUnavailable(
        f"expected a rung of this build, {', '.join(known_rungs())}; found {rung!r}",
        mend="Name one of these in the manifest's ladder, or install a build that knows it",
    )


def built_runtime_for(rung: str) -> BuiltRuntime | None:
    """Give the runtime that makes `rung` from built engines; None where none are needed."""
    return next((one for one in built_runtimes() if rung in one.rungs), None)


def available(rung: str) -> str:
    """Say in one sentence why this host cannot run `rung`; empty when it can."""
    try:
        return runtime_for(rung).unavailable(rung)
    except RungUnavailable as error:
        return str(error)
