"""Several requests in one run give each what it would have got alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from superbrain.domain.manifest import Batching, Serving
from superbrain.engines.port import Engine, ExecutionFailed
from superbrain.serve.bundle_code import BundleCodeError
from superbrain.serve.model import Model
from superbrain.serve.together import Together
from superbrain.wire.errors import Internal, InvalidArgument
from tests.support.graphs import ADD, TinyGraph
from tests.support.models import RUNG, border, write_model

A, B, SUM = border("a", "FP32", -1, 3), border("b", "FP32", -1, 3), border("sum", "FP32", -1, 3)
INTERFACE: dict[str, Any] = {"inputs": [A, B], "outputs": [SUM]}
PIPELINE = """\
import numpy as np

class Pipeline:
    def __init__(self, bundle): ...

    def preprocess(self, request):
        if request["a"][0, 0] == 13:
            raise ValueError("expected luck")
        if request["a"][0, 0] == 14:
            raise SystemExit(3)
        if request["a"][0, 0] == 15:
            return {"a": request["a"], "b": np.zeros((5, 3), np.float32)}
        return dict(request)

    def postprocess(self, outputs, request):
        if request["a"][0, 0] == 16:
            raise RuntimeError("after the run")
        return {"sum": outputs["sum"]}
"""
RUNS_ITSELF = """\
class Pipeline:
    def __init__(self, bundle): ...

    def run(self, request, graphs):
        return graphs["add"](request)
"""


class Steps:
    """Writes down whose work was done, step by step."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, positions: Sequence[int]) -> None:
        self.seen.append(tuple(positions))


def open_batching(folder: Path, graph: TinyGraph = ADD, **more: Any) -> Model:  # noqa: ANN401
    manifest = write_model(folder, graphs={"add": graph}, **(INTERFACE | more))
    serving = Serving(batching=Batching(4))
    return Model.open(folder, msgspec.structs.replace(manifest, serving=serving), RUNG)


def together(model: Model) -> Together:
    assert model.together is not None
    return model.together


def request(first: float, rows: int = 1) -> dict[str, Any]:
    a = np.full((rows, 3), first, np.float32)
    return {"a": a, "b": np.arange(3 * rows, dtype=np.float32).reshape(rows, 3)}


def expected(one: dict[str, Any]) -> Any:  # noqa: ANN401
    return one["a"] + one["b"]


def assert_right(answers: Sequence[Any], requests: Sequence[dict[str, Any]]) -> None:
    for answer, one in zip(answers, requests, strict=True):
        np.testing.assert_array_equal(answer["sum"], expected(one))


def test_rows_come_back_to_whom_they_belong(tmp_path: Path) -> None:
    requests = [request(1), request(2, rows=2), request(3)]
    with open_batching(tmp_path) as model:
        assert_right(together(model).answer(requests, Steps()), requests)
        assert together(model).runs == 1


def test_a_full_run_is_followed_by_the_next(tmp_path: Path) -> None:
    requests = [request(n) for n in range(6)]
    with open_batching(tmp_path) as model:
        assert_right(together(model).answer(requests, Steps()), requests)
        assert together(model).runs == 2


def test_steps_are_announced_as_they_come(tmp_path: Path) -> None:
    steps = Steps()
    with open_batching(tmp_path) as model:
        together(model).answer([request(1), request(2)], steps)
    assert steps.seen == [(0,), (1,), (0, 1), (0,), (1,)]


@pytest.mark.parametrize(
    ("first", "kind", "part"),
    [
        (13, InvalidArgument, "expected luck"),
        (14, Internal, "SystemExit"),
        (16, Internal, "after the run"),
    ],
)
def test_whose_own_step_fails_harms_nobody_else(
    tmp_path: Path, first: float, kind: type[Exception], part: str
) -> None:
    requests = [request(1), request(first), request(3)]
    with open_batching(tmp_path, files={"code/pipeline.py": PIPELINE}) as model:
        answers = together(model).answer(requests, Steps())
    assert_right([answers[0], answers[2]], [requests[0], requests[2]])
    assert isinstance(answers[1], kind)
    assert part in str(answers[1])


def test_what_the_graph_would_refuse_runs_alone(tmp_path: Path) -> None:
    requests = [request(1), request(15), request(3)]
    with open_batching(tmp_path, files={"code/pipeline.py": PIPELINE}) as model:
        answers = together(model).answer(requests, Steps())
        assert together(model).failure == ""
    assert_right([answers[0], answers[2]], [requests[0], requests[2]])
    assert isinstance(answers[1], Internal)


def test_a_request_that_does_not_fit_the_interface_is_refused_by_itself(tmp_path: Path) -> None:
    wrong = {"a": np.zeros((1, 2), np.float32), "b": np.zeros((1, 2), np.float32)}
    with open_batching(tmp_path) as model:
        answers = together(model).answer([wrong, request(1), request(2)], Steps())
    assert isinstance(answers[0], InvalidArgument)
    assert_right(answers[1:], [request(1), request(2)])


class Refusing:
    """An engine that runs no batch with a negative number in it."""

    def __init__(self, engine: Any) -> None:  # noqa: ANN401
        self._engine = engine

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._engine, name)

    def bound(self) -> None:
        """Nothing goes past `run`."""

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if inputs["a"].min() < 0:
            raise ExecutionFailed("found a negative number")
        outputs: dict[str, Any] = self._engine.run(inputs)
        return outputs


def refusing(_: str, engine: Engine) -> Engine:
    wrapped: Any = Refusing(engine)
    return cast("Engine", wrapped)


def test_only_the_guilty_one_fails_with_a_run_that_failed(tmp_path: Path) -> None:
    manifest = write_model(tmp_path, graphs={"add": ADD}, **INTERFACE)
    manifest = msgspec.structs.replace(manifest, serving=Serving(batching=Batching(4)))
    steps = Steps()
    with Model.open(tmp_path, manifest, RUNG, refusing) as model:
        answers = together(model).answer([request(1), request(-1), request(3)], steps)
        assert "negative" in together(model).failure
    assert isinstance(answers[1], Internal)
    assert_right([answers[0], answers[2]], [request(1), request(3)])
    assert (0, 1, 2) in steps.seen


def test_a_pipeline_that_runs_its_graphs_itself_cannot_batch(tmp_path: Path) -> None:
    with pytest.raises(BundleCodeError, match="max_size = 1") as caught:
        open_batching(tmp_path, files={"code/pipeline.py": RUNS_ITSELF})
    assert caught.value.reason == "CODE_NOT_BATCHABLE"


def test_without_batching_there_is_nothing_to_batch_with(tmp_path: Path) -> None:
    manifest = write_model(tmp_path, graphs={"add": ADD}, **INTERFACE)
    with Model.open(tmp_path, manifest, RUNG) as model:
        assert model.together is None
