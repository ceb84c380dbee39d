"""Timing a proven model: the golden requests, again and again, in the process that could serve.

Rungs are compared by it, so what is told is hard to disturb: the processes are warm, the whole
pipeline counts, and of all rounds the median is taken.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from superbrain.domain.manifest import TIMING_S
from superbrain.domain.proof import Timing
from superbrain.serve.bundle_files import BundleFiles
from superbrain.serve.proving import read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from superbrain.bundle.tensors import Array
    from superbrain.domain.manifest import Manifest
    from superbrain.serve.model import Model

_ENOUGH_S = 0.5
_LEAST_ROUNDS = 5
_MOST_ROUNDS = 200


def time_requests(model: Model, bundle_path: Path, manifest: Manifest) -> Timing:
    """Run all golden requests for half a second, slow ones for up to `TIMING_S` seconds.

    Raises:
        StoreError, TensorFileError: a recorded request cannot be read.
        RequestError: the model fails on one of them, which it did not when it was proven.
    """
    files = BundleFiles(bundle_path, manifest)
    inputs = manifest.interface.inputs
    requests = [read_tensors(files, case.request, inputs) for case in manifest.golden.cases]
    return summary(lambda: _mean_ms(model, requests))


def _mean_ms(model: Model, requests: Sequence[dict[str, Array]]) -> float:
    started = time.perf_counter()
    for request in requests:
        model.infer(request)
    return (time.perf_counter() - started) * 1000 / len(requests)


def summary(one: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> Timing:
    """Run rounds until there are enough; `one` runs a round and gives its milliseconds."""
    one()  # what only the first round pays for
    started = clock()
    rounds: list[float] = []
    while _goes_on(len(rounds), clock() - started):
        rounds.append(one())
    return Timing(
        rounds=len(rounds),
        median_ms=statistics.median(rounds),
        fastest_ms=min(rounds),
        slowest_ms=max(rounds),
    )


def _goes_on(done: int, passed_s: float) -> bool:
    if not done:
        return True
    if done >= _MOST_ROUNDS or passed_s >= TIMING_S:
        return False
    return done < _LEAST_ROUNDS or passed_s < _ENOUGH_S
