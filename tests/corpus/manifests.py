"""The manifest: rightly signed, and against the rules."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.corpus.cases import case, enter
from tests.corpus.draft import Draft

SECTION = "manifest"


def put(name: str, codes: str, says: str, note: str, *keys: str | int, value: object) -> None:
    """Enter a case that sets one place of the manifest."""
    enter(SECTION, name, codes, says, note, lambda draft: draft.put(*keys, value=value))


def drop(name: str, codes: str, says: str, *keys: str | int) -> None:
    """Enter a case that leaves one place of the manifest out."""
    note = f"Without {'.'.join(map(str, keys))}."
    enter(SECTION, name, codes, says, note, lambda draft: draft.drop(*keys))


def text(name: str, codes: str, says: str, note: str, change: Callable[[bytes], bytes]) -> None:
    """Enter a case that bends the signed bytes."""

    def bend(draft: Draft) -> None:
        draft.payload = change

    enter(SECTION, name, codes, says, note, bend)


TYPE = "MANIFEST_TYPE MANIFEST_UNKNOWN_FIELD MANIFEST_NOT_JSON"
text("manifest-is-no-json", "MANIFEST_NOT_JSON", "JSON", "Text.", lambda _: b"hello")
text("manifest-of-null", TYPE, "null", "JSON, but no object.", lambda _: b"null")
text("manifest-empty", "MANIFEST_NOT_JSON", "JSON", "No bytes at all.", lambda _: b" ")
text(
    "manifest-key-twice",
    "MANIFEST_DUPLICATE_KEY",
    "twice",
    "Two names: which one is it?",
    lambda payload: payload.replace(b'{"', b'{"name": "other", "', 1),
)
text(
    "manifest-with-nan",
    "MANIFEST_NOT_JSON",
    "NaN",
    "A number that JSON has not.",
    lambda payload: payload.replace(b'"sequence": 2', b'"sequence": NaN'),
)
text(
    "manifest-with-infinity",
    "MANIFEST_NOT_JSON",
    "Infinity",
    "A number that JSON has not.",
    lambda payload: payload.replace(b'"sequence": 2', b'"sequence": -Infinity'),
)
text(
    "manifest-nested-deeply",
    "MANIFEST_NOT_JSON",
    "expected",
    "A hundred thousand brackets, to overflow a parser.",
    lambda _: b"[" * 100_000 + b"]" * 100_000,
)
text("manifest-with-more-behind", "MANIFEST_NOT_JSON", "JSON", "Two values.", lambda p: p + b" {}")
text(
    "manifest-beyond-its-limit",
    "ENVELOPE_MALFORMED ARCHIVE_ENVELOPE_SIZE MANIFEST_TOO_BIG",
    "expected",
    "A description of two megabytes.",
    lambda payload: payload.replace(b'"Adds', b'"' + b"a" * (2 << 20) + b"Adds"),
)
text(
    "manifest-number-of-many-digits",
    f"MANIFEST_SEQUENCE {TYPE}",
    "expected",
    "A sequence of five thousand digits.",
    lambda payload: payload.replace(b'"sequence": 2', b'"sequence": ' + b"9" * 5000),
)

put("schema-unknown", "MANIFEST_SCHEMA", "schema", "A later format.", "schema", value=2)
put("schema-as-text", "MANIFEST_SCHEMA", "schema", "A text for a number.", "schema", value="1")
put("field-unknown", "MANIFEST_UNKNOWN_FIELD", "autorun", "A field unknown.", "autorun", value=1)
put(
    "field-unknown-deep",
    "MANIFEST_UNKNOWN_FIELD",
    "priority",
    "A field unknown, further down.",
    "serving",
    value={"priority": 9},
)
for field in ("name", "version", "sequence", "created", "graphs", "interface", "golden", "files"):
    drop(f"without-{field}", TYPE, field, field)

NAME = "MANIFEST_NAME"
for label, value in {
    "empty": "",
    "with-a-slash": "../adder",
    "with-capitals": "Adder",
    "with-a-line-end": "adder\n",
    "too-long": "a" * 65,
    "of-dots": "..",
    "with-a-terminal-escape": "a\x1b[2J",
}.items():
    put(f"name-{label}", NAME, "name: expected", "A name that is none.", "name", value=value)
put("version-as-number", TYPE, "version", "A number for a version.", "version", value=2)
put("version-as-words", "MANIFEST_VERSION", "version", "Not N.N.N.", "version", value="latest")
put("version-endless", "MANIFEST_VERSION", "version", "A long one.", "version", value="1." * 99)
for label, number in {"zero": 0, "negative": -1, "huge": 1 << 60}.items():
    put(
        f"sequence-{label}",
        "MANIFEST_SEQUENCE",
        "sequence: expected",
        "A sequence out of range.",
        "sequence",
        value=number,
    )
put("sequence-fractional", TYPE, "sequence", "Half a release.", "sequence", value=2.5)
put("sequence-as-text", TYPE, "sequence", "A text.", "sequence", value="2")
put("created-as-words", TYPE, "created", "No date.", "created", value="yesterday")
put(
    "created-without-zone",
    "MANIFEST_DATE MANIFEST_TYPE",
    "created",
    "A date that is not the same everywhere.",
    "created",
    value="2025-01-31T12:00:00",
)
put(
    "expires-before-created",
    "MANIFEST_DATE",
    "expires",
    "It expired before it was made.",
    "expires",
    value="2024-01-31T12:00:00Z",
)
put(
    "description-with-escapes",
    "MANIFEST_TEXT",
    "description",
    "A text that would clear the operator's terminal.",
    "description",
    value="\x1b[2J all is well",
)
put(
    "description-reversed",
    "MANIFEST_TEXT",
    "description",
    "Text that shows in another order than it is.",
    "description",
    value="good \u202egnihtyna si siht",
)
put("ladder-empty", "MANIFEST_LADDER", "ladder", "No rung.", "ladder", value=[])
put("ladder-twice", "MANIFEST_LADDER", "ladder", "A rung twice.", "ladder", value=["a:b", "a:b"])
put("ladder-strange", "MANIFEST_LADDER", "ladder", "No rung.", "ladder", value=["rm -rf /"])
put("select-unknown", TYPE, "select", "A wish unknown.", "select", value="cheapest")
PRECISIONS = ("graphs", "main", "precisions")
for label, bent in {
    "unknown": {"fp4": "graphs/main.onnx"},
    "with-a-path-for-a-name": {"../../etc": "graphs/main.onnx"},
    "that-is-the-graph-itself": {"fp16": "graphs/main.onnx"},
}.items():
    put(
        f"precision-{label}",
        "MANIFEST_PRECISION",
        "graphs.main.precisions: expected",
        "A precision that is none.",
        *PRECISIONS,
        value=bent,
    )
for label, bent in {
    "not-there": {"int8": "graphs/main.int8.onnx"},
    "outside": {"int8": "../../etc/passwd"},
    "that-is-no-graph": {"int8": "golden/one/request/x.npy"},
}.items():
    put(
        f"precision-file-{label}",
        "MANIFEST_FILE_MISSING",
        "graphs.main.precisions.int8: expected",
        "A precision's file that is none.",
        *PRECISIONS,
        value=bent,
    )
put("precisions-as-a-list", TYPE, "precisions", "Names alone.", *PRECISIONS, value=["fp16"])
put(
    "gpu-memory-negative",
    "MANIFEST_GRAPH",
    "expected gpu_memory_mb of 0",
    "Less than no memory.",
    "graphs",
    "main",
    "gpu_memory_mb",
    value=-1,
)
for setting, amount in {
    "instances": 0,
    "queue_size": 1 << 20,
    "request_timeout_ms": -1,
    "load_timeout_s": 1 << 30,
}.items():
    put(
        f"serving-{setting.replace('_', '-')}",
        "MANIFEST_SERVING",
        setting,
        "A setting out of range.",
        "serving",
        value={setting: amount},
    )
put(
    "batching-enormous",
    "MANIFEST_BATCHING",
    "max_size",
    "A thousand rows in a run.",
    "serving",
    value={"batching": {"max_size": 1000}},
)
put(
    "batching-beyond-the-graph",
    "MANIFEST_BATCHING",
    "to range from 1 to max_size 64",
    "More rows than the graph takes.",
    "serving",
    value={"batching": {"max_size": 64}},
)
put(
    "targets-negative",
    "MANIFEST_TARGETS",
    "memory_mb",
    "Less than no memory.",
    "targets",
    value={"memory_mb": -1},
)
put(
    "targets-strange-runtime",
    "MANIFEST_TARGETS",
    "onnxruntime",
    "No version.",
    "targets",
    value={"onnxruntime": "; import os"},
)

PATHS = {
    "above": "../evil.onnx",
    "above-deep": "graphs/../../evil.onnx",
    "absolute": "/etc/passwd",
    "backslash": "graphs\\evil.onnx",
    "nul": "graphs/a\0b.onnx",
    "control": "graphs/a\nb.onnx",
    "empty": "",
    "dot": "./graphs/a.onnx",
    "double-slash": "graphs//a.onnx",
    "at-the-end-a-slash": "graphs/",
    "hidden": "graphs/.git/config",
    "other-folder": "bin/evil",
    "unicode": "graphs/\u0430.onnx",
    "fullwidth-dots": "graphs/\uff0e\uff0e/a.onnx",
    "too-long": "graphs/" + "a/" * 80 + "a",
    "long-segment": "graphs/" + "a" * 120,
    "space-at-the-end": "graphs/a.onnx ",
    "bytecode": "code/pipeline.pyc",
    "pycache": "code/__pycache__/pipeline.cpython-311.pyc",
    "the-envelope-itself": "MANIFEST.dsse",
}
for label, path in PATHS.items():

    def listed(draft: Draft, path: str = path) -> None:
        draft.manifest["files"].append({"path": path, "size_bytes": 3, "sha256": "0" * 64})

    enter(SECTION, f"path-{label}", "MANIFEST_PATH", "expected", f"Lists {path[:40]!r}.", listed)


@case(SECTION, "MANIFEST_PATH", "found")
def path_twice(draft: Draft) -> None:
    """One path with two contents."""
    draft.manifest["files"].append(draft.manifest["files"][0] | {"sha256": "0" * 64})


@case(SECTION, "MANIFEST_PATH", "expected")
def path_twice_in_other_capitals(draft: Draft) -> None:
    """Two paths that are one on some file systems."""
    draft.manifest["files"].append(
        draft.manifest["files"][0] | {"path": "golden/ONE/request/x.npy"}
    )
    draft.manifest["files"].append(
        draft.manifest["files"][0] | {"path": "golden/one/Request/x.npy"}
    )


@case(SECTION, "MANIFEST_PATH", "as both")
def path_is_file_and_folder(draft: Draft) -> None:
    """A file that another file lies in."""
    entry = draft.manifest["files"][0]
    draft.manifest["files"].append(entry | {"path": "graphs/main.onnx/inner"})


for label, size in {"negative": -1, "huge": 1 << 62}.items():
    put(
        f"size-{label}",
        "MANIFEST_SIZE",
        "expected",
        "A size that no file has.",
        "files",
        0,
        "size_bytes",
        value=size,
    )
put("size-fractional", TYPE, "size", "Half a byte.", "files", 0, "size_bytes", value=7.5)
put("size-infinite", TYPE, "size", "1e999 bytes.", "files", 0, "size_bytes", value="1e999")
put("hash-short", "MANIFEST_SHA256", "sha256", "Half a hash.", "files", 0, "sha256", value="ab")
put(
    "hash-in-capitals",
    "MANIFEST_SHA256",
    "sha256",
    "A second spelling of a hash.",
    "files",
    0,
    "sha256",
    value="AB" * 32,
)


@case(SECTION, "MANIFEST_SIZE", "expected")
def sizes_that_add_up_to_more_than_there_is(draft: Draft) -> None:
    """Each file may be that large, all of them together may not."""
    for entry in draft.manifest["files"]:
        entry["size_bytes"] = 1 << 40


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


@case(SECTION, "MANIFEST_NOT_JSON MANIFEST_TYPE", "expected")
def manifest_with_a_lone_surrogate(draft: Draft) -> None:
    """Text that is no Unicode."""
    draft.payload = lambda payload: payload.replace(b'"Adds', b'"\\ud800Adds')


def json_of(value: Any) -> bytes:  # noqa: ANN401
    """Write JSON."""
    return json.dumps(value).encode()
