"""TensorRT and TensorRT for RTX as runtimes: rungs `tensorrt:…` and `tensorrt-rtx:…`.

Their engines are built beforehand, by a builder process on this very host; a worker loads what was
built, and no ONNX file. Nothing here imports the libraries: whether this host can use them is asked
in a child process, and a worker meets them in `load_built`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from superbrain.engines.port import RungUnavailable
from superbrain.engines.tensorrt_outlook import outlook
from superbrain.engines.tensorrt_survey import survey_in_child

if TYPE_CHECKING:
    from pathlib import Path

    from superbrain.domain.engine import EngineFile
    from superbrain.domain.manifest import Graph
    from superbrain.engines.port import Engine
    from superbrain.engines.tensorrt_flavour import Flavour


class TensorRt:
    """One of the two libraries as a runtime."""

    def __init__(self, flavour: Flavour) -> None:
        self._flavour = flavour

    @property
    def rungs(self) -> tuple[str, ...]:
        return self._flavour.rungs

    def needs_file(self, rung: str) -> bool:
        """No: the builder looks at the types in whatever file there is, or makes the precision."""
        del rung
        return False

    def unavailable(self, rung: str) -> str:
        return survey_in_child(self._flavour.runtime).unavailable(rung)

    def load(self, rung: str, path: Path, graph: Graph) -> NoReturn:
        del graph
        raise RungUnavailable(
            f"{path.name}: expected an engine that a builder has made for {rung}, found none",
            mend="Drop the bundle into a host's inbox: its daemon has the engine built",
        )

    def outlook(self) -> str:
        return outlook(self._flavour.modules)

    def load_built(self, rung: str, engine: EngineFile, path: Path, graph: Graph) -> Engine:
        from superbrain.engines.tensorrt_engine import open_engine  # only where it is used

        return open_engine(self._flavour, rung, engine, path, graph)
