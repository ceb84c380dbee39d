"""Captured graphs of ONNX Runtime, as far as a host without a GPU can tell: bound and not captured.

What a GPU does wrong is done here by a session that bends what it is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import DTypeLike

from superbrain.engines.onnx_graphs import (
    CAPTURE_AT,
    CAPTURES,
    MOST_GRAPHS,
    MOST_SHAPES,
    GraphSession,
    require_device,
)
from superbrain.engines.onnx_session import CPU_PROVIDER, open_session
from superbrain.engines.onnxruntime import OnnxRuntime, Placement, open_engine
from superbrain.engines.port import BuildFailed, ExecutionFailed
from superbrain.wire.datatypes import Array
from tests.support.graphs import ADD, FOUND, SCALARS, declare, identity, save_graph

RANDOM = np.random.default_rng(8)
COMES_AND_GOES = [2, 2, 2, 3, 2, 3, 3, 3, 2, 1, 1, 1, 2, 3, 1]


class Bent:
    """A session whose runs with bound memory are bent; `ids`: the graph that each run named."""

    def __init__(self, path: Path, bend: Callable[[int], str] = lambda _number: "") -> None:
        self._real = open_session(onnxruntime, path, CPU_PROVIDER, 1)
        self._bend = bend
        self.bound_runs = 0
        self.ids: list[int] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._real, name)

    def run(self, outputs: list[str], feeds: Mapping[str, Array], options: Any = None) -> Any:  # noqa: ANN401
        self._note(options)
        return self._real.run(outputs, feeds, options)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:  # noqa: ANN401
        self._note(options)
        self.bound_runs += 1
        match self._bend(self.bound_runs):
            case "break":
                raise RuntimeError("CUDA failure 900: operation not permitted")
            case "stale":
                return
        self._real.run_with_iobinding(binding, options)

    def _note(self, options: Any) -> None:  # noqa: ANN401
        entry = "gpu_graph_id"
        self.ids.append(0 if options is None else int(options.get_run_config_entry(entry)))


class Opened:
    """A session of ADD that captures, and its answers held to the sum."""

    def __init__(self, path: Path, bend: Callable[[int], str] = lambda _number: "") -> None:
        self.bent = Bent(path, bend)
        self.run = GraphSession(onnxruntime, self.bent, "cpu")

    def ask(self, rows: int) -> Array:
        a, b = RANDOM.random((2, rows, 3), np.float32)
        (found,) = self.run(["sum"], {"b": b, "a": a})
        assert np.array_equal(found, a + b)
        return found


@pytest.fixture
def add(tmp_path: Path) -> Path:
    return save_graph(tmp_path / "add.onnx", ADD)


def test_each_shape_that_comes_again_has_a_graph_of_its_own(add: Path) -> None:
    opened = Opened(add)
    for rows in COMES_AND_GOES:
        opened.ask(rows)
    assert opened.run.captured_graphs == 3
    assert set(opened.bent.ids) == {-1, 1, 2, 3}


def test_a_graph_is_believed_when_it_has_agreed_twice_and_then_runs_alone(add: Path) -> None:
    opened = Opened(add)
    for _ in range(5):
        opened.ask(2)
    assert opened.bent.ids == [-1, -1, 1, -1, 1, 1, 1]
    assert CAPTURE_AT == 2


def test_no_more_than_a_few_shapes_are_captured(add: Path) -> None:
    opened = Opened(add)
    for rows in range(1, MOST_GRAPHS + 3):
        for _ in range(3):
            opened.ask(rows)
    assert opened.run.captured_graphs == MOST_GRAPHS


def test_shapes_that_never_come_again_are_not_counted_for_ever(
    add: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("superbrain.engines.onnx_graphs.MOST_SHAPES", 3)
    opened = Opened(add)
    for rows in [1, 2, 3, 4, 1]:
        opened.ask(rows)
    assert opened.run.captured_graphs == 0
    opened.ask(1)
    assert opened.run.captured_graphs == 1
    assert MOST_SHAPES == 1000


@pytest.mark.parametrize(
    ("bend", "found"),
    [("break", "CUDA failure 900"), ("stale", "it answers otherwise than the session it is of")],
)
@pytest.mark.parametrize("number", [1, 2])
def test_a_first_graph_that_fails_or_answers_otherwise_fails_the_run(
    add: Path, bend: str, found: str, number: int
) -> None:
    opened = Opened(add, lambda run: bend if run >= number else "")
    for _ in range(number):
        opened.ask(2)
    with pytest.raises(ExecutionFailed, match=f"expected a CUDA graph of this engine, .*{found}"):
        opened.ask(2)
    assert opened.run.captured_graphs == 0
    for _ in range(5):
        opened.ask(2)  # the session is as it was
    assert opened.bent.bound_runs == number


@pytest.mark.parametrize("bend", ["break", "stale"])
def test_where_one_has_been_believed_the_next_that_fails_is_the_last(
    add: Path, bend: str, caplog: pytest.LogCaptureFixture
) -> None:
    opened = Opened(add, lambda run: bend if run == 4 else "")
    with caplog.at_level(logging.WARNING, "superbrain.engines.onnx_graphs"):
        for rows in [2] * 4 + [3] * 5 + [1] * 5 + [2] * 2:
            opened.ask(rows)
    assert opened.run.captured_graphs == 1
    (said,) = caplog.messages
    assert said.startswith("no more CUDA graphs are captured of this engine: ")


def test_a_believed_graph_that_breaks_fails_the_run(add: Path) -> None:
    opened = Opened(add, lambda run: "break" if run == 5 else "")
    for _ in range(5):
        opened.ask(2)
    with pytest.raises(RuntimeError, match="CUDA failure 900"):
        opened.ask(2)


@pytest.mark.parametrize(
    "dtype", [np.bool_, np.uint8, np.int64, np.float16, np.float32, np.float64]
)
def test_every_numeric_datatype_comes_out_bit_for_bit(tmp_path: Path, dtype: DTypeLike) -> None:
    names = {"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64"}
    name = names.get(np.dtype(dtype).name, np.dtype(dtype).name.upper())
    bent = Bent(save_graph(tmp_path / "same.onnx", identity(name, 2, 3)))
    run = GraphSession(onnxruntime, bent, "cpu")
    for number in range(6):
        x = (RANDOM.random((2, 3)) * 100 * number).astype(dtype)
        (found,) = run(["y"], {"x": x})
        assert (found.dtype, found.tobytes()) == (x.dtype, x.tobytes())
    assert run.captured_graphs == 1


def test_what_is_not_a_number_agrees_with_itself(tmp_path: Path) -> None:
    bent = Bent(save_graph(tmp_path / "same.onnx", identity("FP16", 4)))
    run = GraphSession(onnxruntime, bent, "cpu")
    x = np.array([np.nan, np.inf, -np.inf, 65504], np.float16)
    for _ in range(5):
        (found,) = run(["y"], {"x": x})
        assert found.tobytes() == x.tobytes()
    assert run.captured_graphs == 1


def test_scalars_are_captured_and_tensors_without_elements_are_not(tmp_path: Path) -> None:
    bent = Bent(save_graph(tmp_path / "scalars.onnx", SCALARS))
    run = GraphSession(onnxruntime, bent, "cpu")
    for number in range(5):
        feeds = {"a": np.array(float(number)), "b": np.array(3.0)}
        assert run(["product"], feeds)[0].tolist() == 3.0 * number
    assert run.captured_graphs == 1
    opened = Opened(save_graph(tmp_path / "add.onnx", ADD))
    for _ in range(5):
        opened.ask(0)
    assert opened.run.captured_graphs == 0


def test_a_size_that_only_the_data_tells_is_found_out(tmp_path: Path) -> None:
    bent = Bent(save_graph(tmp_path / "found.onnx", FOUND))
    run = GraphSession(onnxruntime, bent, "cpu")
    for kept in [[1, 0, 1], [1, 1, 0]]:
        run(["places"], {"x": np.array(kept, np.float32)})
    with pytest.raises(ExecutionFailed, match="expected a CUDA graph of this engine, found: "):
        run(["places"], {"x": np.array([1, 1, 1], np.float32)})


def test_outputs_of_one_run_survive_the_next(add: Path) -> None:
    opened = Opened(add)
    kept = [opened.ask(2) for _ in range(8)]
    copies = [one.copy() for one in kept]
    opened.ask(2)
    assert all(map(np.array_equal, kept, copies))


def infos(*names: str) -> list[SimpleNamespace]:
    return [SimpleNamespace(name=name) for name in names]


@pytest.mark.parametrize(
    ("inputs", "outputs", "kind", "found"),
    [
        (infos("Cuda", "Cpu"), infos("Cuda"), "tensor(float)", "found that input 'b' is on the"),
        (infos("Cuda", "Cuda"), infos("Cpu"), "tensor(float)", "found that output 'sum' is on"),
        (infos("Cuda", "Cuda"), infos("Cuda"), "tensor(string)", "found that input 'a' is on"),
    ],
    ids=["input", "output", "text"],
)
def test_what_is_read_or_written_on_the_host_is_not_captured(
    inputs: list[SimpleNamespace], outputs: list[SimpleNamespace], kind: str, found: str
) -> None:
    session = SimpleNamespace(
        get_inputs=lambda: [SimpleNamespace(name=name, type=kind) for name in "ab"],
        get_outputs=lambda: [SimpleNamespace(name="sum", type="tensor(float)")],
        get_input_memory_infos=lambda: inputs,
        get_output_memory_infos=lambda: outputs,
    )
    with pytest.raises(BuildFailed, match=f"expected tensors on the GPU, .*{found}") as caught:
        require_device("a.onnx", "cuda", session)
    assert "onnxruntime:cuda" in caught.value.mend


# --- the rungs ------------------------------------------------------------------------------------


def test_only_the_rungs_that_say_so_capture(add: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed: dict[str, Placement] = {}

    def place(_library: Any, rung: str, _path: Path, _graph: Any, placement: Placement) -> None:  # noqa: ANN401
        placed[rung] = placement

    monkeypatch.setattr("superbrain.engines.onnxruntime._library_for", lambda _rung: onnxruntime)
    monkeypatch.setattr("superbrain.engines.onnxruntime.open_engine", place)
    runtime = OnnxRuntime()
    for rung in runtime.rungs:
        runtime.load(rung, add, declare(ADD))
    assert {rung for rung, one in placed.items() if one.captures_on} == {
        "onnxruntime:cuda-graphs",
        "onnxruntime:cuda-graphs-tf32",
        "onnxruntime:cuda-graphs-fp16",
    }
    rounds = {rung for rung, one in placed.items() if one.options.get("use_tf32") == "1"}
    assert rounds == {"onnxruntime:cuda-tf32", "onnxruntime:cuda-graphs-tf32"}


def test_a_session_that_captures_is_opened_for_it_and_no_other(add: Path) -> None:
    asked: list[dict[str, str]] = []

    class Library:
        SessionOptions = onnxruntime.SessionOptions
        ExecutionMode = onnxruntime.ExecutionMode
        RunOptions = onnxruntime.RunOptions
        OrtValue = onnxruntime.OrtValue
        __version__ = onnxruntime.__version__

        @staticmethod
        def InferenceSession(path: str, options: Any, providers: Any) -> Any:  # noqa: ANN401, N802
            asked.append(providers[0][1])
            return onnxruntime.InferenceSession(path, options, providers=[CPU_PROVIDER])

    ones = np.ones((2, 3), np.float32)
    counts = []
    for device in ("cpu", ""):
        placement = Placement(CPU_PROVIDER, {"more": "1"}, captures_on=device)
        engine = open_engine(Library, "onnxruntime:cuda", add, declare(ADD), placement)
        for _ in range(4):
            assert engine.run({"a": ones, "b": ones})["sum"].tolist() == [[2.0] * 3] * 2
        counts.append(engine.captured_graphs)
        engine.close()
        assert engine.captured_graphs == 0
    assert counts == [1, 0]
    assert asked == [{"more": "1"} | CAPTURES, {"more": "1"}]
