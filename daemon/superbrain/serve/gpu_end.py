"""A worker's process ends with its GPU: what CUDA has broken, only another process can use.

As with any worker that dies, what was in flight is sent again, to a fresh one that has proven
itself; a request that breaks the next one too is answered and not tried any more. Answering
instead, each with an error, would go on until a golden case is run again.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from superbrain.engines.port import GpuBroken
from superbrain.serve import child
from superbrain.serve.wrapped_engine import WrappedEngine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from superbrain.engines.port import Array, Engine

GPU_BROKEN = 70  # the exit code


class EndsWithGpu(WrappedEngine):
    """An engine whose process ends when a run has broken the GPU for it."""

    def __init__(self, _graph: str, engine: Engine) -> None:
        super().__init__(engine)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once, or end."""
        try:
            return self._run(inputs)
        except GpuBroken as error:
            sys.stderr.write(f"this process cannot use its GPU any more: {error.message}\n")
            sys.stderr.flush()
            child.end(GPU_BROKEN)
