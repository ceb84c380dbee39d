"""Answers a question of the probe where a worker would have to: behind the sandbox of a GPU's rung.

    python -I -m superbrain.serve.probe_process rungs:onnxruntime

A driver may want more than the sandbox grants; a rung that only works outside of it does not work.
The questions are those of engines/probe_child.py. Nothing may be imported before the sandbox is
closed that starts threads, as numpy does.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from superbrain.domain.sandbox import SandboxPolicy
from superbrain.host.sandbox import confine


def main() -> None:
    """Close the sandbox, then answer the question on the command line."""
    confine(SandboxPolicy(), bundle=Path(__file__).parent, scratch=None, gpu=True)
    importlib.import_module("superbrain.engines.probe_child").main()


if __name__ == "__main__":
    main()
