"""Prepares a host and runs the story on it, claim by claim; scripts/acceptance starts it."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Final

from scripts.acceptance_host import CommandFailed, Host, NotBootable
from scripts.acceptance_releases import changed_release
from scripts.acceptance_story import CLAIMS, Story
from tests.support.bundles import make_bundle, sign_key

# Bundle code that uses what real ones use: the confinement must let OpenCV and its threads work.
PIPELINE: Final = """
import cv2
import numpy as np


class Pipeline:
    def __init__(self, bundle):
        self.kernel = np.ones((3, 3), np.float32) / 9

    def preprocess(self, request):
        cv2.filter2D(np.zeros((512, 512), np.float32), -1, self.kernel)
        return {"x": request["x"]}

    def postprocess(self, outputs, request):
        return {"y": outputs["y"]}
"""


def main() -> int:
    """Run the story in a container of its own."""
    parser = argparse.ArgumentParser(prog="scripts/acceptance")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--wheelhouse", type=Path, required=True)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--require", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)
    work = Path(tempfile.mkdtemp(prefix="run-", dir=options.base.parent))
    try:
        return _run(options, work)
    except NotBootable as error:
        print(f"not run: {error}")
        return 1 if options.require else 0
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _leave(*_: object) -> None:
    """Go by the way that ends the container."""
    sys.exit(143)


def _run(options: argparse.Namespace, work: Path) -> int:
    began = time.monotonic()
    bundles = work / "bundles"
    author = sign_key(bundles)
    for number in (1, 2):
        version = f"{number}.0.0"
        make_bundle(
            bundles,
            author,
            version=version,
            sequence=number,
            constant=float(number),
            pipeline=PIPELINE,
        )
    binds = {options.wheelhouse: "/wheelhouse", bundles: "/bundles"}
    binds |= {
        changed_release(options.wheelhouse, work, name): f"/{name}" for name in ("newer", "broken")
    }
    with Host(options.base, work / "host", binds) as host:
        print(f"ok  {time.monotonic() - began:6.1f} s  a host boots with its own systemd")
        story = Story(host, bundles, author)
        for claim in CLAIMS:
            since = time.monotonic()
            try:
                text = claim(story)
            except Exception as error:  # noqa: BLE001 - said, and the end of the run
                _say_failure(host, claim.__name__, time.monotonic() - since, error)
                if options.keep:
                    input(f"The container is there: nsenter -t {host.leader} -a. Enter ends it. ")
                return 1
            print(f"ok  {time.monotonic() - since:6.1f} s  {text}", flush=True)
    print(f"{len(CLAIMS) + 1} claims hold after {time.monotonic() - began:.0f} s")
    return 0


def _say_failure(host: Host, name: str, took_s: float, error: Exception) -> None:
    print(f"FAILED {took_s:.1f} s  {name}")
    if isinstance(error, CommandFailed):
        print(error)
    else:
        traceback.print_exception(error, file=sys.stdout)
    print("--- the end of the journal")
    print(host.run("journalctl", "-n", "40", "--no-pager", "-o", "short-monotonic", status=None))


if __name__ == "__main__":
    sys.exit(main())
