"""Bound sessions: the outputs of `InferenceSession.run`, bit for bit, and nothing is shared."""

from __future__ import annotations

import collections
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import DTypeLike

from superbrain.domain.manifest import Range
from superbrain.engines.graph_check import FileTensor
from superbrain.engines.onnx_session import CPU_PROVIDER, file_tensors, open_session
from superbrain.engines.onnx_steady import (
    FILLINGS,
    MOST_BYTES,
    SteadySession,
    keeps_shapes,
    writes_all,
)
from superbrain.engines.onnxruntime import OnnxRuntime
from superbrain.engines.port import Bound, ExecutionFailed
from superbrain.wire.datatypes import Array
from tests.support.graphs import (
    ADD,
    DOUBLE,
    FOUND,
    SCALARS,
    TinyGraph,
    declare,
    identity,
    save_graph,
    tensor,
)

RUNG = "onnxruntime:cpu"
RANDOM = np.random.default_rng(14)
NUMBERS = itertools.count()
DTYPES: dict[str, DTypeLike] = {
    "BOOL": np.bool_,
    "INT64": np.int64,
    "INT32": np.int32,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
NAMES = ["turned", "joint", "shape"]
BATCHES = [2, 2, 2, 3, 3, 3, 1, 3, 2, 2, 2, 1, 1, 1, 1]
BOUND_AT = [2, 5, 7, 10, 13, 14]  # the places in BATCHES of what is run bound
PATIENCE_S = 20.0

GATHER = TinyGraph(
    [("Gather", ["table", "place"], ["row"])],
    [tensor("table", "FP32", 4, 2), tensor("place", "INT64")],
    [tensor("row", "FP32", 2)],
)
WRONG_SIZE = TinyGraph(
    [("Identity", ["x"], ["y"])],
    [tensor("x", "FP32", "N", 2)],
    [tensor("y", "FP32", 1, 2)],
    {"N": Range(1, 2, 4)},
)
WRONG_NAME = TinyGraph(
    [("Compress", ["x", "kept"], ["y"])],
    [tensor("x", "FP32", "N"), tensor("kept", "BOOL", "N")],
    [tensor("y", "FP32", "N")],
    {"N": Range(1, 2, 4)},
)
AGAIN = TinyGraph(
    [("Neg", ["ids"], ["y"])],
    [tensor("ids", "INT64", "N")],
    [tensor("y", "INT64", "N"), tensor("ids", "INT64", "N")],
    {"N": Range(1, 2, 4)},
)
RESHAPE = TinyGraph(
    [("Reshape", ["x", "shape"], ["y"])],
    [tensor("x", "FP32", 4), tensor("shape", "INT64", "K")],
    [tensor("y", "FP32", "N", "M")],
    {"N": Range(1, 2, 4), "M": Range(1, 2, 4), "K": Range(1, 2, 4)},
)


def several(datatype: str) -> TinyGraph:
    """Two inputs; outputs of their shape, of another and, of one input alone, of another order."""
    joint = "Xor" if datatype == "BOOL" else "Add"
    return TinyGraph(
        [
            (joint, ["a", "b"], ["joint"]),
            ("Transpose", ["b"], ["turned"]),
            ("Shape", ["a"], ["shape"]),
        ],
        [tensor("a", datatype, "N", 3), tensor("b", datatype, "N", 3)],
        [
            tensor("turned", datatype, 3, "N"),
            tensor("joint", datatype, "N", 3),
            tensor("shape", "INT64", 2),
        ],
        {"N": Range(1, 2, 4)},
    )


class Session:
    """A real session that counts how it is run; `meanwhile` is called before a bound run.

    Runs that merely try whether memory is written to do not count.
    """

    def __init__(self, path: Path) -> None:
        self.real = open_session(onnxruntime, path, CPU_PROVIDER, threads=1)
        self.plain = self.bound = 0
        self.trials = len(FILLINGS)
        self.meanwhile: Callable[[], object] = lambda: None
        self.io_binding = self.real.io_binding

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        self.plain += 1
        given: list[Array] = self.real.run(outputs, feeds)
        return given

    def run_with_iobinding(self, binding: Any) -> None:  # noqa: ANN401 - the library has no types
        if self.trials:
            self.trials -= 1
        else:
            self.meanwhile()
            self.bound += 1
        self.real.run_with_iobinding(binding)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[TinyGraph], Session]:
    return lambda graph: Session(save_graph(tmp_path / "graph.onnx", graph))


@pytest.fixture
def bound_runs(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was run bound, by any session of the library, and not for a trial."""
    runs: list[object] = []
    trials: collections.Counter[int] = collections.Counter()
    real = onnxruntime.InferenceSession.run_with_iobinding

    def spy(session: object, binding: object) -> None:
        if trials[id(session)] < len(FILLINGS):
            trials[id(session)] += 1
        else:
            runs.append(binding)
        real(session, binding)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", spy)
    return runs


def some(datatype: str, *shape: int) -> Array:
    """Random numbers; among real ones some that are none."""
    if datatype == "BOOL":
        return np.array(RANDOM.integers(0, 2, shape), np.bool_)
    if datatype.startswith("FP"):
        numbers = np.array(RANDOM.standard_normal(shape) * 100)
        numbers[RANDOM.random(shape) < 0.1] = np.nan
        numbers[RANDOM.random(shape) < 0.1] = -np.inf
        return numbers.astype(DTYPES[datatype])
    return np.array(RANDOM.integers(0, 100, shape), DTYPES[datatype])


def assert_same(given: Sequence[Array], expected: Sequence[Array]) -> None:
    assert len(given) == len(expected)
    for one, other in zip(given, expected, strict=True):
        assert type(one) is type(other) is np.ndarray
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == other.tobytes()


def bound_at(session: Session, counts: Sequence[int]) -> list[int]:
    """Double as many numbers, time after time; the places of the runs that were bound ones."""
    steady = SteadySession(session)
    places = []
    for place, count in enumerate(counts):
        x = some("FP32", count)
        before = session.bound
        assert_same(steady(["y"], {"x": x}), session.real.run(["y"], {"x": x}))
        places += [place] * (session.bound - before)
    assert session.plain == len(counts) - len(places)
    return places


# --- the same outputs ---------------------------------------------------------------------------


@pytest.mark.parametrize("datatype", list(DTYPES))
def test_outputs_are_the_same_bit_for_bit_while_the_batch_changes(
    opened: Callable[[TinyGraph], Session], datatype: str
) -> None:
    session = opened(several(datatype))
    steady = SteadySession(session)
    places = []
    for place, batch in enumerate(BATCHES):
        feeds = {"a": some(datatype, batch, 3), "b": some(datatype, batch, 3)}
        before = session.bound
        assert_same(steady(NAMES, feeds), session.real.run(NAMES, feeds))
        places += [place] * (session.bound - before)
    assert places == BOUND_AT
    assert session.plain == len(BATCHES) - len(BOUND_AT)


def test_inputs_are_taken_by_name_in_any_order(opened: Callable[[TinyGraph], Session]) -> None:
    session = opened(several("FP32"))
    steady = SteadySession(session)
    for turn in range(4):
        feeds = {"a": some("FP32", 2, 3), "b": some("FP32", 2, 3)}
        given = dict(reversed(feeds.items())) if turn % 2 else feeds
        assert_same(steady(NAMES, given), session.real.run(NAMES, feeds))
    assert (session.plain, session.bound) == (2, 2)


def test_numbers_without_dimensions_stay_so(opened: Callable[[TinyGraph], Session]) -> None:
    session = opened(SCALARS)
    steady = SteadySession(session)
    for _ in range(5):
        feeds = {"a": some("FP64"), "b": some("FP64")}
        (product,) = steady(["product"], feeds)
        assert product.shape == ()
        assert_same([product], session.real.run(["product"], feeds))
    assert (session.plain, session.bound) == (2, 3)


@pytest.mark.parametrize(
    "cut",
    [
        lambda x: np.concatenate([x, x], axis=1)[:, ::2],
        np.asfortranarray,
        lambda x: x[::-1, ::-1],
        lambda x: np.broadcast_to(x[:1], x.shape),
    ],
)
def test_an_input_that_is_not_in_one_piece_is_taken_as_it_reads(
    opened: Callable[[TinyGraph], Session], cut: Callable[[Array], Array]
) -> None:
    session = opened(several("FP32"))
    steady = SteadySession(session)
    for _ in range(4):
        feeds = {"a": cut(some("FP32", 3, 3)), "b": cut(some("FP32", 3, 3))}
        whole = {name: array.copy(order="C") for name, array in feeds.items()}
        assert_same(steady(NAMES, feeds), session.real.run(NAMES, whole))
    assert (session.plain, session.bound) == (2, 2)


def test_an_input_that_must_not_be_written_is_read(opened: Callable[[TinyGraph], Session]) -> None:
    session = opened(DOUBLE)
    steady = SteadySession(session)
    for value in range(4):
        x = np.frombuffer(np.full(4, value, np.float32).tobytes(), np.float32)
        assert steady(["y"], {"x": x})[0].tolist() == [2.0 * value] * 4
    assert (session.plain, session.bound) == (2, 2)


# --- nothing is shared --------------------------------------------------------------------------


def test_arrays_given_out_are_the_callers_and_no_later_run_changes_them(
    opened: Callable[[TinyGraph], Session],
) -> None:
    session = opened(identity("FP32", "N"))
    steady = SteadySession(session)
    kept: list[Array] = []
    for value in range(6):
        x = np.full(8, value, np.float32)
        (y,) = steady(["y"], {"x": x})
        assert not np.shares_memory(x, y)
        assert y.flags.writeable
        kept.append(y)
    assert [y.tolist() for y in kept] == [[value] * 8 for value in range(6)]
    for y in kept:
        y[:] = -1
    assert steady(["y"], {"x": np.ones(8, np.float32)})[0].tolist() == [1] * 8
    assert (session.plain, session.bound) == (2, 5)


def test_what_an_output_is_made_into_later_does_not_change_the_next_one(
    opened: Callable[[TinyGraph], Session],
) -> None:
    session = opened(DOUBLE)
    steady = SteadySession(session)
    x = np.ones(4, np.float32)
    first = [steady(["y"], {"x": x})[0] for _ in range(4)]
    x[:] = 5
    assert steady(["y"], {"x": x})[0].tolist() == [10] * 4
    assert [y.tolist() for y in first] == [[2] * 4] * 4
    assert (session.plain, session.bound) == (2, 3)


# --- what is not bound --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "bound"),
    [
        (MOST_BYTES // 8, [2, 3]),
        (MOST_BYTES // 8 + 1, []),
        (MOST_BYTES, []),
        (1, [2, 3]),
        (0, []),
    ],
)
def test_only_what_is_small_and_not_empty_is_bound(
    opened: Callable[[TinyGraph], Session], count: int, bound: list[int]
) -> None:
    assert bound_at(opened(DOUBLE), [count] * 4) == bound


def test_after_what_is_not_bound_the_next_is_bound_again(
    opened: Callable[[TinyGraph], Session],
) -> None:
    counts = [2, 2, 2, 0, 0, 0, 2, 2, 2, MOST_BYTES, 2, 2]
    assert bound_at(opened(DOUBLE), counts) == [2, 8, 10, 11]


def test_shapes_that_alternate_are_never_bound(opened: Callable[[TinyGraph], Session]) -> None:
    assert bound_at(opened(DOUBLE), [2, 3] * 5) == []


def test_what_is_bound_stays_so_while_other_shapes_come_once(
    opened: Callable[[TinyGraph], Session],
) -> None:
    assert bound_at(opened(DOUBLE), [2, 2, 2, 3, 2]) == [2, 4]


def test_shapes_that_come_twice_running_are_bound_instead(
    opened: Callable[[TinyGraph], Session],
) -> None:
    assert bound_at(opened(DOUBLE), [2, 2, 2, 3, 3, 3, 2, 3]) == [2, 5, 7]


# --- threads ------------------------------------------------------------------------------------


def test_who_asks_while_another_runs_gets_an_answer_of_his_own(
    opened: Callable[[TinyGraph], Session],
) -> None:
    session = opened(DOUBLE)
    steady = SteadySession(session)
    for _ in range(2):
        steady(["y"], {"x": np.zeros(2, np.float32)})
    came, answered = threading.Event(), threading.Event()

    def meanwhile() -> None:
        came.set()
        assert answered.wait(PATIENCE_S)

    session.meanwhile = meanwhile
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(steady, ["y"], {"x": np.full(2, 1, np.float32)})
        assert came.wait(PATIENCE_S)
        second = steady(["y"], {"x": np.full(2, 2, np.float32)})
        answered.set()
        assert first.result(PATIENCE_S)[0].tolist() == [2, 2]
    assert second[0].tolist() == [4, 4]
    assert (session.plain, session.bound) == (3, 1)


def test_threads_at_once_get_right_answers_each(opened: Callable[[TinyGraph], Session]) -> None:
    steady = SteadySession(opened(DOUBLE))
    together = threading.Barrier(3, timeout=PATIENCE_S)

    def ask(thread: int) -> bool:
        together.wait()
        return all(
            (steady(["y"], {"x": np.full(64, value, np.float32)})[0] == 2 * value).all()
            for value in range(thread * 1000, thread * 1000 + 400)
        )

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(ask, range(3))) == [True] * 3


# --- a run that raises --------------------------------------------------------------------------


def test_wrong_values_raise_what_the_library_says_and_bound_runs_go_on(
    opened: Callable[[TinyGraph], Session],
) -> None:
    session = opened(GATHER)
    steady = SteadySession(session)

    def feeds(place: int) -> dict[str, Array]:
        return {"table": some("FP32", 4, 2), "place": np.array(place)}

    def counts_of_a_wrong_run(place: int) -> tuple[int, int]:
        session.plain = session.bound = 0
        wrong = feeds(place)
        with pytest.raises(Exception, match="must be within the inclusive range") as expected:
            session.real.run(["row"], wrong)
        with pytest.raises(expected.type) as found:
            steady(["row"], wrong)
        assert str(found.value) == str(expected.value)
        return session.plain, session.bound

    def counts_of_a_right_run(place: int) -> tuple[int, int]:
        session.plain = session.bound = 0
        right = feeds(place)
        assert_same(steady(["row"], right), session.real.run(["row"], right))
        return session.plain, session.bound

    assert counts_of_a_wrong_run(4) == (1, 0)
    assert [counts_of_a_right_run(place) for place in (0, 3, -1)] == [(1, 0), (1, 0), (0, 1)]
    for place in (4, -5, 7):
        assert counts_of_a_wrong_run(place) == (1, 1)
        assert [counts_of_a_right_run(place) for place in (0, -1)] == [(0, 1)] * 2


def test_where_only_the_bound_run_fails_nothing_is_bound_any_more(
    opened: Callable[[TinyGraph], Session],
) -> None:
    session = opened(DOUBLE)
    steady = SteadySession(session)
    tries: list[int] = []

    def fail() -> None:
        tries.append(session.plain)
        raise RuntimeError("only when bound")

    session.meanwhile = fail
    for count in (2, 2, 2, 2, 2, 3, 3, 3):
        x = some("FP32", count)
        assert_same(steady(["y"], {"x": x}), session.real.run(["y"], {"x": x}))
    assert tries == [2]
    assert (session.plain, session.bound) == (8, 0)


def test_a_run_that_fails_raises_and_the_next_one_works(tmp_path: Path) -> None:
    engine = OnnxRuntime().load(RUNG, save_graph(tmp_path / "g.onnx", GATHER), declare(GATHER))
    table = some("FP32", 4, 2)

    def row(place: int) -> Array:
        return engine.run({"table": table, "place": np.array(place)})["row"]

    for turn in range(3):
        with pytest.raises(ExecutionFailed, match="must be within the inclusive range"):
            row(4 + turn)
        for place in (0, 3, -1):
            assert row(place).tobytes() == table[place].tobytes()


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], ["a", "c"], []])
def test_inputs_of_other_names_are_refused_by_the_library_and_the_next_run_works(
    opened: Callable[[TinyGraph], Session], names: Sequence[str]
) -> None:
    session = opened(ADD)
    steady = SteadySession(session)
    ones = np.ones((1, 3), np.float32)
    for _ in range(2):
        for _ in range(2):
            assert steady(["sum"], {"a": ones, "b": ones})[0].tolist() == [[2, 2, 2]]
        feeds = dict.fromkeys(names, ones)
        with pytest.raises(Exception, match=r"[Ii]nput") as expected:
            session.real.run(["sum"], feeds)
        with pytest.raises(expected.type, match=r"[Ii]nput") as found:
            steady(["sum"], feeds)
        assert str(found.value) == str(expected.value)
    assert (session.plain, session.bound) == (4, 2)


def test_a_size_that_the_file_says_wrongly_does_not_matter(
    tmp_path: Path, bound_runs: list[object]
) -> None:
    path = save_graph(tmp_path / "g.onnx", WRONG_SIZE)
    engine = OnnxRuntime().load(RUNG, path, declare(WRONG_SIZE))
    for _ in range(6):
        x = some("FP32", 2, 2)
        assert_same([engine.run({"x": x})["y"]], [x])
    assert not bound_runs


def test_a_name_that_the_file_says_wrongly_does_not_matter(
    tmp_path: Path, bound_runs: list[object]
) -> None:
    path = save_graph(tmp_path / "g.onnx", WRONG_NAME)
    engine = OnnxRuntime().load(RUNG, path, declare(WRONG_NAME))
    for places in ([0, 2], [0, 1], [1, 2], [0, 1, 2], [2], [2], [2]):
        x, kept = some("FP32", 3), np.isin(np.arange(3), places)
        assert_same([engine.run({"x": x, "kept": kept})["y"]], [x[places]])
    assert len(bound_runs) == 2


def test_a_shape_that_the_file_leaves_out_may_depend_on_values(
    tmp_path: Path, bound_runs: list[object]
) -> None:
    path = save_graph(tmp_path / "g.onnx", RESHAPE)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    path.write_bytes(model.SerializeToString())
    engine = OnnxRuntime().load(RUNG, path, declare(RESHAPE))
    for shape in ([2, 2], [4, 1], [4, 1], [1, 4], [2, 2], [2, 2], [2, 2]):
        x = some("FP32", 4)
        y = engine.run({"x": x, "shape": np.array(shape)})["y"]
        assert_same([y], [x.reshape(shape)])
    assert len(bound_runs) == 2


def test_an_input_that_is_given_out_again_is_what_was_asked_with(
    tmp_path: Path, bound_runs: list[object]
) -> None:
    path = save_graph(tmp_path / "again.onnx", AGAIN)
    engine = OnnxRuntime().load(RUNG, path, declare(AGAIN))
    for _ in range(6):
        ids = np.array(RANDOM.integers(0, 100, 3), np.int64)
        assert_same([engine.run({"ids": ids})["ids"]], [ids])
    assert not bound_runs


@pytest.mark.parametrize("datatype", list(DTYPES))
@pytest.mark.parametrize(("written", "all_of_it"), [(0, False), (3, False), (4, True)])
def test_memory_that_a_run_leaves_as_it_was_is_found(
    datatype: str, written: int, *, all_of_it: bool
) -> None:
    x, y = some(datatype, 4), np.empty(4, DTYPES[datatype])
    taken = {"x": np.empty_like(x)}

    def run() -> None:
        y[:written] = taken["x"][:written]

    whole = np.empty((), np.float32)
    bound = Bound(threading.Lock(), run, taken, {"y": y, "whole": whole})
    assert not writes_all(bound, {"x": x})
    bound = Bound(threading.Lock(), run, taken, {"y": y})
    assert writes_all(bound, {"x": x}) is all_of_it


def test_memory_that_cannot_be_run_on_is_not_written_to() -> None:
    def run() -> None:
        raise RuntimeError

    assert not writes_all(Bound(threading.Lock(), run, {}, {}), {})


# --- which graphs -------------------------------------------------------------------------------


def of(datatype: str, *shape: int | str | None, name: str = "") -> FileTensor:
    return FileTensor(name or f"t{next(NUMBERS)}", datatype, shape)


@pytest.mark.parametrize(
    ("inputs", "outputs", "keeps"),
    [
        ([of("FP32", "N", 3)], [of("FP32", "N", 3)], True),
        ([of("FP32", "N", 3)], [of("FP32", 7), of("INT64", 3, "N")], True),
        ([of("FP32", "N"), of("FP32", "M")], [of("FP32", "M", "N")], True),
        ([of("FP32", None)], [of("FP32", 2)], True),
        ([of("FP32", "N")], [of("INT64", 1, "M")], False),
        ([of("FP32", "N")], [of("FP32", "N"), of("INT64", "found")], False),
        ([of("FP32", "N")], [of("FP32", None)], False),
        ([of("FP32", None)], [of("FP32", None)], False),
        ([of("FP32", "N")], [of("FP32", -1)], False),
        ([of("BYTES", "N")], [of("FP32", "N")], False),
        ([of("FP32", "N")], [of("BYTES", "N")], False),
        ([of("FP32", "N"), of("BYTES", 1)], [of("FP32", "N")], False),
        ([of("FP32", "N", name="x")], [of("FP32", "N"), of("FP32", "N", name="x")], False),
    ],
)
def test_shapes_are_kept_where_every_size_of_an_output_is_fixed_or_an_inputs(
    inputs: list[FileTensor], outputs: list[FileTensor], *, keeps: bool
) -> None:
    assert keeps_shapes(inputs, outputs) is keeps


def test_a_graph_that_gives_what_it_finds_does_not_keep_shapes(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "found.onnx", FOUND)
    assert not keeps_shapes(*file_tensors(path, Session(path).real))


@pytest.mark.parametrize(
    ("graph", "inputs", "bound"),
    [
        (ADD, {"a": np.ones((2, 3), np.float32), "b": np.ones((2, 3), np.float32)}, 2),
        (SCALARS, {"a": np.array(2.0), "b": np.array(0.5)}, 2),
        (DOUBLE, {"x": np.ones(16, np.float32)}, 2),
        (FOUND, {"x": np.ones(3, np.float32)}, 0),
        (identity("BYTES", 1), {"x": np.array([b"text"], object)}, 0),
    ],
)
def test_an_engine_on_the_processor_binds_what_keeps_its_shapes(
    tmp_path: Path,
    bound_runs: list[object],
    graph: TinyGraph,
    inputs: dict[str, Array],
    bound: int,
) -> None:
    engine = OnnxRuntime().load(RUNG, save_graph(tmp_path / "g.onnx", graph), declare(graph))
    first, *others = [engine.run(inputs) for _ in range(4)]
    for other in others:
        for name, array in first.items():
            np.testing.assert_array_equal(array, other[name])
    assert len(bound_runs) == bound


def test_an_engine_gives_as_many_as_it_finds_each_time(tmp_path: Path) -> None:
    engine = OnnxRuntime().load(RUNG, save_graph(tmp_path / "g.onnx", FOUND), declare(FOUND))
    for found in ([1, 0, 1], [1, 1, 1], [0, 0, 0], [0, 1, 0], [0, 1, 0]):
        places = engine.run({"x": np.array(found, np.float32)})["places"]
        assert places.tolist() == [np.flatnonzero(found).tolist()]
