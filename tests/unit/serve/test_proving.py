"""Proving runs every golden case through the model and never stops at one that fails."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from superbrain.domain.errors import StoreError
from superbrain.domain.manifest import Close, GoldenCase, GraphCase, Manifest
from superbrain.domain.proof import OutputFigures, Proof
from superbrain.serve.model import Model
from superbrain.serve.proving import prove, reprove
from tests.support.graphs import DOUBLE
from tests.support.models import RUNG, border, write_file, write_model

X, Y = border("x", "FP32", -1), border("y", "FP32", -1)
PIPELINE = """\
class Pipeline:
    def __init__(self, bundle): ...

    def preprocess(self, request):
        if request["x"][0] == 13:
            raise RuntimeError("unlucky")
        return request

    def postprocess(self, outputs, request):
        return outputs
"""


def npy(*values: float) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(values, np.float32), allow_pickle=False)
    return buffer.getvalue()


def case(name: str, graphs: dict[str, GraphCase] | None = None) -> GoldenCase:
    folder = f"golden/{name}"
    return GoldenCase(
        name, {"x": f"{folder}/request/x.npy"}, {"y": f"{folder}/response/y.npy"}, graphs or {}
    )


def write_proof_bundle(
    folder: Path,
    recorded: dict[str, tuple[bytes, bytes]],
    **more: Any,  # noqa: ANN401
) -> Manifest:
    """A doubling bundle whose cases are (request, expected response)."""
    files: dict[str, bytes | str] = {"code/pipeline.py": PIPELINE}
    for name, (request, response) in recorded.items():
        files[f"golden/{name}/request/x.npy"] = request
        files[f"golden/{name}/response/y.npy"] = response
    files |= more.pop("files", {})
    more.setdefault("cases", [case(name) for name in recorded])
    return write_model(
        folder, graphs={"double": DOUBLE}, inputs=[X], outputs=[Y], files=files, **more
    )


def prove_folder(folder: Path, manifest: Manifest) -> Proof:
    with Model.open(folder, manifest, RUNG) as model:
        return prove(model, folder, manifest)


def only(proof: Proof, name: str) -> OutputFigures:
    (figures,) = [one for one in proof.figures if one.case == name]
    return figures


GOOD = (npy(1, 2), npy(2, 4))


def test_cases_that_agree_prove_the_model(tmp_path: Path) -> None:
    proof = prove_folder(tmp_path, write_proof_bundle(tmp_path, {"page": GOOD}))
    assert (proof.passed, proof.first_failure) == (True, "")


@pytest.mark.parametrize(("right", "passed"), [(1, False), (5, False), (6, True)])
def test_a_model_that_answers_otherwise_once_it_is_warm_is_not_proven(
    tmp_path: Path, right: int, monkeypatch: pytest.MonkeyPatch, *, passed: bool
) -> None:
    monkeypatch.setattr("superbrain.serve.proving._FAST_MS", np.inf)
    counts = f"""\
class Pipeline:
    def __init__(self, bundle):
        self.calls = 0

    def preprocess(self, request):
        self.calls += 1
        return request

    def postprocess(self, outputs, request):
        return {{"y": outputs["y"] + (self.calls > {right})}}
"""
    files = {"code/pipeline.py": counts}
    proof = prove_folder(tmp_path, write_proof_bundle(tmp_path, {"page": GOOD}, files=files))
    assert proof.passed is passed
    if not passed:
        assert only(proof, "page").max_abs_error == 1.0


def test_a_slow_case_is_run_again_only_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("superbrain.serve.proving._FAST_MS", 0.0)  # whatever it takes is slow
    manifest = write_proof_bundle(tmp_path, {"page": GOOD})
    calls: list[object] = []
    with Model.open(tmp_path, manifest, RUNG) as model:
        infer = model.infer

        def counted(request: dict[str, Any]) -> dict[str, Any]:
            calls.append(request)
            return infer(request)

        monkeypatch.setattr(model, "infer", counted)
        assert prove(model, tmp_path, manifest).passed
        assert len(calls) == 1
        monkeypatch.setattr(model, "rung", "onnxruntime:cuda")
        prove(model, tmp_path, manifest)
        assert len(calls) == 3
        reprove(model, tmp_path, manifest, 0)
    assert len(calls) == 4  # by now its kernels are loaded


def test_a_proof_names_rung_and_runtime(tmp_path: Path) -> None:
    proof = prove_folder(tmp_path, write_proof_bundle(tmp_path, {"page": GOOD}))
    assert proof.rung == RUNG
    assert proof.runtime.startswith("onnxruntime ")


def test_every_case_is_timed(tmp_path: Path) -> None:
    proof = prove_folder(tmp_path, write_proof_bundle(tmp_path, {"a": GOOD, "b": GOOD}))
    assert [time.case for time in proof.times] == ["a", "b"]
    assert all(time.milliseconds > 0 for time in proof.times)


def test_an_answer_too_far_off_fails_with_figures(tmp_path: Path) -> None:
    proof = prove_folder(tmp_path, write_proof_bundle(tmp_path, {"page": (npy(1), npy(3))}))
    figures = only(proof, "page")
    assert (figures.passed, figures.max_abs_error) == (False, 1.0)


def test_tolerances_are_those_of_the_manifest(tmp_path: Path) -> None:
    manifest = write_proof_bundle(
        tmp_path, {"page": (npy(1), npy(2.5))}, tolerances={"y": Close(rtol=0.0, atol=0.6)}
    )
    assert only(prove_folder(tmp_path, manifest), "page").tolerance == "rtol 0, atol 0.6"


BROKEN: dict[str, tuple[bytes, bytes, str]] = {
    "the pipeline raises": (npy(13), npy(26), "RuntimeError: unlucky (code/pipeline.py:6)"),
    "the graph refuses": (npy(*range(17)), npy(1), "with N from 1 to 16, found FP32[17]"),
    "the request is no tensor": (b"nothing", npy(1), "expected a .npy file"),
    "the response is no tensor": (npy(1), b"nothing", "expected a .npy file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_case_that_breaks_fails_with_its_reason_and_the_next_one_runs(
    tmp_path: Path, name: str
) -> None:
    request, response, reason = BROKEN[name]
    manifest = write_proof_bundle(tmp_path, {"bad": (request, response), "good": GOOD})
    proof = prove_folder(tmp_path, manifest)
    assert not only(proof, "bad").passed
    assert reason in only(proof, "bad").reason
    assert only(proof, "good").passed


def test_a_golden_file_that_changed_after_signing_fails_its_case(tmp_path: Path) -> None:
    manifest = write_proof_bundle(tmp_path, {"page": GOOD})
    write_file(tmp_path / "golden/page/response/y.npy", npy(9, 9))
    assert "expected sha256" in only(prove_folder(tmp_path, manifest), "page").reason


GRAPH_FILES = {
    "golden/page/graphs/double/inputs/x.npy": npy(5),
    "golden/page/graphs/double/outputs/y.npy": npy(10),
}
RECORDED = GraphCase(
    {"x": "golden/page/graphs/double/inputs/x.npy"},
    {"y": "golden/page/graphs/double/outputs/y.npy"},
)


def prove_graph(folder: Path, **more: Any) -> OutputFigures:  # noqa: ANN401
    manifest = write_proof_bundle(
        folder,
        {"page": GOOD},
        cases=[case("page", {"double": RECORDED})],
        files={**GRAPH_FILES, **more.pop("files", {})},
        graph_tolerances={"double": {"y": Close(rtol=0.0, atol=0.1)}},
    )
    (figures,) = [one for one in prove_folder(folder, manifest).figures if one.graph]
    return figures


def test_a_graph_is_proven_on_its_own_where_it_was_recorded(tmp_path: Path) -> None:
    figures = prove_graph(tmp_path)
    assert (figures.graph, figures.output, figures.passed) == ("double", "y", True)


def test_a_graph_that_drifts_fails(tmp_path: Path) -> None:
    files = {"golden/page/graphs/double/outputs/y.npy": npy(11)}
    assert "error 1 at [0]" in prove_graph(tmp_path, files=files).reason


def test_a_graph_that_refuses_its_recorded_input_fails(tmp_path: Path) -> None:
    files = {"golden/page/graphs/double/inputs/x.npy": npy(*range(17))}
    assert "found FP32[17]" in prove_graph(tmp_path, files=files).reason


def test_a_manifest_without_cases_proves_nothing(tmp_path: Path) -> None:
    assert not prove_folder(tmp_path, write_proof_bundle(tmp_path, {})).passed


def test_one_case_is_proven_again_as_it_was_proven_and_numbers_wrap_around(tmp_path: Path) -> None:
    manifest = write_proof_bundle(tmp_path, {"good": GOOD, "bad": (npy(1), npy(3))})
    with Model.open(tmp_path, manifest, RUNG) as model:
        found = [reprove(model, tmp_path, manifest, number) for number in range(3)]
    assert [[figure.case for figure in proof.figures] for proof in found] == [
        ["good"],
        ["bad"],
        ["good"],
    ]
    assert [proof.passed for proof in found] == [True, False, True]
    assert found[0].times[0].milliseconds > 0


def test_a_case_that_breaks_when_it_is_run_again_has_not_passed(tmp_path: Path) -> None:
    manifest = write_proof_bundle(tmp_path, {"unlucky": (npy(13), npy(26))})
    with Model.open(tmp_path, manifest, RUNG) as model:
        assert "unlucky" in reprove(model, tmp_path, manifest, 0).first_failure


def test_a_case_that_is_no_longer_what_was_signed_says_nothing_about_the_model(
    tmp_path: Path,
) -> None:
    manifest = write_proof_bundle(tmp_path, {"page": GOOD})
    write_file(tmp_path / "golden/page/response/y.npy", npy(9, 9))
    with Model.open(tmp_path, manifest, RUNG) as model, pytest.raises(StoreError):
        reprove(model, tmp_path, manifest, 0)
