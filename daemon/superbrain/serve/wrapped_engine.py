"""What those have alike that put something around the runs of an engine: all else is the engine's.

class Counted(WrappedEngine):
def run(self, inputs):
self.runs += 1
return self._run(inputs)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superbrain.engines.port import Bound, Engine


class WrappedEngine:
    """An engine but for `run`, which calls `_run`."""

    def __init__(self, engine: Engine) -> None:
        self._run = engine.run
        self._engine = engine
        self.rung, self.runtime = engine.rung, engine.runtime
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.metadata = engine.metadata

    def bound(self) -> Bound | None:
        """Give the engine's; one that must see every run gives none."""
        return self._engine.bound()

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()
