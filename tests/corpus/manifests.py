"""The manifest: rightly signed, and against the rules."""

from __future__ import annotations

from collections.abc import Callable

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


@case(SECTION, "MANIFEST_NOT_JSON MANIFEST_TYPE", "expected")
def manifest_with_a_lone_surrogate(draft: Draft) -> None:
    """Text that is no Unicode."""
    draft.payload = lambda payload: payload.replace(b'"Adds', b'"\\ud800Adds')
