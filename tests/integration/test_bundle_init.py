"""From an ONNX file to a bundle's folder, through the command that is typed."""

from __future__ import annotations

import itertools
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest

from superbrain.bundle.folder import read_recipe
from superbrain.cli.main import main
from superbrain.domain.manifest import Range
from tests.support.authors import Superbrain, folder, save_array, superbrain
from tests.support.graphs import ADD, DOUBLE, TinyGraph, identity, save_graph, tensor
from tests.support.models import write_file
from tests.support.template_models import save_classifier, save_text_finder, save_text_reader

__all__ = ["folder", "superbrain"]
pytestmark = pytest.mark.integration


def test_init_writes_what_the_graph_declares(folder: Path) -> None:
    (graph,) = read_recipe(folder).graphs.values()
    assert (graph.path, graph.inputs, graph.outputs) == (
        "graphs/double.onnx",
        DOUBLE.inputs,
        DOUBLE.outputs,
    )


@pytest.mark.parametrize("there", [[], ["notes.txt"]], ids=["a new folder", "one with a file"])
def test_init_on_a_full_disk_leaves_nothing_of_a_bundle_behind(
    tmp_path: Path, there: list[str]
) -> None:
    model, target = save_graph(tmp_path / "double.onnx", DOUBLE), tmp_path / "made"
    for name in there:
        target.mkdir()
        (target / name).write_text("mine")
    words = ["bundle", "init", str(model), "--directory", str(target)]
    command = [sys.executable, "-m", "superbrain.cli.main", *words]
    small = ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", *command]
    ended = subprocess.run(small, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: {target}: expected to write there, found: File too l")
    assert sorted(path.name for path in target.rglob("*")) == there
    assert target.exists() == bool(there)
    assert main(words) == 0


def test_init_guesses_bounds_for_dynamic_sizes(folder: Path) -> None:
    assert read_recipe(folder).graphs["double"].dynamic == {"N": Range(1, 1, 8)}


def test_init_copies_the_graph(folder: Path) -> None:
    copied, given = folder / "graphs/double.onnx", folder.parent / "double.onnx"
    assert copied.read_bytes() == given.read_bytes()


def test_init_explains_every_field_it_writes(folder: Path) -> None:
    lines = (folder / "bundle.toml").read_text().splitlines()
    explained = {"inputs", "outputs"}  # by the comment above their table
    fields = [
        (above, line)
        for above, line in itertools.pairwise(lines)
        if line[:1].isalpha() and line.partition(" =")[0] not in explained
    ]
    tables = ("[graphs", "[targets]", "[golden", "memory_mb")
    assert [line for above, line in fields if not above.startswith(("#", *tables))] == []


def test_the_written_recipe_is_plain_toml(folder: Path) -> None:
    assert tomllib.loads((folder / "bundle.toml").read_text())["schema"] == 1


def test_init_makes_no_golden_case_up(folder: Path) -> None:
    assert [path.name for path in (folder / "golden").iterdir()] == ["README.md"]


def test_init_says_what_to_do_next(tmp_path: Path, superbrain: Superbrain) -> None:
    model = save_graph(tmp_path / "double.onnx", DOUBLE)
    _, output, _ = superbrain("init", model, "--directory", tmp_path / "d")
    assert f"superbrain bundle record-golden {tmp_path / 'd'} --case first --input x=FILE" in output
    assert f"superbrain bundle prove {tmp_path / 'd'}" in output


def test_what_init_says_to_type_next_is_quoted_where_a_shell_needs_it(
    tmp_path: Path, superbrain: Superbrain
) -> None:
    x, y = tensor("x;(1)", "FP32", "N"), tensor("y", "FP32", "N")
    graph = TinyGraph([("Abs", ["x;(1)"], ["y"])], [x], [y], {"N": Range(1, 2, 4)})
    model = save_graph(tmp_path / "abs.onnx", graph)
    _, output, _ = superbrain("init", model, "--directory", tmp_path / "my recipe")
    typed = [shlex.split(line) for line in output.splitlines() if "superbrain bundle" in line]
    place = str(tmp_path / "my recipe")
    record, prove, build = (line[line.index("bundle") + 1 :] for line in typed)
    assert record == ["record-golden", place, "--case", "first", "--input", "x;(1)=FILE"]
    assert prove == ["prove", place]
    assert build == ["build", place, "--key", "FILE.key"]


def test_init_names_the_bundle_after_the_file(
    tmp_path: Path, superbrain: Superbrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    superbrain("init", save_graph(tmp_path / "My Model (v2).onnx", DOUBLE))
    assert read_recipe(tmp_path / "my-model-v2").name == "my-model-v2"


def test_init_leaves_a_folder_that_has_a_recipe_alone(folder: Path, superbrain: Superbrain) -> None:
    before = (folder / "bundle.toml").read_bytes()
    code, _, errors = superbrain("init", folder.parent / "double.onnx", "--directory", folder)
    assert (code, (folder / "bundle.toml").read_bytes()) == (1, before)
    assert "expected no bundle there yet" in errors


def test_init_with_a_template_says_what_to_edit_and_what_to_send(
    tmp_path: Path, superbrain: Superbrain
) -> None:
    model = save_classifier(tmp_path / "colours.onnx")
    code, output, errors = superbrain(
        "init", model, "--template", "classification", "--directory", tmp_path / "c"
    )
    assert (code, errors) == (0, "")
    assert f"edit the constants at the top of {tmp_path / 'c/code/pipeline.py'}" in output
    assert f"look through {tmp_path / 'c/assets/labels.txt'}" in output
    assert f"record-golden {tmp_path / 'c'} --case first --input image=FILE" in output


def test_init_explains_every_field_of_a_template_too(
    tmp_path: Path, superbrain: Superbrain
) -> None:
    det = save_text_finder(tmp_path / "a.onnx")
    rec = save_text_reader(tmp_path / "b.onnx")
    graphs = ("--graph", f"det={det}", "--graph", f"rec={rec}")
    folder = tmp_path / "read"
    assert superbrain("init", "--template", "ocr", *graphs, "--directory", folder)[0] == 0
    recipe = read_recipe(folder)
    assert recipe.name == "ocr"
    assert {name: graph.path for name, graph in recipe.graphs.items()} == {
        "det": "graphs/det.onnx",
        "rec": "graphs/rec.onnx",
    }
    text = (folder / "bundle.toml").read_text()
    assert text.count("# One part like this for every graph's file") == 1
    assert "# Pixels instead of a file" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--template", "ocr", "MODEL"],
            "takes --graph det=FILE.onnx --graph rec=",
        ),
        (["--template", "ocr", "--graph", "det=MODEL"], "takes --graph det=FILE.onnx"),
        (["--template", "audio", "--graph", "x=MODEL"], "expected MODEL.onnx, and --graph only"),
        (["--graph", "xMODEL"], "expected NAME=FILE.onnx, found 'xMODEL'"),
        ([], "expected MODEL.onnx"),
        (["MODEL", "--template", "audio", "--pipeline"], "not allowed with argument"),
        (["MODEL", "--template", "poetry"], "invalid choice: 'poetry'"),
    ],
)
def test_init_says_which_graphs_a_template_takes(
    superbrain: Superbrain, words: list[str], said: str
) -> None:
    code, _, errors = superbrain("init", *words)
    assert code == 2
    assert said in errors


def test_init_leaves_no_folder_where_a_template_does_not_fit(
    tmp_path: Path, superbrain: Superbrain
) -> None:
    model = save_graph(tmp_path / "double.onnx", DOUBLE)
    code, _, errors = superbrain(
        "init", model, "--template", "detection", "--directory", tmp_path / "d"
    )
    assert code == 1
    assert "expected one input, a picture of [1, 3, H, W]" in errors
    assert "Take another --template" in errors
    assert not (tmp_path / "d").exists()


def test_init_keeps_weights_of_like_names_apart(tmp_path: Path, superbrain: Superbrain) -> None:
    graphs = []
    # The reader's axes have to stay inside, or nobody can tell the shapes.
    for name, save, least in (("det", save_text_finder, 0), ("rec", save_text_reader, 45)):
        model = onnx.load(save(tmp_path / "plain.onnx"))
        path = tmp_path / name / "model.onnx"
        path.parent.mkdir()
        onnx.save(model, path, save_as_external_data=True, location="w.data", size_threshold=least)
        graphs += ["--graph", f"{name}={path}"]
    folder = tmp_path / "read"
    done = superbrain("init", "--template", "ocr", *graphs, "--directory", folder)
    assert (done[0], done[2]) == (0, "")
    for name in ("det", "rec"):
        kept = (folder / f"graphs/{name}/w.data").read_bytes()
        assert kept == (tmp_path / name / "w.data").read_bytes()


def test_init_refuses_a_file_that_is_no_graph(tmp_path: Path, superbrain: Superbrain) -> None:
    write_file(tmp_path / "x.onnx", "no graph")
    code, _, errors = superbrain("init", tmp_path / "x.onnx", "--directory", tmp_path / "x")
    assert (code, (tmp_path / "x").exists()) == (1, False)
    assert "expected an ONNX file" in errors


@pytest.mark.parametrize("name", ["Not Valid", "../up", "x" * 65])
def test_init_refuses_a_name_no_bundle_can_have(
    tmp_path: Path, superbrain: Superbrain, name: str
) -> None:
    model = save_graph(tmp_path / "double.onnx", DOUBLE)
    code, _, _ = superbrain("init", model, "--directory", tmp_path / "d", "--name", name)
    assert (code, (tmp_path / "d").exists()) == (1, False)


ODD = TinyGraph(
    [("Identity", ["in.0"], ["out:0"]), ("Identity", ["text"], ["words"])],
    [tensor("in.0", "FP16", 'a "b"', "unk 1"), tensor("text", "BYTES")],
    [tensor("out:0", "FP16", 'a "b"', "unk 1"), tensor("words", "BYTES")],
)


@pytest.mark.parametrize("graph", [ADD, ODD, identity("BYTES"), identity("BOOL", "N", 0)])
@pytest.mark.parametrize("options", [(), ("--pipeline",)])
def test_what_init_writes_can_be_recorded_and_proven_at_once(
    tmp_path: Path, superbrain: Superbrain, graph: TinyGraph, options: tuple[str, ...]
) -> None:
    made = tmp_path / "made"
    model = save_graph(tmp_path / "model.onnx", graph)
    assert superbrain("init", model, "--directory", made, *options)[0] == 0
    for one in graph.inputs:
        if one.datatype == "BYTES":
            write_file(made / f"golden/one/request/{one.name}.txt", "grüße")
        else:
            dtype = {"FP16": "f2", "FP32": "f4", "BOOL": "?"}[one.datatype]
            sizes = [2 if isinstance(size, str) else size for size in one.shape]
            path = made / f"golden/one/request/{one.name}.npy"
            save_array(path)
            np.save(path, np.ones(sizes, dtype))
    assert superbrain("record-golden", made)[::2] == (0, "")
    assert superbrain("prove", made)[::2] == (0, "")
