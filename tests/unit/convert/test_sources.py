"""What a model is, by its file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from superbrain.convert.errors import SourceRefused
from superbrain.convert.sources import copy_source, digest_of, look_at_source
from tests.support.graphs import save_with_weights
from tests.support.models import write_file


def archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for name in names:
            made.writestr(name, "")
    return path


@pytest.mark.parametrize(
    ("file", "framework", "kind"),
    [
        ("net.pt2", "torch", "export"),
        ("net.keras", "tensorflow", "keras"),
        ("net.H5", "tensorflow", "keras"),
        ("frozen.pb", "tensorflow", "frozen"),
        ("model.joblib", "sklearn", "pickle"),
        ("model.pkl", "sklearn", "pickle"),
        ("model.onnx", "onnx", "onnx"),
    ],
)
def test_a_file_is_known_by_its_suffix(
    tmp_path: Path, file: str, framework: str, kind: str
) -> None:
    write_file(tmp_path / file, "x")
    found = look_at_source(str(tmp_path / file), trust_pickle=True)
    assert (found.framework, found.kind) == (framework, kind)


def test_folders_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    write_file(tmp_path / "saved/saved_model.pb", "x")
    write_file(tmp_path / "paddle/inference.pdiparams", "x")
    assert look_at_source(str(tmp_path / "saved")).kind == "saved_model"
    assert look_at_source(str(tmp_path / "paddle")).framework == "paddle"


def test_torchscript_is_known_by_the_code_in_it(tmp_path: Path) -> None:
    script = archive(tmp_path / "a.pt", "a/data.pkl", "a/constants.pkl", "a/code/x.py")
    assert look_at_source(str(script)).kind == "script"


def test_a_function_is_one_when_no_file_is_there() -> None:
    assert look_at_source("models.nets:make_net").kind == "function"


@pytest.mark.parametrize("file", ["model.joblib", "model.pkl"])
def test_a_pickle_is_refused_unless_it_is_trusted(tmp_path: Path, file: str) -> None:
    write_file(tmp_path / file, "x")
    with pytest.raises(SourceRefused, match="runs whatever code is in it") as refused:
        look_at_source(str(tmp_path / file))
    assert (refused.value.code, "--trust-pickle" in refused.value.mend) == (
        "PICKLE_NOT_TRUSTED",
        True,
    )


def test_a_pickled_module_is_refused_unless_it_is_trusted(tmp_path: Path) -> None:
    whole = archive(tmp_path / "net.pt", "net/data.pkl")
    with pytest.raises(SourceRefused) as refused:
        look_at_source(str(whole))
    assert refused.value.code == "PICKLE_NOT_TRUSTED"


@pytest.mark.parametrize("given", ["nowhere.onnx", "no/such:thing"])
def test_what_is_not_there_is_refused(given: str) -> None:
    with pytest.raises(SourceRefused) as refused:
        look_at_source(given)
    assert refused.value.code == "SOURCE_MISSING"


def test_another_framework_than_the_author_says_is_refused(tmp_path: Path) -> None:
    write_file(tmp_path / "model.onnx", "x")
    with pytest.raises(SourceRefused) as refused:
        look_at_source(str(tmp_path / "model.onnx"), "keras")
    assert refused.value.code == "SOURCE_FORM"


def test_weights_beside_a_graph_are_copied_with_it(tmp_path: Path) -> None:
    model = save_with_weights(tmp_path / "model.onnx", "parts/w.bin")
    write_file(tmp_path / "parts/w.bin", b"\0" * 4)
    copy = copy_source(model, tmp_path / "copy")
    assert (copy.parent / "parts/w.bin").read_bytes() == b"\0" * 4


def test_weights_outside_of_a_graphs_folder_are_refused(tmp_path: Path) -> None:
    model = save_with_weights(tmp_path / "model.onnx", "../w.bin")
    with pytest.raises(SourceRefused, match=r"\.\./w\.bin"):
        copy_source(model, tmp_path / "copy")


def test_a_change_in_a_folder_changes_its_digest(tmp_path: Path) -> None:
    write_file(tmp_path / "a/x", "1")
    before = digest_of(tmp_path)
    write_file(tmp_path / "a/x", "2")
    assert digest_of(tmp_path) != before
