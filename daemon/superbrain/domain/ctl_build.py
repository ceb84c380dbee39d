"""What the daemon says to a builder over its control channel, and what it answers.

A builder lives for the engines of one bundle on one rung. It finds out what this host builds with,
the daemon says which engines it lacks, and the builder writes each into its scratch folder; what
becomes of them is the daemon's affair. Framing is that of `domain.ctl`.

    Survey -> Surveyed | Failed    it closes its sandbox and looks at runtime and GPU
    Build -> Built | Failed        it builds one graph's engine, telling `BuildProgress` meanwhile

There is no order to stop: the end of the channel ends the process, whatever it is doing.
"""

from __future__ import annotations

from typing import Final

from superbrain.domain.ctl import Failed, Message
from superbrain.domain.engine import EngineHost, Priority, Profile
from superbrain.domain.sandbox import Sandbox, SandboxPolicy
from superbrain.domain.told import Name, Span, shorten

# Names in the scratch folder: both sides know them, so that neither has to believe the other.
ENGINE_SUFFIX: Final = ".engine"
MEASURED: Final = "measured"


class Survey(Message, frozen=True):
    """Look at what `rung` needs on this host."""

    rung: str
    bundle_path: str
    manifest_sha256: str
    scratch_path: str
    priority: Priority = "idle"
    sandbox: SandboxPolicy = SandboxPolicy()


class Surveyed(Message, frozen=True):
    """What the builder has found.

    `unavailable`: in a sentence, why this host cannot run the rung's engines; empty when it can.
    `flags`: names of the builder flags that the rung stands for; `keeps_timing`: whether a timing
    cache makes its next build shorter.
    """

    host: EngineHost
    flags: list[Name]
    keeps_timing: bool
    unavailable: str = ""
    mend: str = ""
    sandbox: Sandbox = Sandbox()

    def __post_init__(self) -> None:
        """Keep its sentences as long as a person reads."""
        shorten(self, "unavailable", "mend")


class Build(Message, frozen=True):
    """Build the engine of `graph` between the shapes of `profiles`.

    `measured`: whether what earlier builds have measured lies in the scratch folder.
    """

    graph: str
    profiles: list[Profile]
    workspace_mib: int
    time_limit_s: float
    measured: bool = False


class BuildProgress(Message, frozen=True):
    """How far a build is; sent unasked, a few times a second at most."""

    graph: str
    phase: str
    percent: Span
    elapsed_s: Span

    def __post_init__(self) -> None:
        """Keep the phase as long as a person reads: it may name many fused layers."""
        shorten(self, "phase")


class Built(Message, frozen=True):
    """The engine lies in the scratch folder, and what was measured if `measured`."""

    seconds: Span
    measured: bool = False


ToBuilder = Survey | Build
FromBuilder = Surveyed | BuildProgress | Built | Failed
