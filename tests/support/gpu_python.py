"""A Python for daemons under test: the real one, but a worker's process knows the rung `fake:gpu`.

    gpu_python.py -I -m MODULE ARGUMENTS…

The rung counts as one that needs a GPU, and computes with ONNX Runtime's processor provider. It is
made known in the worker's own process, before that closes its sandbox around itself. An input with
`BREAKS` in it breaks the GPU for that process, as ONNX Runtime says it.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from superbrain.domain.manifest import Graph
    from superbrain.engines.onnxruntime import Run
    from superbrain.engines.port import Array, Engine

RUNG = "fake:gpu"
BREAKS = 666.0
BROKEN = "CUDA failure 700: an illegal memory access was encountered ; GPU=0"


class FakeGpu:
    """The runtime of the rung."""

    rungs = (RUNG,)

    def needs_file(self, rung: str) -> bool:
        assert rung == RUNG
        return False

    def unavailable(self, rung: str) -> str:
        assert rung == RUNG
        return ""

    def load(self, rung: str, path: Path, graph: Graph) -> Engine:
        from superbrain.engines.onnxruntime import OnnxRuntime

        engine = OnnxRuntime().load("onnxruntime:cpu", path, graph)
        engine.rung = rung
        engine._runner = breaking(engine._runner)
        return engine


def breaking(run: Run | None) -> Run:
    """Let a session fail at an input with `BREAKS` in it, and ever after."""
    assert run is not None
    broken: list[bool] = []

    def breaks(names: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        if broken or any((one == BREAKS).any() for one in feeds.values()):
            broken.append(True)
            raise RuntimeError(BROKEN)
        return run(names, feeds)

    return breaks


def main() -> None:
    """Do what `python -I -m MODULE ARGUMENTS` does."""
    module, arguments = sys.argv[3], sys.argv[4:]
    if module in ("superbrain.serve.worker_process", "superbrain.serve.fork_server"):
        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy is imported before the sandbox here
        from superbrain.engines import registry

        known = registry.runtimes()
        registry.runtimes = lambda: (FakeGpu(), *known)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
