"""An author's way from an ONNX file to a proven bundle, through the command that is typed."""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from superbrain.bundle.folder import build, read_folder, read_recipe
from superbrain.cli.main import main
from superbrain.domain.manifest import Range
from tests.support.bundles import make_trust_folder, sign_key
from tests.support.graphs import ADD, DOUBLE, TinyGraph, identity, save_graph, tensor
from tests.support.models import write_file
from tests.support.template_models import (
    save_classifier,
    save_text_finder,
    save_text_reader,
)

pytestmark = pytest.mark.integration

Superbrain = Callable[..., tuple[int, str, str]]


@pytest.fixture
def superbrain(capfd: pytest.CaptureFixture[str]) -> Superbrain:
    """Run `superbrain bundle …`; gives exit code, output and errors."""

    def run(*words: object) -> tuple[int, str, str]:
        code = main(["bundle", *map(str, words)])
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def folder(tmp_path: Path, superbrain: Superbrain) -> Path:
    """A folder as `init` makes it of DOUBLE."""
    model = save_graph(tmp_path / "double.onnx", DOUBLE)
    assert superbrain("init", model, "--directory", tmp_path / "double")[0] == 0
    return tmp_path / "double"


@pytest.fixture
def recorded(folder: Path, superbrain: Superbrain) -> Path:
    """The same with one golden case."""
    given = save_array(folder.parent / "given.npy", 1, 2)
    code, _, errors = superbrain("record-golden", folder, "--case", "one", "--input", f"x={given}")
    assert (code, errors) == (0, "")
    return folder


def save_array(path: Path, *values: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(values, np.float32))
    return path


def change(folder: Path, old: str, new: str) -> None:
    """Edit bundle.toml."""
    path = folder / "bundle.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def add_code(folder: Path, code: str) -> None:
    write_file(folder / "code/pipeline.py", code)


def pipeline(postprocess: str, head: str = "") -> str:
    return (
        f"import numpy as np\n{head}\nclass Pipeline:\n    def __init__(self, bundle): ...\n"
        f"    def preprocess(self, request): return request\n"
        f"    def postprocess(self, outputs, request):\n        {postprocess}\n"
    )


# --- init ---------------------------------------------------------------------------------------


def test_init_writes_what_the_graph_declares(folder: Path) -> None:
    (graph,) = read_recipe(folder).graphs.values()
    assert (graph.path, graph.inputs, graph.outputs) == (
        "graphs/double.onnx",
        DOUBLE.inputs,
        DOUBLE.outputs,
    )


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


def test_init_makes_no_golden_case_up(folder: Path) -> None:
    assert [path.name for path in (folder / "golden").iterdir()] == ["README.md"]


def test_init_says_what_to_do_next(tmp_path: Path, superbrain: Superbrain) -> None:
    model = save_graph(tmp_path / "double.onnx", DOUBLE)
    _, output, _ = superbrain("init", model, "--directory", tmp_path / "d")
    assert f"superbrain bundle record-golden {tmp_path / 'd'} --case first --input x=FILE" in output
    assert f"superbrain bundle prove {tmp_path / 'd'}" in output


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


# --- record-golden ------------------------------------------------------------------------------


def test_recording_stores_request_and_response(recorded: Path) -> None:
    case = recorded / "golden/one"
    assert np.load(case / "request/x.npy").tolist() == [1.0, 2.0]
    assert np.load(case / "response/y.npy").tolist() == [2.0, 4.0]


def test_recording_makes_the_folder_a_whole_bundle(recorded: Path) -> None:
    assert [case.name for case in read_folder(recorded).golden.cases] == ["one"]


def test_recording_shows_the_answers_an_author_vouches_for(
    folder: Path, superbrain: Superbrain
) -> None:
    save_array(folder / "golden/one/request/x.npy", 1, 2.5)
    _, output, _ = superbrain("record-golden", folder)
    row = next(line for line in output.splitlines() if "response" in line)
    assert row.split() == ["one", "response", "y", "FP32[2]", "2,", "5"]
    assert "are these responses right?" in output


def test_recorded_answers_fit_on_80_columns(
    folder: Path, superbrain: Superbrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    save_array(folder / "golden/a-case-with-a-name/request/x.npy", *np.arange(8) / 3)
    _, output, _ = superbrain("record-golden", folder)
    table = output.partition("files ")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "0, 0.666667, 1.33333, 2, …" in table


def test_recording_without_a_case_records_every_request_present(
    folder: Path, superbrain: Superbrain
) -> None:
    for name in ("a", "b"):
        save_array(folder / f"golden/{name}/request/x.npy", 1)
    superbrain("record-golden", folder)
    assert [case.name for case in read_folder(folder).golden.cases] == ["a", "b"]


def test_recording_again_replaces_what_was_there(recorded: Path, superbrain: Superbrain) -> None:
    add_code(recorded, pipeline('return {"y": outputs["y"] * 2}'))
    write_file(recorded / "golden/one/response/stale.npy", "left over")
    superbrain("record-golden", recorded)
    assert [path.name for path in (recorded / "golden/one/response").iterdir()] == ["y.npy"]
    assert np.load(recorded / "golden/one/response/y.npy").tolist() == [4.0, 8.0]


TEXT_INTERFACE = '"x", datatype = "FP32", shape = [-1], description = ""'


@pytest.mark.parametrize(("answer", "suffix"), [("'text'", ".txt"), ("b'\\xff'", ".bin")])
def test_a_blob_is_stored_as_text_where_it_is_text(
    folder: Path, superbrain: Superbrain, answer: str, suffix: str
) -> None:
    change(
        folder,
        '"y", datatype = "FP32", shape = [-1], description',
        '"y", datatype = "BYTES", shape = [], description',
    )
    change(folder, 'y = { kind = "close", rtol = 0.001, atol = 1e-05 }', 'y = { kind = "exact" }')
    add_code(folder, pipeline(f'return {{"y": {answer}}}'))
    save_array(folder / "golden/one/request/x.npy", 1)
    superbrain("record-golden", folder)
    assert [path.name for path in (folder / "golden/one/response").iterdir()] == [f"y{suffix}"]


def test_a_request_file_keeps_its_kind(folder: Path, superbrain: Superbrain) -> None:
    change(folder, TEXT_INTERFACE, '"x", datatype = "BYTES", shape = [], description = ""')
    add_code(
        folder,
        "import numpy as np\nclass Pipeline:\n    def __init__(self, bundle): ...\n"
        "    def preprocess(self, request): return {'x': np.frombuffer(request['x'], 'f4')}\n"
        "    def postprocess(self, outputs, request): return outputs\n",
    )
    photo = folder.parent / "photo.jpg"
    write_file(photo, bytes(8))
    superbrain("record-golden", folder, "--case", "one", "--input", f"x={photo}")
    assert (folder / "golden/one/request/x.jpg").read_bytes() == bytes(8)


def test_graphs_are_recorded_when_asked_for(folder: Path, superbrain: Superbrain) -> None:
    change(folder, "# [golden.graph_tolerances.double]", "[golden.graph_tolerances.double]\n"
           'y = { kind = "exact" }')  # fmt: skip
    add_code(folder, pipeline('outputs["y"] += 1\n        return outputs'))
    save_array(folder / "golden/one/request/x.npy", 1)
    assert superbrain("record-golden", folder, "--graphs")[0] == 0
    graph = folder / "golden/one/graphs/double"
    assert np.load(graph / "inputs/x.npy").tolist() == [1.0]
    assert np.load(graph / "outputs/y.npy").tolist() == [2.0]


def test_recorded_graphs_are_proven(folder: Path, superbrain: Superbrain) -> None:
    change(folder, "# [golden.graph_tolerances.double]", "[golden.graph_tolerances.double]\n"
           'y = { kind = "exact" }')  # fmt: skip
    save_array(folder / "golden/one/request/x.npy", 1)
    superbrain("record-golden", folder, "--graphs")
    _, output, _ = superbrain("prove", folder)
    assert "double/y" in output


REFUSALS: dict[str, tuple[str, str]] = {
    "NaN": ('return {"y": outputs["y"] * np.nan}', "NaN at [0]"),
    "another answer every time": (
        'COUNT.append(1)\n        return {"y": outputs["y"] + len(COUNT)}',
        "expected two runs to agree in 'y', found that the second one differs: error 1 at [0]",
    ),
    "a failure": ("1 / 0", "ZeroDivisionError: division by zero (code/pipeline.py:7)"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_case_that_can_be_no_proof_is_not_recorded(
    folder: Path, superbrain: Superbrain, name: str
) -> None:
    code, sentence = REFUSALS[name]
    add_code(folder, pipeline(code, head="COUNT = []"))
    save_array(folder / "golden/one/request/x.npy", 1)
    status, _, errors = superbrain("record-golden", folder)
    assert (status, (folder / "golden/one/response").exists()) == (1, False)
    assert sentence in errors


USAGE: dict[str, tuple[list[str], int, str]] = {
    "no requests": ([], 1, "expected requests in golden/*/request, found none"),
    "unknown case": (["--case", "lost"], 1, "expected requests in golden/lost/request, found none"),
    "input without a case": (["--input", "x=a.npy"], 2, "--input needs --case NAME"),
    "input without a file": (["--case", "a", "--input", "x"], 2, "expected NAME=FILE, found 'x'"),
    "missing file": (["--case", "a", "--input", "x=no.npy"], 1, "no.npy: expected to read it"),
    "unknown input": (["--case", "a", "--input", "z=no.npy"], 1, "inputs of the interface, x"),
    "bad case name": (["--case", "A b", "--input", "x=no.npy"], 1, "found 'A b'"),
    "graphs without tolerances": (
        ["--case", "a", "--input", "x=no.npy", "--graphs"],
        1,
        "expected tolerances for every graph that is recorded, found none for double",
    ),
}


@pytest.mark.parametrize("name", USAGE)
def test_recording_says_what_is_wrong(folder: Path, superbrain: Superbrain, name: str) -> None:
    words, expected, sentence = USAGE[name]
    code, _, errors = superbrain("record-golden", folder, *words)
    assert code == expected
    assert sentence in errors


# --- prove --------------------------------------------------------------------------------------


def test_a_folder_that_agrees_would_go_live(recorded: Path, superbrain: Superbrain) -> None:
    code, output, _ = superbrain("prove", recorded)
    assert code == 0
    assert "proven: it would go live on onnxruntime:cpu" in output


def test_prove_shows_rung_case_output_tolerance_figures_time_and_verdict(
    recorded: Path, superbrain: Superbrain
) -> None:
    _, output, _ = superbrain("prove", recorded)
    assert "\nonnxruntime:cpu: onnxruntime " in output
    row = next(line for line in output.splitlines() if line.startswith("one  "))
    case, name, *tolerance, max_abs, max_rel, cosine, _, verdict = row.split()
    assert (case, name) == ("one", "y")
    assert tolerance == ["rtol", "0.001,", "atol", "1e-05"]
    assert (max_abs, max_rel, cosine, verdict) == ("0", "0", "1.000000", "proven")


def test_a_folder_that_drifted_would_not(recorded: Path, superbrain: Superbrain) -> None:
    save_array(recorded / "golden/one/response/y.npy", 2, 5)
    code, output, _ = superbrain("prove", recorded)
    assert code == 1
    assert "  one, y: largest error 1 at [1] is above atol 1e-05 + rtol 0.001 × |5|\n" in output
    assert "not proven" in output


def test_json_holds_every_figure(recorded: Path, superbrain: Superbrain) -> None:
    _, output, _ = superbrain("prove", recorded, "--json")
    result: dict[str, Any] = json.loads(output)
    assert (result["name"], result["goes_live_on"]) == ("double", "onnxruntime:cpu")
    assert result["trials"][0]["proof"]["figures"][0]["max_abs_error"] == 0.0


def test_a_rung_this_machine_lacks_is_said_and_the_next_one_tried(
    recorded: Path, superbrain: Superbrain
) -> None:
    change(recorded, 'ladder = ["onnxruntime:cpu"]', 'ladder = ["abacus:wood", "onnxruntime:cpu"]')
    code, output, _ = superbrain("prove", recorded)
    assert code == 0
    assert "abacus:wood: not loaded: " in output


CRASHES = {
    "an exit": ("os._exit(7)", "found that the process ended by itself with status 7"),
    "a signal": ("os.kill(os.getpid(), 9)", "found that the process was killed by SIGKILL"),
    "an import that raises": ("1 / 0", "ZeroDivisionError: division by zero (code/pipeline.py:2)"),
}


@pytest.mark.parametrize("name", CRASHES)
def test_code_that_ends_its_process_is_a_finding(
    recorded: Path, superbrain: Superbrain, name: str
) -> None:
    code, sentence = CRASHES[name]
    add_code(recorded, pipeline("return outputs", head=f"import os; {code}"))
    status, output, _ = superbrain("prove", recorded)
    assert status == 1
    assert sentence in output


def test_code_that_never_ends_is_stopped(recorded: Path, superbrain: Superbrain) -> None:
    change(recorded, "load_timeout_s = 120", "load_timeout_s = 1")
    add_code(recorded, pipeline("return outputs", head="while True: pass"))
    status, output, _ = superbrain("prove", recorded)
    assert status == 1
    assert "1 golden cases to end within 2 s, found them running" in output


def test_what_bundle_code_prints_does_not_mix_with_the_result(
    recorded: Path, superbrain: Superbrain
) -> None:
    add_code(recorded, pipeline("return outputs", head="print('noise')"))
    _, output, errors = superbrain("prove", recorded, "--json")
    assert json.loads(output)["goes_live_on"]
    assert "noise" in errors


def test_a_signed_file_is_verified_unpacked_and_proven(
    recorded: Path, superbrain: Superbrain, tmp_path: Path
) -> None:
    author = sign_key(tmp_path / "keys")
    built = build(recorded, [author.signing], tmp_path)
    assert superbrain("prove", built.path, "--key", author.public)[0] == 0
    trust = make_trust_folder(tmp_path / "trust", author)
    assert superbrain("prove", built.path, "--trust", trust)[0] == 0


def test_a_file_signed_by_a_stranger_is_refused(
    recorded: Path, superbrain: Superbrain, tmp_path: Path
) -> None:
    author, stranger = sign_key(tmp_path / "a"), sign_key(tmp_path / "s", "stranger")
    built = build(recorded, [stranger.signing], tmp_path)
    code, output, _ = superbrain("prove", built.path, "--key", author.public)
    assert (code, output) == (1, "")


PROVE_USAGE: dict[str, tuple[list[str], str]] = {
    "a folder with a key": (["--key", "x.pub"], "a folder is not signed"),
    "a file without a key": ([], "a bundle file needs --trust DIR or --key FILE.pub"),
}


@pytest.mark.parametrize("name", PROVE_USAGE)
def test_prove_says_how_it_is_used(recorded: Path, superbrain: Superbrain, name: str) -> None:
    words, sentence = PROVE_USAGE[name]
    bundle = recorded if words else recorded / "bundle.toml"
    code, _, errors = superbrain("prove", bundle, *words)
    assert code == 2
    assert sentence in errors


def test_help_lists_the_actions_in_the_order_of_an_authors_work(superbrain: Superbrain) -> None:
    _, output, _ = superbrain("--help")
    words = [line.split()[0] for line in output.splitlines() if line.startswith("    ")]
    actions = ["init", "record-golden", "prove", "build", "inspect", "verify"]
    assert [word for word in words if word in actions] == actions


@pytest.mark.parametrize("action", ["init", "record-golden", "prove"])
def test_help_shows_examples(superbrain: Superbrain, action: str) -> None:
    code, output, _ = superbrain(action, "--help")
    assert code == 0
    assert f"examples:\n  superbrain bundle {action}" in output


def test_the_written_recipe_is_plain_toml(folder: Path) -> None:
    assert tomllib.loads((folder / "bundle.toml").read_text())["schema"] == 1
