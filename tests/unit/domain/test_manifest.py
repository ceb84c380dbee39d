"""What a manifest may say: everything else is refused with the code of its kind."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbrain.domain.errors import BundleError, ManifestError
from superbrain.domain.manifest_json import MAX_MANIFEST_BYTES, encode_manifest, parse_manifest
from tests.support.manifests import VALID, Change, Json, add_file, payload, put, tensor, tolerate


def refusal(data: bytes) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(data)
    return caught.value


GRAPH = ("graphs", "main")
IDENTITY = [
    (put("name")("Orientation"), "MANIFEST_NAME"),
    (put("name")(""), "MANIFEST_NAME"),
    (put("name")("a" * 65), "MANIFEST_NAME"),
    (put("name")("a/b"), "MANIFEST_NAME"),
    (put("version")("1.2"), "MANIFEST_VERSION"),
    (put("version")("1.2.3\n"), "MANIFEST_VERSION"),
    (put("version")("../1.0.0"), "MANIFEST_VERSION"),
    (put("sequence")(0), "MANIFEST_SEQUENCE"),
    (put("sequence")(2**53 + 1), "MANIFEST_SEQUENCE"),
    (put("created")("2025-01-31T12:00:00"), "MANIFEST_DATE"),
    (put("expires")("2025-01-31T12:00:00Z"), "MANIFEST_DATE"),
    (put("description")("\x1b[2J"), "MANIFEST_TEXT"),
    (put("description")("x" * 2001), "MANIFEST_TEXT"),
    (put("schema")(2), "MANIFEST_SCHEMA"),
    (put("schema")(True), "MANIFEST_SCHEMA"),
    (put("schema")("1"), "MANIFEST_SCHEMA"),
    (lambda manifest: manifest.pop("schema"), "MANIFEST_TYPE"),
    (lambda manifest: manifest.pop("golden"), "MANIFEST_TYPE"),
    (put("colour")("red"), "MANIFEST_UNKNOWN_FIELD"),
    (put("graphs", "main", "precision")("fp16"), "MANIFEST_UNKNOWN_FIELD"),
    (put("ladder")([]), "MANIFEST_LADDER"),
    (put("ladder")(["onnxruntime"]), "MANIFEST_LADDER"),
    (put("ladder")(["onnxruntime:cpu", "onnxruntime:cpu"]), "MANIFEST_LADDER"),
    (put("ladder")(["torchscript:cpu"]), "MANIFEST_LADDER"),
    (put("select")("slowest"), "MANIFEST_TYPE"),
    (put("serving")({"instances": 0}), "MANIFEST_SERVING"),
    (put("serving")({"queue_size": 1 << 30}), "MANIFEST_SERVING"),
    (put("serving")({"request_timeout_ms": 0}), "MANIFEST_SERVING"),
    (put("targets")({"memory_mb": -1}), "MANIFEST_TARGETS"),
    (put("targets")({"onnxruntime": "the newest"}), "MANIFEST_TARGETS"),
]
PATHS = [
    "../x",
    "graphs/../x",
    "/graphs/x",
    "graphs//x",
    "graphs/./x",
    "graphs/",
    "graphs",
    "other/x",
    "graphs/.hidden",
    "assets/.git/config",
    "graphs/a\\b",
    "graphs/a\0b",
    "graphs/a\nb",
    "graphs/ä",
    "graphs/x ",
    "graphs/" + "x" * 101,
    "graphs/" + "x/" * 80 + "x",
    "graphs/MAIN.onnx",
    "graphs/main.onnx",
    "graphs/main.onnx/inside",
    "code/__pycache__/pipeline.cpython-311.py",
    "code/pipeline.pyc",
]
SIZES = [
    (-1, "MANIFEST_SIZE"),
    ((1 << 40) + 1, "MANIFEST_SIZE"),
    (1 << 40, "MANIFEST_SIZE"),  # with the other files the sum is too large
    (1.5, "MANIFEST_TYPE"),
    (1.0, "MANIFEST_TYPE"),
    (True, "MANIFEST_TYPE"),
    ("7", "MANIFEST_TYPE"),
]
GRAPHS = [
    (put("graphs")({}), "MANIFEST_GRAPH"),
    (put(*GRAPH, "path")("graphs/other.onnx"), "MANIFEST_FILE_MISSING"),
    (put(*GRAPH, "path")("golden/one/x.npy"), "MANIFEST_FILE_MISSING"),
    (put(*GRAPH, "threads")(0), "MANIFEST_GRAPH"),
    (put(*GRAPH, "gpu_memory_mb")(-1), "MANIFEST_GRAPH"),
    (put(*GRAPH, "precisions")({"fp32": "graphs/main.onnx"}), "MANIFEST_PRECISION"),
    (put(*GRAPH, "precisions")({"fp16": "graphs/main.onnx"}), "MANIFEST_PRECISION"),
    (put(*GRAPH, "precisions")({"fp16": "graphs/other.onnx"}), "MANIFEST_FILE_MISSING"),
    (put(*GRAPH, "precisions")({"fp16": 7}), "MANIFEST_TYPE"),
    (put(*GRAPH, "inputs")([]), "MANIFEST_TENSOR"),
    (put(*GRAPH, "inputs", 0, "datatype")("FLOAT"), "MANIFEST_TENSOR"),
    (put(*GRAPH, "inputs", 0, "name")(""), "MANIFEST_TENSOR"),
    (put(*GRAPH, "inputs", 0, "shape")([-1, 3]), "MANIFEST_TENSOR"),
    (put(*GRAPH, "inputs", 0, "shape")([1] * 9), "MANIFEST_TENSOR"),
    (put(*GRAPH, "inputs")([tensor("x", "FP32", 1), tensor("x", "FP32", 1)]), "MANIFEST_TENSOR"),
    (put(*GRAPH, "dynamic")({}), "MANIFEST_DYNAMIC"),
    (put(*GRAPH, "dynamic", "M")({"min": 1, "opt": 1, "max": 1}), "MANIFEST_DYNAMIC"),
    (put(*GRAPH, "dynamic", "N")({"min": 2, "opt": 1, "max": 8}), "MANIFEST_DYNAMIC"),
    (put(*GRAPH, "dynamic", "N")({"min": -1, "opt": 1, "max": 8}), "MANIFEST_DYNAMIC"),
    (put(*GRAPH, "dynamic", "N")({"min": 0, "opt": 0, "max": 0}), "MANIFEST_DYNAMIC"),
    (put("interface", "outputs")([]), "MANIFEST_TENSOR"),
    (put("interface", "inputs", 0, "shape")([-2, 3]), "MANIFEST_TENSOR"),
    (put("interface", "inputs", 0, "name")("z"), "MANIFEST_INTERFACE"),
    (put("interface", "inputs", 0, "datatype")("FP64"), "MANIFEST_INTERFACE"),
    (put("interface", "inputs", 0, "shape")([-1, 3, 1]), "MANIFEST_INTERFACE"),
    (put("interface", "inputs", 0, "shape")([-1, 4]), "MANIFEST_INTERFACE"),
    (put("interface", "inputs", 0, "shape")([9, 3]), "MANIFEST_INTERFACE"),
    (put("graphs", "second")(VALID["graphs"]["main"]), "MANIFEST_PIPELINE"),
    (add_file("code/pipelin.py"), "MANIFEST_PIPELINE"),
]
CASE = ("golden", "cases", 0)
GOLDEN = [
    (put("golden", "cases")([]), "MANIFEST_NO_GOLDEN"),
    (put("golden", "cases")([VALID["golden"]["cases"][0]] * 2), "MANIFEST_GOLDEN"),
    (put(*CASE, "name")("One"), "MANIFEST_GOLDEN"),
    (put(*CASE, "request")({}), "MANIFEST_GOLDEN"),
    (put(*CASE, "response")({}), "MANIFEST_GOLDEN"),
    (put(*CASE, "response", "extra")("golden/one/y.npy"), "MANIFEST_GOLDEN"),
    (put(*CASE, "response", "y")("golden/one/missing.npy"), "MANIFEST_FILE_MISSING"),
    (put(*CASE, "response", "y")("graphs/main.onnx"), "MANIFEST_FILE_MISSING"),
    (put(*CASE, "graphs")({"other": {"inputs": {}, "outputs": {}}}), "MANIFEST_GOLDEN"),
    (put(*CASE, "graphs")({"main": {"inputs": {}, "outputs": {}}}), "MANIFEST_GOLDEN"),
    (put("golden", "tolerances")({}), "MANIFEST_TOLERANCE"),
    (put("golden", "tolerances", "z")({"kind": "exact"}), "MANIFEST_TOLERANCE"),
    (put("golden", "tolerances", "label")({"kind": "cosine", "min": 0.9}), "MANIFEST_TOLERANCE"),
    (put("golden", "graph_tolerances")({"other": {}}), "MANIFEST_TOLERANCE"),
    (put("golden", "graph_tolerances")({"main": {"z": {"kind": "exact"}}}), "MANIFEST_TOLERANCE"),
    (put("golden", "precision_tolerances")({"int4": {}}), "MANIFEST_TOLERANCE"),
    (
        put("golden", "precision_tolerances")({"int8": {"z": {"kind": "exact"}}}),
        "MANIFEST_TOLERANCE",
    ),
    (
        put("golden", "precision_tolerances")({"int8": {"y": {"kind": "cosine", "min": 0.0}}}),
        "MANIFEST_TOLERANCE",
    ),
    (tolerate(kind="close", rtol=1.0, atol=0.0), "MANIFEST_TOLERANCE"),
    (tolerate(kind="close", rtol=-0.1, atol=0.0), "MANIFEST_TOLERANCE"),
    (tolerate(kind="close", rtol=0.0, atol=1e9), "MANIFEST_TOLERANCE"),
    (tolerate(kind="cosine", min=0.0), "MANIFEST_TOLERANCE"),
    (tolerate(kind="cosine", min=1.1), "MANIFEST_TOLERANCE"),
    (tolerate(kind="top_k", k=0), "MANIFEST_TOLERANCE"),
    (tolerate(kind="top_k", k=4), "MANIFEST_TOLERANCE"),
    (tolerate(kind="top_k", k=1, min=0.0), "MANIFEST_TOLERANCE"),
    (tolerate(kind="whatever"), "MANIFEST_TYPE"),
]


def test_a_valid_manifest_is_read() -> None:
    assert parse_manifest(payload()).graphs["main"].dynamic["N"].max == 8


def test_reading_what_was_written_gives_the_same() -> None:
    manifest = parse_manifest(payload())
    assert parse_manifest(encode_manifest(manifest)) == manifest


def test_the_order_of_keys_does_not_change_what_is_written() -> None:
    turned = json.dumps(dict(reversed(VALID.items()))).encode()
    assert encode_manifest(parse_manifest(turned)) == encode_manifest(parse_manifest(payload()))


def test_with_a_pipeline_the_interface_may_differ_from_the_graph() -> None:
    def change(manifest: Json) -> None:
        add_file("code/pipeline.py")(manifest)
        put("interface", "inputs", 0, "datatype")("BYTES")(manifest)

    assert parse_manifest(payload(change)).interface.inputs[0].datatype == "BYTES"


@pytest.mark.parametrize(("change", "reason"), IDENTITY)
def test_a_wrong_word_about_the_bundle_is_refused(change: Change, reason: str) -> None:
    assert refusal(payload(change)).reason == reason


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_is_not_plain_is_refused(path: str) -> None:
    assert refusal(payload(add_file(path))).reason == "MANIFEST_PATH"


@pytest.mark.parametrize(("size", "reason"), SIZES)
def test_a_size_beyond_reason_is_refused(size: object, reason: str) -> None:
    assert refusal(payload(put("files", 0, "size_bytes")(size))).reason == reason


@pytest.mark.parametrize("digest", ["", "0" * 63, "A" * 64, "g" * 64])
def test_a_hash_that_is_none_is_refused(digest: str) -> None:
    assert refusal(payload(put("files", 0, "sha256")(digest))).reason == "MANIFEST_SHA256"


@pytest.mark.parametrize(("change", "reason"), GRAPHS)
def test_a_graph_or_interface_that_contradicts_itself_is_refused(
    change: Change, reason: str
) -> None:
    assert refusal(payload(change)).reason == reason


@pytest.mark.parametrize(("change", "reason"), GOLDEN)
def test_goldens_that_prove_nothing_are_refused(change: Change, reason: str) -> None:
    assert refusal(payload(change)).reason == reason


def test_recorded_graph_outputs_need_a_tolerance() -> None:
    def change(manifest: Json) -> None:
        outputs = {"y": "golden/one/y.npy", "label": "golden/one/label.json"}
        recorded = {"inputs": {"x": "golden/one/x.npy"}, "outputs": outputs}
        put(*CASE, "graphs")({"main": recorded})(manifest)

    assert refusal(payload(change)).reason == "MANIFEST_TOLERANCE"


def test_an_8_bit_output_with_a_tolerance_of_all_values_is_refused() -> None:
    def change(manifest: Json) -> None:
        for where in (manifest["graphs"]["main"], manifest["interface"]):
            where["outputs"][0]["datatype"] = "UINT8"
        tolerate(kind="close", rtol=0.0, atol=255.0)(manifest)

    assert refusal(payload(change)).reason == "MANIFEST_TOLERANCE"


def test_cosine_of_a_single_number_is_refused() -> None:
    def change(manifest: Json) -> None:
        for where in (manifest["graphs"]["main"], manifest["interface"]):
            where["outputs"][0]["shape"] = [1]
        tolerate(kind="cosine", min=0.99)(manifest)

    assert refusal(payload(change)).reason == "MANIFEST_TOLERANCE"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "MANIFEST_NOT_JSON"),
        (b"[]", "MANIFEST_TYPE"),
        (b"{} {}", "MANIFEST_NOT_JSON"),
        (b"\xff\xfe{\0}\0", "MANIFEST_NOT_JSON"),
        (b"\xef\xbb\xbf{}", "MANIFEST_NOT_JSON"),
        (b'{"schema": NaN}', "MANIFEST_NOT_JSON"),
        (b'{"schema": -Infinity}', "MANIFEST_NOT_JSON"),
        (b'{"schema": 1e999}', "MANIFEST_SCHEMA"),
        (b'{"schema": 1' + b"0" * 5000 + b"}", "MANIFEST_NOT_JSON"),
        (b'{"name": "\\ud800"}', "MANIFEST_NOT_JSON"),
        (b"[" * 100_000, "MANIFEST_NOT_JSON"),
        (b'{"a":' * 100_000, "MANIFEST_NOT_JSON"),
        (b'{"schema": 1, "schema": 1}', "MANIFEST_DUPLICATE_KEY"),
        (b'{"targets": {"memory_mb": 1, "memory_mb": 2}}', "MANIFEST_DUPLICATE_KEY"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "MANIFEST_TOO_BIG"),
    ],
    ids=lambda value: value[:30] if isinstance(value, (str, bytes)) else None,
)
def test_what_is_not_strict_json_is_refused(data: bytes, reason: str) -> None:
    assert refusal(data).reason == reason


def test_a_tolerance_of_nan_is_refused() -> None:
    data = payload(tolerate(kind="close", rtol=float("nan"), atol=0.0))
    assert refusal(data).reason == "MANIFEST_NOT_JSON"


def test_the_sentence_names_expectation_and_finding_and_stays_short() -> None:
    message = refusal(payload(put("name")("X" * 100_000))).message
    assert "expected 1-64" in message
    assert len(message) < 300


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
PLACES = [
    (*prefix, key)
    for prefix, part in [
        ((), VALID),
        (GRAPH, VALID["graphs"]["main"]),
        ((*GRAPH, "inputs", 0), VALID["graphs"]["main"]["inputs"][0]),
        (("interface", "outputs", 0), VALID["interface"]["outputs"][0]),
        (("golden",), VALID["golden"]),
        (CASE, VALID["golden"]["cases"][0]),
        (("golden", "tolerances", "y"), VALID["golden"]["tolerances"]["y"]),
        (("files", 0), VALID["files"][0]),
    ]
    for key in part
]


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_typed_error(data: bytes) -> None:
    with contextlib.suppress(BundleError):
        parse_manifest(data)


@given(st.sampled_from(PLACES), JSON_VALUES)
def test_any_value_in_any_place_is_read_or_a_typed_error(
    place: tuple[str | int, ...], value: object
) -> None:
    with contextlib.suppress(BundleError):
        parse_manifest(payload(put(*place)(value)))
