"""What a manifest says of goldens, tolerances, graphs and tensors: what could not be proven."""

from __future__ import annotations

from tests.corpus.cases import case
from tests.corpus.draft import Draft
from tests.corpus.manifests import SECTION, TYPE, put

__all__ = ["SECTION"]

put("golden-none", "MANIFEST_NO_GOLDEN", "cases", "Nothing to prove.", "golden", "cases", value=[])


@case(SECTION, "MANIFEST_GOLDEN", "a file for each of")
def golden_case_without_outputs(draft: Draft) -> None:
    """A case that would pass whatever the answer is."""
    draft.manifest["golden"]["cases"][0]["response"] = {}


@case(SECTION, "MANIFEST_FILE_MISSING", "listed file under golden/")
def golden_file_elsewhere(draft: Draft) -> None:
    """The graph itself as expected answer."""
    draft.manifest["golden"]["cases"][0]["response"]["y"] = "graphs/main.onnx"


@case(SECTION, "MANIFEST_GOLDEN", "twice")
def golden_case_twice(draft: Draft) -> None:
    """Two cases of one name."""
    draft.manifest["golden"]["cases"].append(draft.manifest["golden"]["cases"][0])


for label, tolerance in {
    "anything": {"kind": "close", "rtol": 1.0, "atol": 0.0},
    "anything-large": {"kind": "close", "rtol": 0.0, "atol": 1e30},
    "negative": {"kind": "close", "rtol": -1.0, "atol": 0.0},
    "opposite": {"kind": "cosine", "min": -1.0},
    "no-classes": {"kind": "top_k", "k": 0, "min": 1.0},
    "all-classes": {"kind": "top_k", "k": 4, "min": 1.0},
    "no-share": {"kind": "top_k", "k": 1, "min": 0.0},
}.items():
    put(
        f"tolerance-{label}",
        "MANIFEST_TOLERANCE",
        "expected",
        "A tolerance that accepts any answer.",
        "golden",
        "tolerances",
        "y",
        value=tolerance,
    )
put(
    "tolerance-unknown-kind",
    f"MANIFEST_TOLERANCE {TYPE}",
    "lenient",
    "A kind that there is not.",
    "golden",
    "tolerances",
    "y",
    value={"kind": "lenient"},
)
put("tolerance-none", "MANIFEST_TOLERANCE", "y", "None.", "golden", "tolerances", value={})

put("graphs-none", "MANIFEST_GRAPH", "at least one graph", "No graph.", "graphs", value={})
put(
    "graph-elsewhere",
    "MANIFEST_FILE_MISSING",
    "listed file under graphs/",
    "A graph that is no file of the bundle.",
    "graphs",
    "main",
    "path",
    value="/usr/share/other.onnx",
)
for label, threads in {"none": 0, "many": 100_000}.items():
    put(
        f"threads-{label}",
        "MANIFEST_GRAPH",
        "threads",
        "Threads out of range.",
        "graphs",
        "main",
        "threads",
        value=threads,
    )
put(
    "tensor-datatype-unknown",
    "MANIFEST_TENSOR",
    "datatype",
    "A datatype that there is not.",
    "interface",
    "inputs",
    0,
    "datatype",
    value="FP8",
)
put(
    "tensor-size-negative",
    "MANIFEST_TENSOR",
    "sizes",
    "A size below none.",
    "interface",
    "inputs",
    0,
    "shape",
    value=[-2, 4],
)
put(
    "tensor-of-many-dimensions",
    "MANIFEST_TENSOR",
    "dimensions",
    "A tensor of a hundred dimensions.",
    "interface",
    "inputs",
    0,
    "shape",
    value=[1] * 100,
)
put(
    "interface-of-another-shape",
    "MANIFEST_INTERFACE",
    "expected",
    "The interface is not that of the graph.",
    "interface",
    "inputs",
    0,
    "shape",
    value=[-1, 5],
)
put(
    "dynamic-unbounded",
    "MANIFEST_DYNAMIC",
    "expected",
    "A dynamic size without bounds.",
    "graphs",
    "main",
    "dynamic",
    value={},
)
put(
    "dynamic-upside-down",
    "MANIFEST_DYNAMIC",
    "expected",
    "More at least than at most.",
    "graphs",
    "main",
    "dynamic",
    value={"batch": {"min": 8, "opt": 1, "max": 1}},
)
