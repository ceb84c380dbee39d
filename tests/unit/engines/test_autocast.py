"""AutoCast: taken where it is installed, replaced with a sentence where it fails, never heard."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from superbrain.engines import autocast
from superbrain.engines.conversion import Made, convert, mend_of
from superbrain.engines.graph_check import check_graph
from superbrain.engines.onnx_session import file_tensors, import_library, open_session
from superbrain.engines.port import EngineError
from tests.support import autocast as stand_ins
from tests.support.graphs import declare
from tests.support.networks import CLASSIFIER, classifier_network

SAMPLES = [{"x": np.full((1, 3, 16, 16), value, np.float32)} for value in range(20)]
ROUNDING = f"rounding, onnxruntime {onnxruntime.__version__}"
Install = Callable[[str], None]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "graph/main.onnx"
    path.parent.mkdir()
    onnx.save(classifier_network(), path)
    return path


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    """Put a stand-in on the path; without a call, nothing of the name is installed.

    And take only that off again: ONNX Runtime puts a folder of its own there when it is imported.
    """
    place = str(tmp_path / "packages")

    def put(body: str) -> None:
        stand_ins.stand_in(tmp_path / "packages", body)
        sys.path.insert(0, place)
        importlib.invalidate_caches()

    yield put
    if place in sys.path:
        sys.path.remove(place)
    for name in [name for name in sys.modules if name.split(".")[0] == "modelopt"]:
        del sys.modules[name]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_where_it_is_installed_it_converts_sees_samples_and_is_named(
    source: Path, tmp_path: Path, install: Install, capfd: pytest.CaptureFixture[str]
) -> None:
    install(stand_ins.CASTS)
    before, target = contents(source.parent), tmp_path / "fp16.onnx"
    assert convert("fp16", source, target, SAMPLES) == Made(stand_ins.NAME)
    assert contents(source.parent) == before
    session = open_session(import_library(), target, "CPUExecutionProvider", 1)
    check_graph("fp16", declare(CLASSIFIER), *file_tensors(target, session))
    (asked,) = [json.loads(one.value) for one in onnx.load(target).metadata_props]
    assert asked == {"precision": "fp16", "samples": [["x"]] * 7}
    assert capfd.readouterr() == ("", "")


def test_an_input_may_be_called_as_numpy_calls_its_own_arguments(
    source: Path, tmp_path: Path, install: Install
) -> None:
    install(stand_ins.CASTS)
    target = tmp_path / "fp16.onnx"
    autocast.cast(source, target, [{"file": np.zeros(1), "a/b:0": np.zeros(2)}])
    (asked,) = [json.loads(one.value) for one in onnx.load(target).metadata_props]
    assert asked["samples"] == [["a/b:0", "file"]]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (stand_ins.REFUSES, "RuntimeError: node 'conv' has no type"),
        (stand_ins.WRITES_NONSENSE, "Nonsense"),
        (
            stand_ins.LACKS,
            "No module named 'onnx_graphsurgeon'. It needs beside it, instead of its ",
        ),
    ],
)
def test_where_it_fails_the_light_converter_does_it_and_the_reason_is_told(
    source: Path, tmp_path: Path, install: Install, body: str, why: str
) -> None:
    install(body)
    before, target = contents(source.parent), tmp_path / "fp16.onnx"
    made = convert("fp16", source, target, SAMPLES)
    assert made.converter == ROUNDING
    assert made.note.startswith(f"{stand_ins.NAME}, is installed and did not convert main.onnx: ")
    assert why in made.note
    assert contents(source.parent) == before
    open_session(import_library(), target, "CPUExecutionProvider", 1)


def test_samples_that_it_cannot_take_are_a_reason_like_any_other(
    source: Path, tmp_path: Path, install: Install
) -> None:
    install(stand_ins.CASTS)
    texts = [{"x": np.array(["a", b"b"], dtype=object)}]
    made = convert("fp16", source, tmp_path / "fp16.onnx", texts)
    assert (made.converter, "Object arrays" in made.note) == (ROUNDING, True)


def test_a_graph_that_nothing_converts_is_refused_as_before(
    tmp_path: Path, install: Install
) -> None:
    install(stand_ins.CASTS)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no protobuf at all")
    with pytest.raises(EngineError, match=r"broken\.onnx: expected a graph that converts to fp16"):
        convert("fp16", broken, tmp_path / "fp16.onnx", SAMPLES)


def test_light_leaves_it_alone(source: Path, tmp_path: Path, install: Install) -> None:
    install(stand_ins.DIES)
    assert convert("fp16", source, tmp_path / "a.onnx", SAMPLES, light=True) == Made(ROUNDING)
    assert "modelopt" not in sys.modules


def test_it_is_imported_for_fp16_alone(source: Path, tmp_path: Path, install: Install) -> None:
    install(stand_ins.CASTS)
    assert autocast.installed_version() == stand_ins.VERSION
    assert convert("int8", source, tmp_path / "int8.onnx", SAMPLES[:2]).note == ""
    assert "modelopt" not in sys.modules


def test_what_may_help_is_said_where_it_does(install: Install) -> None:
    install(stand_ins.DIES)
    assert "--light" in mend_of("fp16", light=False)
    assert mend_of("fp16", light=True) == mend_of("int8", light=False) == ""
