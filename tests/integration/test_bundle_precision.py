"""`superbrain bundle precision`: files that prove are kept, nothing that was there is changed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from superbrain.bundle.folder import read_folder
from superbrain.cli import author_precision
from superbrain.cli.main import EXIT_MISSING_EXTRA, main
from superbrain.engines.port import EngineError
from superbrain.serve.converting import Converted, ConvertedGraph, convert_staged, stage
from tests.support import autocast
from tests.support.networks import classifier_folder

pytestmark = pytest.mark.integration

Superbrain = Callable[..., tuple[int, str, str]]


@pytest.fixture
def superbrain(capfd: pytest.CaptureFixture[str]) -> Superbrain:
    """Run `superbrain bundle precision …`; gives exit code, output and errors."""

    def run(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(["bundle", "precision", *map(str, words)])
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return classifier_folder(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_proves_is_kept_and_what_made_it_and_what_to_add_is_printed(
    folder: Path, tmp_path: Path, superbrain: Superbrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", autocast.python_with(tmp_path / "venv", autocast.CASTS))
    before = contents(folder)
    code, output, errors = superbrain(folder)
    assert (code, errors) == (0, "")
    assert "its own" not in output
    assert f"\nmain: by {autocast.NAME}\n" in output
    assert "\nmain: by static quantisation, onnxruntime " in output
    after = contents(folder)
    assert after.keys() - before.keys() == {"graphs/main.fp16.onnx", "graphs/main.int8.onnx"}
    assert before.items() <= after.items()
    advice = output.partition("Add to bundle.toml")[2]
    assert 'fp16 = "graphs/main.fp16.onnx"\nint8 = "graphs/main.int8.onnx"' in advice
    recipe = folder / "bundle.toml"
    kept = [line for line in recipe.read_text().splitlines() if not line.startswith("ladder")]
    top, _, graphs = advice.partition("\n\n")
    recipe.write_text("\n".join([top, *kept, graphs]))
    assert read_folder(folder).select == "fastest"


def test_a_harmful_one_is_told_with_figures_and_not_kept(
    folder: Path, superbrain: Superbrain
) -> None:
    recipe = folder / "bundle.toml"
    exact = 'y = { kind = "close", rtol = 1e-7, atol = 1e-7 }'
    recipe.write_text(recipe.read_text().replace('y = { kind = "cosine", min = 0.995 }', exact))
    before = contents(folder)
    code, output, _ = superbrain(folder, "--to", "fp16", "--light", "--json")
    assert code == 1
    assert contents(folder) == before
    (attempt,) = json.loads(output)["attempts"]
    (graph,) = attempt["graphs"]
    assert (graph["samples"], attempt["kept"]) == (3, False)
    assert graph["converter"].startswith("rounding, onnxruntime ")
    assert graph["size_bytes"] < graph["original_bytes"]
    assert 0 < graph["outputs"][0]["max_abs_error"] < 0.1
    assert "is above atol 1e-07" in attempt["trial"]["proof"]["figures"][0]["reason"]


def test_a_file_that_is_there_is_not_overwritten_unasked(
    folder: Path, superbrain: Superbrain
) -> None:
    (folder / "graphs/main.fp16.onnx").write_bytes(b"mine")
    code, _, errors = superbrain(folder, "--to", "fp16")
    assert code == 1
    assert "main.fp16.onnx: expected no such file yet, found one" in errors
    assert "--replace" in errors
    assert (folder / "graphs/main.fp16.onnx").read_bytes() == b"mine"


def test_an_unknown_graph_is_answered_with_the_right_ones(
    folder: Path, superbrain: Superbrain
) -> None:
    code, _, errors = superbrain(folder, "--graph", "other")
    assert code == 1
    assert "--graph: expected one of main, found 'other'" in errors


def test_without_onnx_the_extra_is_named(
    folder: Path, superbrain: Superbrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(author_precision, "find_spec", lambda _name: None)
    code, _, errors = superbrain(folder)
    assert code == EXIT_MISSING_EXTRA
    assert "pip install 'superbrain[author]'" in errors


def test_a_converter_that_changes_its_input_is_found_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = tmp_path / "staged"
    staged.mkdir()
    stage(folder, staged)

    def overwrite(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:  # noqa: ANN401
        graph = staged / "graphs/main.onnx"
        graph.write_bytes((folder / "graphs/main.onnx").read_bytes() + b"\x40\x00")
        Path(command[-1]).write_bytes(msgspec.msgpack.encode(Converted()))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", overwrite)
    with pytest.raises(EngineError, match="expected the converter to int8 to leave its input"):
        convert_staged(staged, read_folder(folder), ["main"], "int8")


def test_an_autocast_that_harms_its_input_is_refused_with_the_way_around_it(
    folder: Path, tmp_path: Path, superbrain: Superbrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = autocast.python_with(tmp_path / "venv", autocast.OVERWRITES)
    monkeypatch.setattr(sys, "executable", python)
    monkeypatch.setattr("superbrain.engines.autocast.installed_version", lambda: autocast.VERSION)
    before = contents(folder)
    code, _, errors = superbrain(folder, "--to", "fp16")
    assert code == 1
    assert "expected the converter to fp16 to leave its input as it was, found it changed" in errors
    assert "--light" in errors
    assert contents(folder) == before


def test_what_autocast_failed_with_is_shown(
    folder: Path, superbrain: Superbrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    by, why, mend = "rounding, onnxruntime 1.31.1", "AutoCast, is installed and did not", "Help it"
    graph = ConvertedGraph("main", "fp16", "", error="no", mend=mend, converter=by, note=why)
    monkeypatch.setattr(author_precision, "convert_staged", lambda *_, **__: Converted([graph]))
    code, output, _ = superbrain(folder, "--to", "fp16")
    assert code == 1
    said = ("by rounding, onnxruntime 1.31.1", why, "not made: no")
    assert "\n".join(f"main: {one}" for one in said) in output
    assert "→ Help it" in output


def test_a_bundle_that_does_not_run_is_told_once(folder: Path, superbrain: Superbrain) -> None:
    (folder / "code").mkdir()
    (folder / "code/pipeline.py").write_text("import os\nos._exit(7)\n")
    code, _, errors = superbrain(folder, "--to", "fp16")
    assert code == 1
    assert "expected the graphs in fp16, found that the process ended with status 7" in errors
