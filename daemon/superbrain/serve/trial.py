"""Trying a bundle on a rung in a process of its own, as a worker would, without serving it.

An author learns with it what a host would find. Bundle code and native libraries run in the
child: when they crash or hang, that is a finding, not the end of the command.

The child is `python -I -m superbrain.serve.trial RESULT`: it reads one `Order` from standard
input, writes one `Trial` to the file RESULT, and what bundle code prints goes to standard error.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from superbrain.domain.manifest import Manifest
from superbrain.domain.proof import Proof
from superbrain.serve.model import Model
from superbrain.serve.proving import prove
from superbrain.serve.timing import time_requests
from superbrain.wire.errors import SuperbrainError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_STANDARD_ERROR = 2


class Order(msgspec.Struct, frozen=True):
    """What the child is to try: the bundle in `folder`, whose manifest this is, on `rung`.

    `timed`: also say how long a request takes, if it proves; `packages`: a further place of
    packages, after all others.
    """

    folder: str
    manifest: Manifest
    rung: str
    timed: bool = False
    packages: str = ""


class Trial(msgspec.Struct, frozen=True):
    """What came of it: a proof, passed or not, or the error that came before one."""

    rung: str
    proof: Proof | None = None
    error: str = ""
    mend: str = ""

    @property
    def median_ms(self) -> float:
        """How long a request takes; 0.0 where it was not timed."""
        timing = self.proof.timing if self.proof is not None else None
        return timing.median_ms if timing else 0.0

    @property
    def passed(self) -> bool:
        """True when the bundle may serve on this rung."""
        return self.proof is not None and self.proof.passed

    @property
    def reason(self) -> str:
        """Why it did not pass, in a sentence; empty when it did."""
        return self.proof.first_failure if self.proof is not None else self.error


def try_ladder(folder: Path, manifest: Manifest) -> Iterator[Trial]:
    """Try every rung of the manifest's ladder, in its order; timed if the fastest is wanted."""
    timed = manifest.select == "fastest"
    for rung in manifest.ladder:
        yield try_rung(folder, manifest, rung, timed=timed)


def goes_live_on(manifest: Manifest, trials: Sequence[Trial]) -> str:
    """Give the rung that a host with these trials would serve on; empty when none passed."""
    passed = [trial for trial in trials if trial.passed]
    if manifest.select == "fastest":
        passed.sort(key=lambda trial: trial.median_ms)
    return passed[0].rung if passed else ""


def try_rung(
    folder: Path, manifest: Manifest, rung: str, *, timed: bool = False, packages: str = ""
) -> Trial:
    """Load and prove on one rung in a child process; never raises because of the bundle.

    Args:
        folder: of the bundle.
        manifest: its own.
        rung: what to try.
        timed: also say how long a request takes, if it proves.
        packages: where to find a runtime that is not installed here.
    """
    wanted = Order(str(folder.resolve()), manifest, rung, timed, packages)
    order = msgspec.msgpack.encode(wanted)
    limit_s = manifest.proof_timeout_s + (manifest.timing_timeout_s if timed else 0)
    with tempfile.TemporaryDirectory(prefix="superbrain-trial-") as scratch:
        result = Path(scratch) / "trial"
        command = [sys.executable, "-I", "-m", "superbrain.serve.trial", str(result)]
        try:
            child = subprocess.run(
                command, input=order, stdout=_STANDARD_ERROR, timeout=limit_s, check=False
            )
        except subprocess.TimeoutExpired:
            return Trial(
                rung,
                error=f"expected load and {len(manifest.golden.cases)} golden cases to end "
                f"within {limit_s} s, found them running",
                mend="Look for an endless loop, or raise serving.load_timeout_s",
            )
        if result.exists():
            return msgspec.msgpack.decode(result.read_bytes(), type=Trial)
    return Trial(rung, error=f"expected a proof, found that the process {_end(child.returncode)}")


def _end(code: int) -> str:
    if code >= 0:
        return f"ended by itself with status {code}"
    return f"was killed by {signal.Signals(-code).name}"


def carry_out(order: Order) -> Trial:
    """Load and prove in this very process."""
    folder = Path(order.folder)
    try:
        with Model.open(folder, order.manifest, order.rung) as model:
            proof = prove(model, folder, order.manifest)
            if order.timed and proof.passed:
                timing = time_requests(model, folder, order.manifest)
                proof = msgspec.structs.replace(proof, timing=timing)
            return Trial(order.rung, proof)
    except SuperbrainError as error:
        return Trial(order.rung, error=error.message, mend=error.mend)


def main(result: Path) -> None:
    """Be the child."""
    order = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Order)
    if order.packages:
        sys.path.append(order.packages)
    trial = carry_out(order)
    unfinished = result.with_suffix(".part")
    unfinished.write_bytes(msgspec.msgpack.encode(trial))
    unfinished.rename(result)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
