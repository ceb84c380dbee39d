"""A graph whose answers depend on batch mates is found out before it serves."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from superbrain.domain.manifest import Batching, Close, GoldenCase, Range, Serving
from superbrain.domain.proof import Proof
from superbrain.serve.model import Model
from superbrain.serve.proving import prove
from tests.support.graphs import TinyGraph, tensor
from tests.support.models import RUNG, border, write_model

X, Y = border("x", "FP32", -1, 2), border("y", "FP32", -1, 2)
RANGE = {"N": Range(1, 2, 8)}
BY_ITSELF = TinyGraph(
    [("Add", ["x", "x"], ["y"])],
    [tensor("x", "FP32", "N", 2)],
    [tensor("y", "FP32", "N", 2)],
    RANGE,
)
# Every row plus the largest number of the whole batch: what dynamic quantisation does, enlarged.
WITH_MATES = TinyGraph(
    [("ReduceMax", ["x"], ["most"]), ("Add", ["x", "most"], ["y"])],
    BY_ITSELF.inputs,
    BY_ITSELF.outputs,
    RANGE,
)


def npy(array: Any) -> bytes:  # noqa: ANN401
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array, np.float32), allow_pickle=False)
    return buffer.getvalue()


def prove_batching(folder: Path, graph: TinyGraph, requests: dict[str, Any]) -> Proof:
    """Prove a bundle whose cases are right when each runs alone."""
    files: dict[str, bytes | str] = {}
    cases = []
    for name, values in requests.items():
        x = np.asarray(values, np.float32)
        y = x + x if graph is BY_ITSELF else x + x.max()
        files[f"golden/{name}/request/x.npy"] = npy(x)
        files[f"golden/{name}/response/y.npy"] = npy(y)
        paths = {"x": f"golden/{name}/request/x.npy"}, {"y": f"golden/{name}/response/y.npy"}
        cases.append(GoldenCase(name, *paths))
    manifest = write_model(
        folder,
        graphs={"main": graph},
        inputs=[X],
        outputs=[Y],
        files=files,
        cases=cases,
        tolerances={"y": Close(rtol=0, atol=0.1)},
    )
    manifest = msgspec.structs.replace(manifest, serving=Serving(batching=Batching(8)))
    with Model.open(folder, manifest, RUNG) as model:
        return prove(model, folder, manifest)


CASES = {"small": [[1, 2]], "large": [[30, 40]]}


def test_cases_are_proven_alone_and_among_mates(tmp_path: Path) -> None:
    proof = prove_batching(tmp_path, BY_ITSELF, CASES)
    assert proof.passed
    assert [(one.case, one.batch) for one in proof.figures] == [
        ("small", 0),
        ("large", 0),
        ("small", 8),
        ("large", 8),
    ]


def test_an_answer_that_depends_on_batch_mates_fails_with_advice(tmp_path: Path) -> None:
    proof = prove_batching(tmp_path, WITH_MATES, CASES)
    assert not proof.passed
    assert [one.case for one in proof.failures] == ["small"]
    assert "in a batch of 8" in proof.first_failure
    assert "alone it agrees: set serving.batching.max_size = 1" in proof.first_failure


def test_cases_of_several_rows_fill_a_run_with_fewer_requests(tmp_path: Path) -> None:
    proof = prove_batching(tmp_path, BY_ITSELF, {"three": [[1, 2]] * 3, "two": [[3, 4]] * 2})
    assert proof.passed
    assert {one.batch for one in proof.figures} == {0, 3}


def test_cases_that_never_share_a_run_prove_nothing(tmp_path: Path) -> None:
    proof = prove_batching(tmp_path, BY_ITSELF, {"long": [[1, 2]] * 7, "wide": [[1, 2]] * 8})
    assert not proof.passed
    assert "found none to run together" in proof.first_failure


def test_a_case_that_is_wrong_alone_is_not_blamed_on_batching(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    proof = prove_batching(folder, BY_ITSELF, CASES)
    assert proof.passed
    wrong = folder / "golden/small/response/y.npy"
    wrong.write_bytes(npy([[9, 9]]))
    with_wrong = prove_batching_again(folder)
    assert all(not one.batch for one in with_wrong.failures)


def prove_batching_again(folder: Path) -> Proof:
    """Prove what lies in `folder`, as it is now."""
    listed = write_model(folder, graphs={"main": BY_ITSELF}, inputs=[X], outputs=[Y])
    cases = [
        GoldenCase(
            name, {"x": f"golden/{name}/request/x.npy"}, {"y": f"golden/{name}/response/y.npy"}
        )
        for name in CASES
    ]
    golden = msgspec.structs.replace(
        listed.golden, cases=cases, tolerances={"y": Close(rtol=0, atol=0.1)}
    )
    serving = Serving(batching=Batching(8))
    manifest = msgspec.structs.replace(listed, golden=golden, serving=serving)
    with Model.open(folder, manifest, RUNG) as model:
        return prove(model, folder, manifest)
