"""Answers one question about a library that may crash, hang or lie, in a process of its own.

    python -I -m superbrain.engines.probe_child cuda
    python -I -m superbrain.engines.probe_child provider:CUDAExecutionProvider

| question | what it does |
|---|---|
| cuda | opens the driver's library, initialises it, asks for its devices |
| library:NAME | imports a runtime or module and reads its version |
| onnxruntime | the same, and the list of providers |
| provider:NAME | runs a small graph on it and looks where it really ran |
| rungs:RUNTIME | asks the runtime why it cannot make each of its rungs |

The answer is one line of JSON on what was standard output; whatever a library prints goes to
standard error, of which the asker keeps the last words. probe.py is the asker.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from superbrain.domain.probe import (
    Cuda,
    Library,
    OnnxRuntimeBuild,
    ProviderTrial,
    RungAnswers,
)
from superbrain.engines import registry
from superbrain.engines.cuda_driver import Driver
from superbrain.engines.onnx_session import import_library
from superbrain.engines.port import RungUnavailable
from superbrain.engines.tensorrt_flavour import FLAVOURS
from superbrain.engines.tiny_graph import LENGTH, tiny_graph

if TYPE_CHECKING:
    from collections.abc import Callable

    from superbrain.domain.probe import Answer

_PROCESSOR: Final = "CPUExecutionProvider"
_ERRORS_ONLY: Final = 3
_MEANINGS: Final = {
    100: "the driver shows no device to this process",
    101: "the device is not valid",
    803: "the driver's library and its kernel module do not fit together: restart the machine",
    804: "this driver is not supported for this device",
    999: "the driver failed, most often because its kernel modules are not loaded",
}


def main() -> None:
    """Answer the question on the command line."""
    answers = os.dup(1)
    os.dup2(2, 1)
    kind, _, name = sys.argv[1].partition(":")
    answer = QUESTIONS[kind](name)
    os.write(answers, msgspec.json.encode(answer) + b"\n")
    # Not through the interpreter's end: what libraries do there may crash, and all has been said.
    sys.stderr.flush()
    os._exit(0)


# --- CUDA ---------------------------------------------------------------------------------------


def ask_cuda(_name: str) -> Cuda:
    """Ask the driver for its devices."""
    try:
        driver = Driver()
    except OSError as error:
        there = "No such file" not in str(error) and "cannot open" not in str(error)
        return Cuda(found=there, error=str(error) if there else "")
    code, version = driver.start(), driver.cuda()
    if code:
        meaning = _MEANINGS.get(code, "see CUresult in the CUDA documentation")
        return Cuda(True, version, f"cuInit answers {code}: {meaning}")
    try:
        return Cuda(True, version, devices=driver.devices())
    except RungUnavailable as error:
        return Cuda(True, version, error.message)


# --- Python libraries ---------------------------------------------------------------------------


def ask_library(name: str) -> Library:
    """Import it by any of its names; nothing of it is made, for without a driver that may crash."""
    first, *others = FLAVOURS[name].modules if name in FLAVOURS else (name,)
    found = _import(first)
    for other in others:
        if found.missing:
            found = _import(other)
    return found


def _import(name: str) -> Library:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == name:
            return Library(missing=True)
        return Library(error=f"{error}")
    except (ImportError, OSError, AttributeError, RuntimeError) as error:
        return Library(error=f"{type(error).__name__}: {error}")
    return Library(version=str(getattr(module, "__version__", "unknown")))


def ask_onnxruntime(_name: str) -> OnnxRuntimeBuild:
    """Import it as the engines do, and read what it says it can."""
    try:
        library = import_library()
    except RungUnavailable as error:
        missing = isinstance(error.__cause__, ModuleNotFoundError)
        return OnnxRuntimeBuild(error=str(error.__cause__ or error), missing=missing)
    return OnnxRuntimeBuild(str(library.__version__), listed=library.get_available_providers())


def ask_provider(name: str) -> ProviderTrial:
    """Run the tiny graph; asked for what it cannot do, the library silently takes the processor."""
    library = import_library()
    if name != _PROCESSOR and hasattr(library, "preload_dlls"):
        library.preload_dlls()  # CUDA's own libraries, where they came as packages
    options = library.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    x = np.arange(LENGTH, dtype=np.float32)
    try:
        session = library.InferenceSession(tiny_graph(), options, providers=[name])
        ran_on = str(session.get_providers()[0])
        (y,) = session.run(["y"], {"x": x})
    except Exception as error:  # noqa: BLE001 - whatever it throws is the answer
        return ProviderTrial(name, error=f"{type(error).__name__}: {error}")
    wrong = "" if np.array_equal(y, x + x) else f"expected {x + x}, computed {y}"
    return ProviderTrial(name, ran_on, wrong)


def ask_rungs(name: str) -> RungAnswers:
    """Ask a runtime for each of its rungs."""
    rungs = [rung for rung in registry.known_rungs() if rung.partition(":")[0] == name]
    return RungAnswers({rung: registry.available(rung) for rung in rungs})


QUESTIONS: Final[dict[str, Callable[[str], Answer]]] = {
    "cuda": ask_cuda,
    "library": ask_library,
    "onnxruntime": ask_onnxruntime,
    "provider": ask_provider,
    "rungs": ask_rungs,
}


if __name__ == "__main__":
    main()
