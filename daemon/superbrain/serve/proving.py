"""Proving a loaded model: every golden case through the very object that will serve.

Each case goes through pre- and postprocessing as a caller's request would, and, where the bundle
recorded them, through single graphs as well. Cases of a bundle that batches are then run together.
Whatever goes wrong with a case is a failed figure of that case with its reason: the other cases are
still worth knowing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from superbrain.bundle.tensors import read_tensor
from superbrain.domain.golden import compare_all, failed
from superbrain.domain.proof import EVERY_OUTPUT, CaseTime, OutputFigures, Proof
from superbrain.domain.rungs import tolerances_on, uses_gpu
from superbrain.serve.bundle_code import describe
from superbrain.serve.bundle_files import BundleFiles
from superbrain.serve.proving_together import prove_together
from superbrain.wire.errors import SuperbrainError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from superbrain.bundle.tensors import Array
    from superbrain.domain.manifest import (
        GoldenCase,
        GraphCase,
        GraphTensor,
        InterfaceTensor,
        Manifest,
        TensorFiles,
    )
    from superbrain.serve.model import Model

# A case that takes less is run this often again.
_FAST_MS = 10.0
_REPEATS = 5


def prove(model: Model, bundle_path: Path, manifest: Manifest) -> Proof:
    """Run every golden case and compare; never raises because of a case."""
    files = BundleFiles(bundle_path, manifest)
    figures: list[OutputFigures] = []
    times: list[CaseTime] = []
    agreed: dict[str, tuple[dict[str, Array], dict[str, Array]]] = {}
    for case in manifest.golden.cases:
        try:
            recorded = _recorded(files, manifest, case)
            response = _prove_response(model, manifest, case.name, recorded, times, cold=True)
        except Exception as error:  # noqa: BLE001 - becomes the case's failed figure
            response = [failed(case.name, EVERY_OUTPUT, "", _reason(error))]
        else:
            if all(one.passed for one in response):
                agreed[case.name] = recorded
        figures += response
        for graph, tensors in case.graphs.items():
            figures += _prove_graph(model, files, manifest, case.name, graph, tensors)
    if model.together is not None:
        figures += prove_together(model.together, manifest, agreed, model.rung)
    return Proof(model.rung, figures, times, model.runtime)


def reprove(model: Model, bundle_path: Path, manifest: Manifest, number: int) -> Proof:
    """Run one golden case again and compare as `prove` does; a `number` wraps around.

    Raises:
        StoreError, TensorFileError: the recorded tensors cannot be read any more.
    """
    case = manifest.golden.cases[number % len(manifest.golden.cases)]
    recorded = _recorded(BundleFiles(bundle_path, manifest), manifest, case)
    times: list[CaseTime] = []
    try:
        figures = _prove_response(model, manifest, case.name, recorded, times, cold=False)
    except Exception as error:  # noqa: BLE001 - becomes the case's failed figure
        figures = [failed(case.name, EVERY_OUTPUT, "", _reason(error))]
    return Proof(model.rung, figures, times, model.runtime)


def _recorded(
    files: BundleFiles, manifest: Manifest, case: GoldenCase
) -> tuple[dict[str, Array], dict[str, Array]]:
    interface = manifest.interface
    request = read_tensors(files, case.request, interface.inputs)
    return request, read_tensors(files, case.response, interface.outputs)


def _prove_response(
    model: Model,
    manifest: Manifest,
    case: str,
    recorded: tuple[dict[str, Array], dict[str, Array]],
    times: list[CaseTime],
    *,
    cold: bool,
) -> list[OutputFigures]:
    """Run a case and compare; `cold`: the process has run nothing like it before."""
    request, expected = recorded
    actual, first_ms = _timed(model, request)
    tolerances = tolerances_on(manifest.golden, model.rung)
    figures = compare_all(case, "", expected, actual, tolerances)
    again = cold and uses_gpu(model.rung)
    warm, warm_ms = _run_warm(model, request, first_ms, at_least=int(again))
    times.append(CaseTime(case, warm_ms))
    if warm is not None:
        last = compare_all(case, "", expected, warm, tolerances)
        if not all(one.passed for one in last):
            return last
    return figures


def _run_warm(
    model: Model, request: dict[str, Array], first_ms: float, at_least: int
) -> tuple[dict[str, Array] | None, float]:
    """Run a fast case again, others `at_least` so often: the last answer, and the fastest time.

    Most of a first run is the first touch of code and memory, and on a GPU the load of its kernels.
    By the last run memory may be bound and a graph captured, so it is what callers will get.
    """
    warm, fastest_ms, done = None, first_ms, 0
    while done < (_REPEATS if fastest_ms < _FAST_MS else at_least):
        warm, took_ms = _timed(model, request)
        fastest_ms = min(fastest_ms, took_ms)
        done += 1
    return warm, fastest_ms


def _timed(model: Model, request: dict[str, Array]) -> tuple[dict[str, Array], float]:
    started = time.perf_counter()
    response = model.infer(request)
    return response, (time.perf_counter() - started) * 1000


def _prove_graph(
    model: Model,
    files: BundleFiles,
    manifest: Manifest,
    case: str,
    graph: str,
    recorded: GraphCase,
) -> list[OutputFigures]:
    tolerances = manifest.golden.graph_tolerances.get(graph, {})
    try:
        engine = model.engines[graph]
        inputs = read_tensors(files, recorded.inputs, engine.inputs)
        expected = read_tensors(files, recorded.outputs, engine.outputs)
        return compare_all(case, graph, expected, engine.run(inputs), tolerances)
    except Exception as error:  # noqa: BLE001 - becomes the case's failed figure
        return [failed(case, EVERY_OUTPUT, graph, _reason(error))]


def read_tensors(
    files: BundleFiles, paths: TensorFiles, declared: Sequence[InterfaceTensor | GraphTensor]
) -> dict[str, Array]:
    """Read recorded tensors of a bundle, in the order in which they are declared.

    Raises:
        StoreError, TensorFileError: a file cannot be read, or does not hold what is declared.
    """
    arrays: dict[str, Array] = {}
    for tensor in declared:
        path = paths[tensor.name]
        arrays[tensor.name] = read_tensor(path, files.read(path), tensor)
    return arrays


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, SuperbrainError) else describe(error)
