"""Running an engine, every line of it: with a stand-in for TensorRT that launches real kernels.

On the host, whose stream does everything late, and on a GPU where there is one, by each backend.
What is looked at is our side: which memory, which shapes, in which order, captured when. Nothing
here says that TensorRT works.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from superbrain.domain.manifest import Graph, GraphTensor
from superbrain.engines.device_memory import Device, DeviceError
from superbrain.engines.port import Array, EngineRefused, ExecutionFailed, RungUnavailable
from superbrain.engines.tensorrt_run import CAPTURE_AFTER, MOST_GRAPHS, MOST_SHAPES, Runner
from tests.support.devices import BACKENDS, opened
from tests.support.host_device import HostDevice
from tests.support.standin_kernels import ELEMENTS, kernels_on
from tests.support.standin_models import Affine, Model, Positives, RowSums, WeightedSum
from tests.support.standin_tensorrt import Engine, Library, RtxLibrary

WAIT_US = 300  # on a GPU, so that what is not waited for is not there yet
MANY = CAPTURE_AFTER + 3


@pytest.fixture(params=BACKENDS)
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    with opened(request.param) as found:
        yield found


@pytest.fixture
def host() -> Iterator[HostDevice]:
    with opened("host") as found:
        assert isinstance(found, HostDevice)
        yield found


def engine_of(device: Device, model: Model, **faults: Any) -> Engine:  # noqa: ANN401
    return Engine(kernels_on(device), device, model, **faults)


def runner_of(
    device: Device,
    model: Model,
    *,
    captures: bool = True,
    **faults: Any,  # noqa: ANN401
) -> Runner:
    engine = engine_of(device, model, **faults)
    return Runner(Library, engine, device, model.declare(), captures=captures)


def affine(kind: str = "FLOAT", most: int = 4) -> Affine:
    return Affine(kind, (-1, 3), {"x": ((1, 3), (most, 3))}, wait_us=WAIT_US)


def numbers(*shape: int, seed: int = 0) -> Array:
    """Whole numbers from 0 to 4, which every type holds exactly."""
    return np.random.default_rng(seed).integers(0, 5, shape).astype(np.float32)


def ask(runner: Runner, x: Array) -> Array:
    (found,) = runner.run({"x": x}).values()
    return found


def expected(x: Array) -> Array:
    return 2 * x + len(x)


# --- what goes in and what comes out --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["FLOAT", "HALF", "INT8", "UINT8", "INT32", "INT64", "BOOL"])
def test_every_type_comes_out_as_it_went_in(device: Device, kind: str) -> None:
    runner, dtype = runner_of(device, affine(kind)), ELEMENTS[kind]
    for turn in range(MANY):
        x = numbers(3, 3, seed=turn).astype(dtype)
        found = ask(runner, x)
        assert found.dtype == dtype
        assert np.array_equal(found, expected(x.astype(np.float64)).astype(dtype))


def fp32_outside(model: Model) -> Graph:
    """The same graph with FP32 at its borders, as a manifest has it."""
    made = model.declare()
    inputs, outputs = (
        [GraphTensor(one.name, "FP32", one.shape) for one in tensors]
        for tensors in (made.inputs, made.outputs)
    )
    return Graph(made.path, inputs, outputs, made.dynamic)


@pytest.mark.parametrize("inside", ["HALF", "BF16", "FP8"])
def test_fp32_outside_is_converted_for_what_is_inside(device: Device, inside: str) -> None:
    model = affine(inside)
    runner = Runner(Library, engine_of(device, model), device, fp32_outside(model), captures=True)
    for turn in range(MANY):
        x = numbers(2, 3, seed=turn) / 2
        found = ask(runner, x)
        assert found.dtype == np.float32
        assert np.array_equal(found, expected(x))


def test_what_the_inner_type_cannot_hold_is_infinite(device: Device) -> None:
    model = affine("HALF")
    runner = Runner(Library, engine_of(device, model), device, fp32_outside(model), captures=True)
    assert np.isposinf(ask(runner, np.full((2, 3), 1e6, np.float32))).all()


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 0, 3)])
def test_fixed_shapes_of_any_rank(device: Device, shape: tuple[int, ...]) -> None:
    runner = runner_of(device, Affine("FLOAT", shape, {}, wait_us=WAIT_US))
    for turn in range(MANY):
        x = np.asarray(numbers(*shape, seed=turn))
        found = ask(runner, x)
        assert found.shape == shape
        assert np.array_equal(found, 2 * x + (shape[0] if shape else 1))


def test_each_input_goes_where_it_belongs(device: Device) -> None:
    runner = runner_of(device, WeightedSum())
    for size in (1, 4, 2):
        a, b = numbers(size, seed=1), numbers(size, seed=2) + 5
        found = runner.run({"b": b, "a": a})
        assert list(found) == ["sum"]
        assert np.array_equal(found["sum"], a + 10 * b)


def test_outputs_of_different_sizes_the_largest_of_one_at_the_smallest_of_the_other(
    device: Device,
) -> None:
    runner = runner_of(device, RowSums(50, 7, least=0))
    for rows, columns in [(50, 7), (0, 3), (1, 1), (49, 2), (7, 0), (0, 0), (50, 7)] * MANY:
        x = numbers(rows, columns, seed=rows) + 1
        found = runner.run({"x": x})
        assert np.array_equal(found["sums"], x.sum(axis=1))
        assert found["left"].shape == (50 - rows,)
        if x.size:
            assert (found["left"] == x[0, 0]).all()


def test_shapes_that_alternate_and_inputs_that_are_no_contiguous_memory(device: Device) -> None:
    runner = runner_of(device, affine(most=9))
    for turn, size in enumerate([9, 1, 5, 9, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9] * 3):
        x = numbers(3, size, seed=turn).T
        assert np.array_equal(ask(runner, x), expected(x))


def test_answers_are_the_callers_and_the_next_run_leaves_them_alone(device: Device) -> None:
    runner = runner_of(device, affine())
    inputs = [numbers(4, 3, seed=turn) for turn in range(MANY)]
    answers = [ask(runner, x) for x in inputs]
    assert all(map(np.array_equal, answers, map(expected, inputs)))
    answers[0][...] = 77  # and they can be written to
    assert np.array_equal(ask(runner, inputs[0]), expected(inputs[0]))


def test_no_more_is_copied_than_there_is(host: HostDevice) -> None:
    runner = runner_of(host, affine(most=100), captures=False)
    ask(runner, numbers(2, 3))
    before = host.copied_bytes
    ask(runner, numbers(2, 3))
    assert host.copied_bytes == before + 2 * (2 * 3 * 4)


def test_a_large_answer_is_waited_for(device: Device) -> None:
    model = Affine("FLOAT", (-1, 1000), {"x": ((1, 1000), (500, 1000))}, wait_us=3000)
    runner = runner_of(device, model)
    for turn in range(MANY):
        x = numbers(500, 1000, seed=turn)
        assert np.array_equal(ask(runner, x), expected(x))


# --- outputs whose size the data tells ------------------------------------------------------------


@pytest.mark.parametrize(("asks_async", "least"), [(True, 1), (False, 1), (True, 0)])
def test_an_output_that_is_empty_grows_and_shrinks(
    device: Device, asks_async: bool, least: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "superbrain")
    model = Positives(3000, wait_us=WAIT_US)
    runner = runner_of(device, model, asks_async=asks_async, asks_least=least)
    x = np.full(5, -1, np.float32)
    assert ask(runner, x).shape == (0,)
    for turn, size in enumerate([1, 3000, 20, 2999, 1] * 2):
        for x in (numbers(size, seed=turn) - 2, np.full(size, -1, np.float32)):
            assert np.array_equal(ask(runner, x), x[x > 0])
    assert runner.captured_graphs == 0
    assert not caplog.messages  # such an engine is not even tried to be captured


def test_memory_for_such_an_output_is_kept_until_more_is_needed(host: HostDevice) -> None:
    runner = runner_of(host, Positives(1000))
    before = host.held_bytes
    for size, held in [(10, 40), (5, 40), (1000, 4000), (1, 4000)]:
        ask(runner, np.ones(size, np.float32))
        assert host.held_bytes == before + held


def test_no_memory_for_such_an_output_costs_one_run(host: HostDevice) -> None:
    runner = runner_of(host, Positives(1000))
    ask(runner, np.ones(10, np.float32))
    host.memory_bytes = host.held_bytes + 100
    with pytest.raises(ExecutionFailed, match="did not accept"):
        ask(runner, np.ones(1000, np.float32))
    assert ask(runner, np.ones(9, np.float32)).size == 9


# --- graphs ---------------------------------------------------------------------------------------


def test_shapes_that_came_often_enough_are_captured_and_the_answers_stay(device: Device) -> None:
    runner = runner_of(device, affine())
    most = 1 if device.supports_graphs else 0
    for turn in range(MANY):
        x = numbers(4, 3, seed=turn)
        assert runner.captured_graphs == (most if turn > CAPTURE_AFTER else 0)
        assert np.array_equal(ask(runner, x), expected(x))


def test_captured_and_other_shapes_do_not_disturb_one_another(device: Device) -> None:
    runner = runner_of(device, affine(most=9))
    for turn, size in enumerate(
        [*[9] * MANY, 1, 9, 2, 9, 9, 3, *[2] * MANY, 9, 1, 2, 1, 9, 4, 4, 2]
    ):
        x = numbers(size, 3, seed=turn)
        assert np.array_equal(ask(runner, x), expected(x))
    assert runner.captured_graphs == (2 if device.supports_graphs else 0)


def test_no_more_graphs_than_there_may_be(device: Device) -> None:
    runner = runner_of(device, affine(most=MOST_GRAPHS + 2))
    for size in range(1, MOST_GRAPHS + 3):
        for turn in range(MANY):
            x = numbers(size, 3, seed=turn)
            assert np.array_equal(ask(runner, x), expected(x))
    assert runner.captured_graphs == (MOST_GRAPHS if device.supports_graphs else 0)


def test_several_inputs_and_outputs_are_captured(device: Device) -> None:
    sums, total = runner_of(device, RowSums(6, 5)), runner_of(device, WeightedSum())
    for turn in range(MANY):
        x, a, b = numbers(4, 5, seed=turn), numbers(3, seed=turn), numbers(3, seed=-turn - 1 & 99)
        found = sums.run({"x": x})
        assert np.array_equal(found["sums"], x.sum(axis=1))
        assert found["left"].tolist() == [x[0, 0]] * 2
        assert np.array_equal(total.run({"a": a, "b": b})["sum"], a + 10 * b)
    assert sums.captured_graphs == total.captured_graphs == int(device.supports_graphs)


@pytest.mark.parametrize(
    "faults", [{"refuses_capture": True}, {"most_contexts": 1}], ids=["refused", "no context"]
)
def test_an_engine_that_cannot_be_captured_runs_on_and_that_is_said_once(
    device: Device, faults: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "superbrain")
    runner = runner_of(device, affine(), **faults)
    for turn in range(2 * MANY):
        x = numbers(1 + turn % 2, 3, seed=turn)
        assert np.array_equal(ask(runner, x), expected(x))
    assert runner.captured_graphs == 0
    said = [one for one in caplog.messages if "without captured graphs" in one]
    assert len(said) == int(device.supports_graphs)


def test_a_capture_that_the_device_breaks_costs_nothing_but_the_graph(
    host: HostDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses() -> Any:  # noqa: ANN401
        HostDevice.end_capture(host)
        raise DeviceError("the capture was invalidated")

    monkeypatch.setattr(host, "end_capture", refuses)
    runner = runner_of(host, affine())
    for turn in range(MANY):
        assert np.array_equal(
            ask(runner, numbers(2, 3, seed=turn)), expected(numbers(2, 3, seed=turn))
        )
    assert runner.captured_graphs == 0
    assert not host.capturing


def test_the_last_shapes_are_set_again_after_a_capture(device: Device) -> None:
    """The context for graphs is another one: that its shapes are set says nothing of the first."""
    runner = runner_of(device, affine(most=9))
    sizes = [*[2] * CAPTURE_AFTER, 7, 2, 7, 7, 2]
    for turn, size in enumerate(sizes):
        x = numbers(size, 3, seed=turn)
        assert np.array_equal(ask(runner, x), expected(x))


def test_what_has_come_is_not_remembered_for_ever(host: HostDevice) -> None:
    runner = runner_of(host, affine(most=MOST_SHAPES + 50))
    for size in range(1, MOST_SHAPES + 50):
        ask(runner, numbers(size, 3))
    assert len(runner._seen) <= MOST_SHAPES


def test_a_device_without_graphs_is_not_asked_for_any(
    host: HostDevice, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "superbrain")
    monkeypatch.setattr(host, "supports_graphs", False)
    runner = runner_of(host, affine())
    for turn in range(MANY):
        ask(runner, numbers(2, 3, seed=turn))
    assert runner.captured_graphs == 0
    assert not caplog.messages


def test_no_graphs_where_none_are_asked_for(device: Device) -> None:
    runner = runner_of(device, affine(), captures=False)
    for turn in range(MANY):
        assert np.array_equal(ask(runner, numbers(2, 3)), expected(numbers(2, 3))), turn
    assert runner.captured_graphs == 0


def test_tensorrt_for_rtx_is_told_to_capture_by_itself(device: Device) -> None:
    model = affine()
    engine = engine_of(device, model)
    runner = Runner(RtxLibrary, engine, device, model.declare(), captures=False)
    for turn in range(MANY):
        x = numbers(2, 3, seed=turn)
        assert np.array_equal(ask(runner, x), expected(x))
    assert runner.captured_graphs == 0
    assert engine.strategies == ["whole"]


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("runs_before", [0, 1, MANY])
def test_a_run_that_fails_is_one_run(device: Device, runs_before: int) -> None:
    model = affine()
    engine = engine_of(device, model)
    runner = Runner(Library, engine, device, model.declare(), captures=False)
    x = numbers(3, 3)
    for _ in range(runs_before):
        ask(runner, x)
    engine.fails = 1
    with pytest.raises(ExecutionFailed, match="did not accept its inputs"):
        ask(runner, x + 1)
    assert np.array_equal(ask(runner, x), expected(x))


def test_a_device_that_fails_while_it_is_waited_for_is_an_execution_that_failed(
    host: HostDevice,
) -> None:
    runner = runner_of(host, affine())

    def breaks() -> None:
        raise DeviceError("an illegal instruction was encountered")

    host.enqueue(breaks)
    with pytest.raises(ExecutionFailed, match="failed on this input: an illegal instruction"):
        ask(runner, numbers(3, 3))
    assert np.array_equal(ask(runner, numbers(2, 3)), expected(numbers(2, 3)))


def test_a_shape_outside_the_profile_fails_and_the_next_run_sets_all_shapes_again(
    device: Device,
) -> None:
    runner = runner_of(device, WeightedSum(of_b=(2, 4)), captures=False)
    a, b = numbers(3, seed=1), numbers(3, seed=2)
    runner.run({"a": a, "b": b})
    with pytest.raises(
        ExecutionFailed, match=r"input 'b': the engine does not take the shape \[1\]"
    ):
        runner.run({"a": numbers(1), "b": numbers(1)})
    assert np.array_equal(runner.run({"a": a, "b": b})["sum"], a + 10 * b)


def test_inputs_that_do_not_go_together_are_one_run(device: Device) -> None:
    runner = runner_of(device, WeightedSum(4))
    with pytest.raises(ExecutionFailed, match="did not accept"):
        runner.run({"a": numbers(2), "b": numbers(3)})
    assert runner.run({"a": numbers(2), "b": numbers(2)})["sum"].shape == (2,)


def test_an_engine_with_another_profile_is_refused(device: Device) -> None:
    model = affine(most=4)
    graph = affine(most=5).declare()
    with pytest.raises(EngineRefused, match=r"input 'x': the engine does not take \[5, 3\]"):
        Runner(Library, engine_of(device, model), device, graph, captures=True)


def test_a_run_with_a_shape_that_the_engine_does_not_take(device: Device) -> None:
    model = Affine("FLOAT", (-1, 3), {"x": ((2, 3), (4, 3))})
    runner = runner_of(device, model)
    with pytest.raises(ExecutionFailed, match=r"does not take the shape \[1, 3\]"):
        ask(runner, numbers(1, 3))
    assert np.array_equal(ask(runner, numbers(2, 3)), expected(numbers(2, 3)))


def test_no_memory_for_a_context_is_told_with_its_size(device: Device) -> None:
    with pytest.raises(DeviceError, match=r"expected 352 bytes of device memory"):
        runner_of(device, affine(), most_contexts=0)


def test_no_memory_for_the_buffers(host: HostDevice) -> None:
    host.memory_bytes = 400
    with pytest.raises(DeviceError, match="out of memory"):
        runner_of(host, affine())


def test_shapes_that_do_not_follow_from_the_inputs_are_refused(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.standin_tensorrt.Context.infer_shapes", lambda _self: ["k"])
    with pytest.raises(EngineRefused, match=r"follow from the inputs, not \['k'\]"):
        runner_of(device, affine())


def test_shapes_that_contradict_one_another_are_refused(device: Device) -> None:
    with pytest.raises(EngineRefused, match="do not go together: expected two tensors"):
        runner_of(device, WeightedSum(of_b=(1, 3)))


def test_an_output_without_an_upper_bound_is_refused(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tests.support.standin_tensorrt.Context.get_max_output_size", lambda _self, _name: -1
    )
    with pytest.raises(EngineRefused, match="output 'y': the engine does not say how large it is"):
        runner_of(device, affine())


def test_memory_that_the_engine_does_not_take(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tests.support.standin_tensorrt.Context.set_tensor_address", lambda *_three: False
    )
    with pytest.raises(EngineRefused, match="tensor 'x': the engine does not take its memory"):
        runner_of(device, affine())


def test_a_type_that_nothing_here_holds(device: Device) -> None:
    with pytest.raises(RungUnavailable, match=r"tensor 'x': expected a type .* found FP4"):
        runner_of(device, affine(), kinds={"x": "FP4"})


def test_a_type_that_takes_ml_dtypes_where_it_is_not_installed(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(RungUnavailable, match="found BF16") as caught:
        runner_of(device, affine(), kinds={"x": "BF16"})
    assert "ml-dtypes" in caught.value.mend


# --- the end --------------------------------------------------------------------------------------


def test_contexts_end_with_the_runner_and_everything_else_with_the_device(host: HostDevice) -> None:
    engine = engine_of(host, affine())
    runner = Runner(Library, engine, host, engine.model.declare(), captures=True)
    for turn in range(MANY):
        ask(runner, numbers(2, 3, seed=turn))
    assert engine.contexts == 2
    buffers = 2 * 4 * 3 * 4  # x and y, for the largest shape
    assert host.held_bytes == buffers + 2 * engine.device_memory_size_v2
    del runner
    gc.collect()
    assert (engine.contexts, host.held_bytes) == (0, buffers)
    host.close()
    assert host.held_bytes == 0


def test_every_context_of_an_engine_that_is_refused_ends(device: Device) -> None:
    engine = engine_of(device, affine(), kinds={"y": "FP4"})
    with pytest.raises(RungUnavailable):
        Runner(Library, engine, device, engine.model.declare(), captures=True)
    gc.collect()
    assert engine.contexts == 0
