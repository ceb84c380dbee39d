"""`superbrain convert` on ONNX files, whose "framework" this project's own environment already has.

What other frameworks need is in tests/conversions, which scripts/conversions runs.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from superbrain.bundle.folder import build, read_folder
from superbrain.cli.main import main
from superbrain.convert.environments import Stamp, lock_of
from superbrain.domain.manifest import Close, Range
from tests.support.appliance import Appliance
from tests.support.bundles import sign_key
from tests.support.networks import classifier_network, turned
from tests.support.walks import walk

pytestmark = pytest.mark.integration

Superbrain = Callable[..., tuple[int, str, str]]


@pytest.fixture
def superbrain(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Superbrain:
    """Run `superbrain convert …` with an environment for ONNX; exit code, output, errors."""
    monkeypatch.setenv("SUPERBRAIN_ENVIRONMENTS", str(tmp_path / "environments"))
    make_environment(tmp_path / "environments/onnx")

    def run(*words: object) -> tuple[int, str, str]:
        code = main(["convert", *map(str, words)])
        return code, *capfd.readouterr()

    return run


def make_environment(place: Path) -> None:
    """An environment whose Python is the one that runs these tests, and which has onnx."""
    (place / "bin").mkdir(parents=True)
    python = place / "bin/python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    stamp = Stamp("onnx", lock_of("onnx").digest, platform.python_version(), 1)
    (place / "superbrain.json").write_bytes(msgspec.json.encode(stamp))


def save(path: Path, scale: float = 1.0, shift: float = 0.5) -> Path:
    """A graph `y = softmax((x * scale - shift) @ weights)` of an old opset, sizes left open."""
    weights = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    constants = {
        "weights": weights,
        "scale": np.array([scale], np.float32),
        "shift": np.array([shift], np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "scale"], ["scaled"]),
            helper.make_node("Sub", ["scaled", "shift"], ["normal"]),
            helper.make_node("MatMul", ["normal", "weights"], ["product"]),
            helper.make_node("Softmax", ["product"], ["y"], axis=1),
        ],
        "old",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), path
    )
    return path


def test_a_graph_becomes_a_bundle_whose_goldens_are_its_own_answers(
    tmp_path: Path, superbrain: Superbrain
) -> None:
    model = save(tmp_path / "old.onnx")
    before = model.read_bytes()
    code, output, errors = superbrain(
        *(model, "--input", "x=float32[batch,4]", "--dynamic", "batch=1:3:7"),
        *("-o", tmp_path / "net", "--keep", tmp_path / "kept"),
    )
    assert code == 0, errors
    answered = tmp_path / "kept/samples/typical"
    both = [np.load(answered / f"{side}/0.npy") for side in ("original", "graph")]
    assert np.allclose(*both)
    assert "proven   on onnxruntime:cpu" in output
    assert f"superbrain bundle build {tmp_path / 'net'}" in output
    manifest = read_folder(tmp_path / "net")
    (graph,) = manifest.graphs.values()
    assert (graph.inputs[0].shape, graph.outputs[0].shape) == (["batch", 4], ["batch", 3])
    assert graph.dynamic == {"batch": Range(1, 3, 7)}
    assert {case.name for case in manifest.golden.cases} == {"typical", "smallest", "largest"}
    assert manifest.golden.tolerances == {"y": Close(1e-5, 5e-6)}
    text = (tmp_path / "net/bundle.toml").read_text()
    assert "The golden answers are the original's own" in text
    assert "#   y: 5 samples within" in text
    assert model.read_bytes() == before
    key = sign_key(tmp_path / "keys")
    assert build(tmp_path / "net", [key.signing], tmp_path).manifest.name == "net"


def test_another_normalisation_is_refused_with_figures_and_nothing_is_written(
    tmp_path: Path, superbrain: Superbrain
) -> None:
    original = save(tmp_path / "original.onnx")
    wrong = save(tmp_path / "wrong.onnx", shift=0.6)
    words = ("--against", original, "--dynamic", "x_0=1:3:7", "-o", tmp_path / "net")
    code, output, errors = superbrain(wrong, *words, "--json")
    said = json.loads(output)
    assert (code, said["error"]["code"]) == (4, "PARITY")
    assert said["figures"][0]["share"] > 1e-3
    assert "normalisation" in errors
    assert not (tmp_path / "net").exists()


def test_another_layout_is_refused_with_a_table_and_nothing_is_written(
    tmp_path: Path, superbrain: Superbrain
) -> None:
    onnx.save(classifier_network(), tmp_path / "original.onnx")
    wrong = turned(tmp_path / "original.onnx", tmp_path / "wrong.onnx")
    words = (
        "--against",
        tmp_path / "original.onnx",
        "--dynamic",
        "N=1:2:3",
        "-o",
        tmp_path / "net",
    )
    code, output, errors = superbrain(wrong, *words)
    assert (code, "does not agree" in output) == (4, True)
    assert "layout (NCHW, NHWC)" in errors
    assert not (tmp_path / "net").exists()


def test_the_walk_from_onnx_ends_with_an_answer_and_an_int8_file_that_holds(
    tmp_path: Path,
) -> None:
    make_environment(tmp_path / "environments/onnx")
    folder = tmp_path / "walk"
    folder.mkdir()
    with Appliance(tmp_path) as appliance:
        said = walk(folder, "from-onnx.md", sys.executable, tmp_path / "environments", appliance)
    assert "kept     onnxruntime:cpu-int8" in said
    assert "does not agree" in said
    assert not (folder / "wrong").exists()
    case = np.load(folder / "clouds/golden/sample-0/request/features.npy")
    assert np.array_equal(case, np.load(folder / "rows.npy")[1:2])
    manifest = read_folder(folder / "clouds")
    assert manifest.ladder == ["onnxruntime:cpu-int8", "onnxruntime:cpu"]
    assert (manifest.select, [*manifest.graphs["main"].precisions]) == ("fastest", ["int8"])
    plain = manifest.golden.tolerances["scores"]
    wide = manifest.golden.precision_tolerances["int8"]["scores"]
    assert isinstance(plain, Close)
    assert isinstance(wide, Close)
    assert plain.rtol <= 1e-4
    assert wide.rtol >= 2e-3


def test_a_missing_environment_is_told_with_a_code_of_its_own(
    tmp_path: Path, superbrain: Superbrain
) -> None:
    (tmp_path / "net.keras").write_text("x")
    code, output, errors = superbrain(tmp_path / "net.keras", "--json")
    assert (code, json.loads(output)["error"]["code"]) == (5, "NO_ENVIRONMENT")
    assert "superbrain convert --setup tensorflow" in errors


def test_environments_are_listed(superbrain: Superbrain) -> None:
    code, output, _ = superbrain("--environments", "--json")
    states = {one["framework"]: one["state"] for one in json.loads(output)}
    assert code == 0
    assert states == {
        "torch": "absent",
        "tensorflow": "absent",
        "paddle": "absent",
        "sklearn": "absent",
        "onnx": "ready",
    }
    assert "superbrain convert --setup torch" in superbrain("--environments")[1]


def test_what_is_no_model_is_told_by_the_framework(tmp_path: Path, superbrain: Superbrain) -> None:
    (tmp_path / "no.onnx").write_bytes(b"\x08\x07\x12\x02ab")
    code, output, _ = superbrain(tmp_path / "no.onnx", "-o", tmp_path / "net", "--json")
    assert code == 1
    assert "No graph was found" in json.loads(output)["error"]["message"]
    assert not (tmp_path / "net").exists()


def test_a_framework_that_dies_is_a_sentence_with_its_last_words(
    tmp_path: Path, superbrain: Superbrain
) -> None:
    (tmp_path / "environments/onnx/bin/python").write_text("#!/bin/sh\necho no GLIBC >&2; exit 3\n")
    code, output, _ = superbrain(save(tmp_path / "m.onnx"), "-o", tmp_path / "net", "--json")
    said = json.loads(output)["error"]
    assert (code, said["code"]) == (1, "FRAMEWORK_DIED")
    assert "ended with status 3: no GLIBC" in said["message"]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("m.onnx", "--input", "x"),
        ("m.onnx", "--dynamic", "b=3:2:1"),
        ("m.onnx", "--values", "x"),
        ("m.onnx", "--from", "caffe"),
        ("--setup", "caffe"),
        ("m.onnx", "--precision", "int4"),
        ("m.onnx", "--precision", "int8=2"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(
    superbrain: Superbrain, words: tuple[str, ...]
) -> None:
    assert superbrain(*words)[0] == 2
