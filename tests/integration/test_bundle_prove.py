"""A folder or a file is proven, through the command that is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from superbrain.bundle.folder import build
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
from tests.support.bundles import make_trust_folder, sign_key

__all__ = ["folder", "recorded", "superbrain"]
pytestmark = pytest.mark.integration


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
