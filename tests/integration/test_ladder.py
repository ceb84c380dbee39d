"""The ladder on real files: a harmed fp16 file falls by itself, the fastest of what proves serves.

Files of other precisions are made by `superbrain bundle precision`, as an author would.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from superbrain.bundle.folder import build
from superbrain.cli.main import main
from superbrain.domain import operations as op
from superbrain.domain.rung_facts import RungFacts
from tests.support.appliance import Appliance
from tests.support.networks import DETECTED, classifier_folder, harmed_detector, scaled, turned
from tests.support.releases import release

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("ladder")) as appliance:
        yield appliance


@pytest.fixture(scope="module")
def author(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the classifier with fp16 and int8 files, both proven."""
    folder = classifier_folder(tmp_path_factory.mktemp("author"))
    assert main(["bundle", "precision", str(folder)]) == 0
    add_precisions(folder, "fp16", "int8")
    return folder


def add_precisions(folder: Path, *precisions: str) -> None:
    with (folder / "bundle.toml").open("a") as recipe:
        recipe.write("[graphs.main.precisions]\n")
        recipe.writelines(f'{one} = "graphs/main.{one}.onnx"\n' for one in precisions)


def drop(appliance: Appliance, folder: Path, **lines: Any) -> None:  # noqa: ANN401 - of TOML
    """Build the folder with these keys of bundle.toml set, and drop it."""
    path = folder / "bundle.toml"
    kept = [line for line in path.read_text().splitlines() if line.split(" = ")[0] not in lines]
    new = [f"{key} = {value!r}".replace("'", '"') for key, value in lines.items()]
    path.write_text("\n".join([*new, *kept, ""]))
    appliance.drop(build(folder, [appliance.author.signing], folder.parent).path)


def report(appliance: Appliance, model: str) -> op.ReportReply:
    return appliance.ask(op.GetReport(model), op.ReportReply)


def verdicts(rungs: list[RungFacts]) -> dict[str, str]:
    return {one.rung: one.verdict for one in rungs}


def test_a_conversion_that_loads_runs_and_is_wrong_falls_to_the_next_rung_by_itself(
    appliance: Appliance, tmp_path: Path
) -> None:
    folder = harmed_detector(tmp_path)
    drop(appliance, folder)
    live = appliance.wait_live("detector", "1.0.0")
    told = report(appliance, "detector")
    failed, passed = [record.proof for record in told.proofs]
    assert (failed.rung, failed.passed) == ("onnxruntime:cpu-fp16", False)
    assert all(figures.cosine is not None and figures.cosine < 0.99 for figures in failed.figures)
    assert (passed.rung, passed.passed) == (live.rung, True) == ("onnxruntime:cpu", True)
    assert verdicts(told.rungs) == {"onnxruntime:cpu-fp16": "drifts", "onnxruntime:cpu": "chosen"}
    assert re.search(r"cosine 0\.\d+ is below 0\.99", told.rungs[0].reason)
    assert live.ladder == told.rungs
    fell = next(step for step in told.transitions if step.event == "Mismatched")
    assert (fell.rung, fell.state_to) == ("onnxruntime:cpu-fp16", "BUILDING")
    with appliance.client() as client:
        x = np.load(folder / "golden/one/request/x.npy")
        answer = client.infer("detector", {"x": x})[DETECTED]
    expected = np.load(folder / f"golden/one/response/{DETECTED}.npy")
    assert np.allclose(answer, expected, atol=1e-4)
    drop(appliance, folder, name="harmed", ladder=["onnxruntime:cpu-fp16"])
    ended = appliance.wait_ended("harmed", "1.0.0", "REJECTED")
    assert ended.event == "Mismatched"


@pytest.mark.parametrize(("name", "harm"), [("rescaled", scaled), ("turned", turned)])
def test_another_normalisation_or_layout_that_is_forced_into_a_bundle_is_rejected(
    appliance: Appliance, author: Path, tmp_path: Path, name: str, harm: Callable[..., Path]
) -> None:
    folder = tmp_path / name
    shutil.copytree(author, folder)
    harm(author / "graphs/main.onnx", folder / "graphs/main.onnx")
    recipe = folder / "bundle.toml"
    measured = 'y = { kind = "close", rtol = 1e-5, atol = 1e-5 }'  # as `convert` chooses it
    recipe.write_text(re.sub("(?m)^y = .*$", measured, recipe.read_text()))
    drop(appliance, folder, name=name, ladder=["onnxruntime:cpu"], select="first")
    ended = appliance.wait_ended(name, "1.0.0", "REJECTED")
    assert ended.event == "Mismatched"


def test_the_fastest_of_all_that_prove_serves_and_comes_back_after_a_restart(
    appliance: Appliance, author: Path
) -> None:
    compared = ["onnxruntime:cpu-fp16", "onnxruntime:cpu", "onnxruntime:cpu-int8"]
    ladder = ["abacus:wood", "onnxruntime:cuda", *compared]
    drop(appliance, author, name="quick", ladder=ladder, select="fastest")
    live = appliance.wait_live("quick", "1.0.0")
    told = report(appliance, "quick")
    found = verdicts(told.rungs)
    assert found["abacus:wood"] == "unknown here"
    assert found["onnxruntime:cuda"] in {"not installed", "no device"}
    times = {one.rung: one.milliseconds for one in told.rungs if one.milliseconds is not None}
    assert sorted(times) == sorted(compared)
    assert live.rung == min(compared, key=lambda rung: times[rung])
    assert found[live.rung] == "chosen"
    timings = {record.proof.rung: record.proof.timing for record in told.proofs}
    assert {r: one.median_ms for r, one in timings.items() if one}.items() <= times.items()
    appliance.stop()
    appliance.start()
    assert appliance.wait_live("quick", "1.0.0").rung == live.rung
    steps = [step.event for step in appliance.history("quick")]
    assert "RungChanged" not in steps
    assert steps.count("Timed") == len(compared)


def test_an_int8_file_that_proves_serves(appliance: Appliance, author: Path) -> None:
    drop(appliance, author, name="small", ladder=["onnxruntime:cpu-int8"])
    live = appliance.wait_live("small", "1.0.0")
    assert live.rung == "onnxruntime:cpu-int8"
    with appliance.client() as client:
        x = np.load(author / "golden/case0/request/x.npy")
        y = client.infer("small", {"x": x})["y"]
    expected = np.load(author / "golden/case0/response/y.npy")
    assert not np.array_equal(y, expected)
    assert y.argmax() == expected.argmax()


def test_a_rung_whose_precision_the_bundle_lacks_is_skipped_with_that_reason(
    appliance: Appliance,
) -> None:
    ladder = ["onnxruntime:cpu-int8", "onnxruntime:cpu"]
    appliance.drop(release(appliance, 1, name="plain", ladder=ladder))
    appliance.wait_live("plain", "1.0.0")
    first = report(appliance, "plain").rungs[0]
    assert first.verdict == "no such precision"
    assert first.reason.startswith(
        "onnxruntime:cpu-int8: expected a graph with a file of precision"
    )
