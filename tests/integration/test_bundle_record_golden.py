"""Golden cases are recorded, through the command that is typed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from superbrain.bundle.folder import read_folder
from tests.support.authors import (
    Superbrain,
    add_code,
    change,
    folder,
    pipeline,
    recorded,
    save_array,
    superbrain,
)
from tests.support.models import write_file

__all__ = ["folder", "recorded", "superbrain"]
pytestmark = pytest.mark.integration


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
    "NaN": (
        'return {"y": outputs["y"] * np.nan}',
        "a golden answer may not contain NaN, found NaN at [0] (1 of 1)",
    ),
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
