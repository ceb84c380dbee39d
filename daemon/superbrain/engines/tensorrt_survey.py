"""What TensorRT this host has and whether it can run a rung, found out in a process of its own.

    python -I -m superbrain.engines.tensorrt_survey tensorrt-rtx

The libraries themselves are imported in that child, where they may crash or hang; whoever asks gets
a sentence. What was found is kept for as long as the asking process lives.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Final

import msgspec

from superbrain.domain.engine import EngineHost
from superbrain.engines.cuda_driver import first_gpu
from superbrain.engines.port import RungUnavailable
from superbrain.engines.tensorrt_flavour import FLAVOURS, Flavour, import_library, lacks

PATIENCE_S: Final = 60.0
_LAST_WORDS: Final = 300


class Survey(msgspec.Struct, frozen=True):
    """A library and the GPU: each with what is wrong with it, empty when nothing is."""

    host: EngineHost
    capability: tuple[int, int] = (0, 0)
    no_library: str = ""
    no_gpu: str = ""
    mend: str = ""

    def unavailable(self, rung: str) -> str:
        """Say in one sentence why `rung` cannot run here; empty when it can."""
        if self.no_library or self.no_gpu:
            return self.no_library or self.no_gpu
        runtime, _, precision = rung.partition(":")
        return lacks(FLAVOURS[runtime], precision, self.host.gpu, self.capability)


def survey(flavour: Flavour) -> Survey:
    """Look at library and GPU in this very process."""
    version, no_library, mend = "", "", ""
    try:
        version = str(import_library(flavour).__version__)
    except RungUnavailable as error:
        no_library, mend = error.message, error.mend
    try:
        gpu = first_gpu()
    except RungUnavailable as error:
        host = EngineHost(flavour.runtime, version)
        return Survey(host, (0, 0), no_library, error.message, mend or error.mend)
    capability = f"{gpu.capability[0]}.{gpu.capability[1]}"
    host = EngineHost(flavour.runtime, version, gpu.name, capability, gpu.driver, gpu.cuda)
    return Survey(host, gpu.capability, no_library, mend=mend)


@functools.cache
def survey_in_child(runtime: str) -> Survey:
    """Have a short child process look; a child that does not come back is an answer too."""
    command = [sys.executable, "-I", "-m", __name__, runtime]
    try:
        ended = subprocess.run(
            command, capture_output=True, timeout=PATIENCE_S, check=False, stdin=subprocess.DEVNULL
        )
        return msgspec.json.decode(ended.stdout, type=Survey)
    except subprocess.TimeoutExpired:
        found = f"it did not come to an end within {PATIENCE_S:g} s"
    except msgspec.DecodeError:
        said = ended.stderr.decode(errors="replace").strip()[-_LAST_WORDS:]
        found = f"the process that looked ended with status {ended.returncode}: {said}"
    message = f"expected {FLAVOURS[runtime].title} to be looked at, found that {found}"
    return Survey(EngineHost(runtime, ""), no_library=message)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(survey(FLAVOURS[sys.argv[1]])))
