"""A Python for the children of daemons under test: builders that go wrong, workers without a GPU.

    engine_python.py -I -m MODULE ARGUMENTS…

A **builder** does what the file that `$BUILDER_FAULT` names says, such as `hang building`: one of
`ACTIONS` in one of `PHASES`. With `$BUILDER_LIBRARY = "stub"` it has no library: it finds a GPU and
"builds" a few bytes, at once.

A **worker** has a stand-in for TensorRT for RTX where `$ENGINES_RUN` is set. It takes an engine
that is whole by its own header, and then computes with ONNX Runtime's processor provider. What the
last bytes of an engine say, one of `BENT`, it does instead.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORKERS = ("superbrain.serve.worker_process", "superbrain.serve.fork_server")
PHASES = ("looking", "parsing", "building", "writing")
MAGIC = b"vtrt"
SIZE_AT = 16  # in an engine of TensorRT for RTX 1.7
BENT = (b"<of another GPU>", b"<it drifts away>", b"<crashes badly!>")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _crash() -> None:
    ctypes.string_at(0)


def _hang() -> None:
    threading.Event().wait()


def _eat() -> None:
    """Take more and more memory, and use it; far too much, but not all there is."""
    held = [bytearray(b"x" * (16 << 20)) for _ in range(128)]
    assert held
    _hang()


def _refuse() -> None:
    raise MemoryError("no more of it")


ACTIONS: dict[str, Callable[[], None]] = {
    "die": _die,
    "crash": _crash,
    "hang": _hang,
    "eat": _eat,
    "refuse": _refuse,
}


class Fault:
    """What goes wrong, read once at the start, before the sandbox closes."""

    def __init__(self) -> None:
        path = Path(os.environ.get("BUILDER_FAULT", os.devnull))
        self._action, _, self._phase = (
            path.read_text().partition(" ") if path.exists() else ("",) * 3
        )

    def reached(self, phase: str) -> None:
        """Go wrong if it is time for that."""
        if phase == self._phase:
            ACTIONS[self._action]()


# --- builders -------------------------------------------------------------------------------------


def bend_builder(fault: Fault) -> None:
    """Have the fault happen in its phase, whatever library there is."""
    from superbrain.engines import tensorrt_build, tensorrt_survey

    stub = os.environ.get("BUILDER_LIBRARY") == "stub"
    survey = stub_survey if stub else tensorrt_survey.survey
    build = stub_build if stub else tensorrt_build.build
    write = Path.write_bytes

    def look(flavour: Any) -> Any:  # noqa: ANN401 - as the real one
        fault.reached("looking")
        return survey(flavour)

    def build_and_tell(flavour: Any, order: Any, tell: Callable[[str, float], None]) -> Any:  # noqa: ANN401
        def listen(phase: str, percent: float) -> None:
            tell(phase, percent)
            fault.reached("parsing" if phase == "parsing" else "building")

        return build(flavour, order, listen)

    def write_half_first(path: Path, data: Any) -> int:  # noqa: ANN401
        if path.suffix == ".engine":
            write(path, bytes(data)[: len(data) // 2])
            fault.reached("writing")
        return write(path, data)

    tensorrt_survey.survey = look
    tensorrt_build.build = build_and_tell
    Path.write_bytes = write_half_first  # type: ignore[method-assign, assignment]


def stub_survey(flavour: Any) -> Any:  # noqa: ANN401
    """Find a GPU."""
    from superbrain.domain.engine import EngineHost
    from superbrain.engines.tensorrt_survey import Survey

    host = EngineHost(flavour.runtime, "1.7.1", "Pretended GPU", "8.9", "580.65.06", "13.0")
    return Survey(host, (8, 9))


def stub_build(_flavour: Any, order: Any, tell: Callable[[str, float], None]) -> Any:  # noqa: ANN401
    """Build a few bytes."""
    from superbrain.engines.tensorrt_build import BuiltEngine

    tell("parsing", 0.0)
    tell("tactics", 50.0)
    return BuiltEngine(memoryview(f"an engine of {order.path.name}".encode()), b"")


# --- workers --------------------------------------------------------------------------------------


def bend_worker() -> None:
    """Put the stand-in where TensorRT would be."""
    from superbrain.engines import tensorrt

    tensorrt.TensorRt.load_built = load_built  # type: ignore[method-assign, assignment]


def load_built(_self: Any, rung: str, engine: Any, path: Path, graph: Any) -> Any:  # noqa: ANN401
    """Take an engine as the library would, and compute something else's answers."""
    from superbrain.engines.onnxruntime import OnnxRuntime
    from superbrain.engines.port import EngineRefused
    from superbrain.engines.tensorrt_engine import _read

    data = _read(engine)
    whole = data[:4] == MAGIC and int.from_bytes(data[SIZE_AT : SIZE_AT + 8], "little") == len(data)
    bent = data[-16:]
    if not whole or bent == BENT[0]:
        raise EngineRefused("expected TensorRT for RTX to take the engine, found: it does not fit")
    if bent == BENT[2]:
        _crash()
    loaded = OnnxRuntime().load("onnxruntime:cpu", path, graph)
    loaded.rung = rung
    return Drifting(loaded) if bent == BENT[1] else loaded


class Drifting:
    """An engine whose numbers are not quite right."""

    def __init__(self, engine: Any) -> None:  # noqa: ANN401
        self._engine = engine

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._engine, name)

    def bound(self) -> None:
        """Nothing goes past `run`."""

    def run(self, inputs: Any) -> dict[str, Any]:  # noqa: ANN401
        return {name: array + 0.5 for name, array in self._engine.run(inputs).items()}


def main() -> None:
    """Do what `python -I -m MODULE ARGUMENTS` does."""
    module, arguments = sys.argv[3], sys.argv[4:]
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy is imported before the sandbox here
    if module == "superbrain.serve.builder_process":
        bend_builder(Fault())
    elif module in WORKERS and "ENGINES_RUN" in os.environ:
        bend_worker()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
