"""Reads the figures of all GPUs once, in a process of its own, for whoever must not hang.

python -I -m superbrain.host.gpu_child
"""

from __future__ import annotations

import os

import msgspec

from superbrain.domain.probe import GpuFigures
from superbrain.host.gpu import Gpus


def main() -> None:
    """Print the answer, and end before the driver's library can get into the way."""
    os.write(1, msgspec.json.encode(GpuFigures(Gpus().read())) + b"\n")
    os._exit(0)


if __name__ == "__main__":
    main()
