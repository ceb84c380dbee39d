"""The rules about golden cases and tolerances: every promise of the interface must be provable.

A bundle without a golden case, a case that leaves an output out, or a tolerance that any answer
would meet proves nothing, so it is refused like a wrong signature.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from superbrain.domain.errors import shown
from superbrain.domain.graph_rules import NAME
from superbrain.domain.manifest import (
    Close,
    Cosine,
    Exact,
    GoldenCase,
    Graph,
    GraphTensor,
    InterfaceTensor,
    Manifest,
    TensorFiles,
    Tolerance,
    TopK,
    refuse,
)
from superbrain.domain.rungs import FILE_PRECISIONS, PLAIN_PRECISIONS

MAX_CASES = 1000
MAX_ATOL = 1000.0
EXACT_ONLY = frozenset({"BYTES", "BOOL"})
ALL_VALUES_WITHIN = {"UINT8": 255.0, "INT8": 255.0}  # an atol from here on accepts every value

Tensors = Mapping[str, InterfaceTensor] | Mapping[str, GraphTensor]


def check_golden(manifest: Manifest, paths: frozenset[str]) -> None:
    """Check cases and tolerances against interface, graphs and the listed `paths`.

    Raises:
        ManifestError: the first rule that is broken.
    """
    cases = manifest.golden.cases
    if not 1 <= len(cases) <= MAX_CASES:
        refuse(
            "MANIFEST_NO_GOLDEN",
            f"golden.cases: expected 1 to {MAX_CASES} cases, found {len(cases)}",
            "Record one with `superbrain bundle record-golden`",
        )
    if len({case.name for case in cases}) != len(cases):
        refuse("MANIFEST_GOLDEN", "golden.cases: expected every case name once, found one twice")
    for case in cases:
        _check_case(case, manifest, paths)
    outputs = {tensor.name: tensor for tensor in manifest.interface.outputs}
    _check_tolerances("golden.tolerances", manifest.golden.tolerances, outputs, outputs.keys())
    for name, tolerances in manifest.golden.precision_tolerances.items():
        _check_precision(name)
        _check_tolerances(f"golden.precision_tolerances.{name}", tolerances, outputs, ())
    _check_graph_tolerances(manifest)


def _check_case(case: GoldenCase, manifest: Manifest, paths: frozenset[str]) -> None:
    where = f"golden case {shown(case.name)}"
    if not NAME.fullmatch(case.name):
        refuse(
            "MANIFEST_GOLDEN",
            f"{where}: expected a name of 1-64 of a-z 0-9 . _ - that starts with a letter or digit",
        )
    interface = manifest.interface
    _check_names(f"{where}: request", case.request, [t.name for t in interface.inputs])
    _check_names(f"{where}: response", case.response, [t.name for t in interface.outputs])
    _check_paths(where, (*case.request.values(), *case.response.values()), paths)
    for name, recorded in case.graphs.items():
        graph = manifest.graphs.get(name)
        if graph is None:
            refuse(
                "MANIFEST_GOLDEN",
                f"{where}: expected graphs of {shown(sorted(manifest.graphs))}, "
                f"found {shown(name)}",
            )
        _check_names(f"{where}: {name} inputs", recorded.inputs, [t.name for t in graph.inputs])
        _check_names(f"{where}: {name} outputs", recorded.outputs, [t.name for t in graph.outputs])
        _check_paths(where, (*recorded.inputs.values(), *recorded.outputs.values()), paths)


def _check_names(where: str, files: TensorFiles, expected: Sequence[str]) -> None:
    if files.keys() != set(expected):
        refuse(
            "MANIFEST_GOLDEN",
            f"{where}: expected a file for each of {shown(sorted(expected))} and for nothing else, "
            f"found {shown(sorted(files))}",
            "Record what is missing with `superbrain bundle record-golden`",
        )


def _check_paths(where: str, named: Iterable[str], paths: frozenset[str]) -> None:
    for path in named:
        if path not in paths or not path.startswith("golden/"):
            refuse(
                "MANIFEST_FILE_MISSING",
                f"{where}: expected the path of a listed file under golden/, found {shown(path)}",
            )


# --- tolerances -------------------------------------------------------------------------------


def _check_precision(name: str) -> None:
    if name not in FILE_PRECISIONS + PLAIN_PRECISIONS:
        refuse(
            "MANIFEST_TOLERANCE",
            "golden.precision_tolerances: expected precisions of "
            f"{', '.join(FILE_PRECISIONS + PLAIN_PRECISIONS)}, found {shown(name)}",
            "Tolerances of rungs that name no precision stand in golden.tolerances",
        )


def _check_graph_tolerances(manifest: Manifest) -> None:
    tolerances = manifest.golden.graph_tolerances
    recorded = {name for case in manifest.golden.cases for name in case.graphs}
    unknown = tolerances.keys() - manifest.graphs.keys()
    if unknown:
        refuse(
            "MANIFEST_TOLERANCE",
            f"golden.graph_tolerances: expected graphs of {shown(sorted(manifest.graphs))}, "
            f"found {shown(min(unknown))}",
        )
    for name, graph in manifest.graphs.items():
        if name in recorded or name in tolerances:
            needed = _output_names(graph) if name in recorded else ()
            _check_tolerances(
                f"golden.graph_tolerances.{name}",
                tolerances.get(name, {}),
                {tensor.name: tensor for tensor in graph.outputs},
                needed,
            )


def _output_names(graph: Graph) -> list[str]:
    return [tensor.name for tensor in graph.outputs]


def _check_tolerances(
    where: str, tolerances: dict[str, Tolerance], outputs: Tensors, needed: Iterable[str]
) -> None:
    missing, extra = set(needed) - tolerances.keys(), tolerances.keys() - outputs.keys()
    if missing:
        refuse(
            "MANIFEST_TOLERANCE",
            f"{where}: expected a tolerance for every output, found none for {shown(min(missing))}",
            'Add one, such as { kind = "close", rtol = 1e-3, atol = 1e-5 }',
        )
    if extra:
        refuse(
            "MANIFEST_TOLERANCE",
            f"{where}: expected outputs of {shown(sorted(outputs))}, found {shown(min(extra))}",
        )
    for name, tolerance in tolerances.items():
        output = outputs[name]
        _check_tolerance(f"{where}.{name}", tolerance, output.datatype, output.shape)


def _check_tolerance(
    where: str, tolerance: Tolerance, datatype: str, shape: Sequence[int | str]
) -> None:
    if datatype in EXACT_ONLY and not isinstance(tolerance, Exact):
        refuse(
            "MANIFEST_TOLERANCE",
            f'{where}: expected kind = "exact" for {datatype}, found {shown(tolerance)}',
        )
    match tolerance:
        case Exact():
            pass
        case Close():
            _check_close(where, tolerance, datatype)
        case Cosine():
            _check_cosine(where, tolerance, shape)
        case TopK():
            _check_top_k(where, tolerance, shape)


def _check_close(where: str, tolerance: Close, datatype: str) -> None:
    most = ALL_VALUES_WITHIN.get(datatype, math.nextafter(MAX_ATOL, math.inf))
    if not 0 <= tolerance.rtol < 1 or not 0 <= tolerance.atol < most:
        refuse(
            "MANIFEST_TOLERANCE",
            f"{where}: expected rtol of 0 up to but not 1 and atol of 0 up to "
            f"{MAX_ATOL:g} (below 255 for 8-bit integers), found rtol {tolerance.rtol:g}, "
            f"atol {tolerance.atol:g}: wider bounds accept anything",
        )


def _check_cosine(where: str, tolerance: Cosine, shape: Sequence[int | str]) -> None:
    if not 0 < tolerance.min <= 1:
        refuse(
            "MANIFEST_TOLERANCE",
            f"{where}: expected a cosine min above 0, at most 1, found {tolerance.min:g}",
        )
    if all(size == 1 for size in shape):
        refuse(
            "MANIFEST_TOLERANCE",
            f"{where}: expected a tensor of more than one element for cosine, "
            f"found shape {list(shape)}: any number of the right sign would pass",
            'Use kind = "close"',
        )


def _check_top_k(where: str, tolerance: TopK, shape: Sequence[int | str]) -> None:
    if tolerance.k < 1 or not 0 < tolerance.min <= 1:
        refuse(
            "MANIFEST_TOLERANCE",
            f"{where}: expected k of 1 or more and min above 0, at most 1, "
            f"found k {tolerance.k}, min {tolerance.min:g}",
        )
    classes = shape[-1] if shape else 0
    if isinstance(classes, int) and classes != -1 and tolerance.k >= classes:
        refuse(
            "MANIFEST_TOLERANCE",
            f"{where}: expected k below the size of the last axis ({classes}), "
            f"found {tolerance.k}: the set of all classes is always the same",
        )
