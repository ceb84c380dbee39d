"""A model that is a bare small graph answers on bound memory as it does by arrays; nothing is kept.

Every graph is a real one. What goes by arrays alone is the same loop with a model that says of no
memory that it is bound. Tests that do not say otherwise run with either twin; the one in Python
always makes arrays.
"""

from __future__ import annotations

import gc
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike

from superbrain.domain.manifest import Batching, GraphTensor, Interface, InterfaceTensor, Range
from superbrain.domain.tensor_fit import TensorSet
from superbrain.engines.onnxruntime import OnnxRuntime
from superbrain.engines.port import Bound, Engine
from superbrain.serve import executor
from superbrain.serve.stage_clock import StageClock, TimedEngine
from superbrain.serve.steps import GraphSteps
from superbrain.transport import flight
from superbrain.transport.lane_socket import LaneSocket
from superbrain.wire import lane
from superbrain.wire.datatypes import Array
from superbrain.wire.errors import InvalidArgument
from superbrain.wire.messages import (
    RequestedOutput,
    SharedMemory,
    TensorHeader,
    decode_error,
)
from tests.support.graphs import TinyGraph, declare, identity, save_graph, tensor
from tests.support.keeping import assert_keeps_nothing
from tests.support.tally_rows import rows_of
from tests.support.twins import twin
from tests.support.worker_loop import FAR_NS, ID, Loop, asking, error, inline, placed, response

__all__ = ["twin"]
RUNG = "onnxruntime:cpu"
RANDOM = np.random.default_rng(16)
DTYPES: dict[str, DTypeLike] = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "UINT16": np.uint16,
    "INT32": np.int32,
    "UINT32": np.uint32,
    "INT64": np.int64,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
PATIENCE_S = 20.0
GATHER = TinyGraph(
    [("Gather", ["table", "place"], ["row"])],
    [tensor("table", "FP32", 4, 2), tensor("place", "INT64", 1)],
    [tensor("row", "FP32", 1, 2)],
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


def several(datatype: str) -> TinyGraph:
    """Two inputs, three outputs of different shapes."""
    return TinyGraph(
        [
            ("Identity", ["a"], ["same"]),
            ("Transpose", ["b"], ["turned"]),
            ("Shape", ["a"], ["shape"]),
        ],
        [tensor("a", datatype, "N", 3), tensor("b", datatype, "N", 3)],
        [
            tensor("turned", datatype, 3, "N"),
            tensor("same", datatype, "N", 3),
            tensor("shape", "INT64", 2),
        ],
        {"N": Range(1, 2, 4)},
    )


def interface_of(graph: TinyGraph) -> Interface:
    def shown(tensors: Sequence[GraphTensor]) -> list[InterfaceTensor]:
        return [
            InterfaceTensor(
                one.name,
                one.datatype,
                [-1 if isinstance(size, str) else size for size in one.shape],
            )
            for one in tensors
        ]

    return Interface(shown(graph.inputs), shown(graph.outputs))


class GraphModel:
    """A bare graph that is served; it knows how often it was run on bound memory.

    `binds`: whether it says so of memory. `meanwhile` is called before a run on it.
    """

    name, version, runtime = "adder", "1", "test"
    request_timeout_ms = 30_000
    queue_size = 100

    def __init__(self, path: Path, graph: TinyGraph) -> None:
        self.batching = Batching()
        self.clock = StageClock()
        interface = interface_of(graph)
        self.outputs = [one.name for one in interface.outputs]
        engine: Engine = OnnxRuntime().load(RUNG, save_graph(path, graph), declare(graph))
        self.engine = TimedEngine(engine, self.clock)
        self._steps = GraphSteps(self.engine, interface)
        self._request = TensorSet("request tensor", interface.inputs)
        self.binds = True
        self.runs = 0
        self.meanwhile: Callable[[], object] = lambda: None
        self._shown: dict[int, tuple[Bound, Bound]] = {}

    def infer(self, request: dict[str, Array]) -> dict[str, Array]:
        misfit = self._request.misfit(request)
        if misfit:
            raise InvalidArgument(misfit)
        return self.answer(request)

    def answer(self, request: dict[str, Array]) -> dict[str, Array]:
        return self._steps.answer(request)

    def bound(self) -> Bound | None:
        bound = self._steps.bound() if self.binds else None
        if bound is None:
            return None
        shown = bound._replace(run=partial(self._run, bound))
        return self._shown.setdefault(id(bound), (bound, shown))[1]

    def _run(self, bound: Bound) -> None:
        self.runs += 1
        self.meanwhile()
        bound.run()

    def infer_together(self, *_: object) -> Any:  # noqa: ANN401
        raise NotImplementedError

    prove = time = reprove = infer_together


class Bench:
    """A loop that serves a graph, and a peer."""

    def __init__(self, loop: Loop, path: Path, graph: TinyGraph, *, fast: bool) -> None:
        self.loop = loop
        self.fast = fast
        self.model = GraphModel(path, graph)
        loop.loop.stand_by()
        loop.loop.serve(self.model, 7, 1.0)
        self.peer: LaneSocket = loop.connect()
        self.lane = len(loop.peers)

    def header(self, arrays: dict[str, Array], outputs: Sequence[str] = ()) -> bytes:
        inputs = [inline(name, array) for name, array in arrays.items()]
        return asking(*inputs, outputs=[RequestedOutput(name) for name in outputs])

    def ask(
        self, arrays: dict[str, Array], outputs: Sequence[str] = (), header: bytes = b""
    ) -> lane.LaneFrame:
        tensors = [bytes(array.tobytes()) for array in arrays.values()]
        return self.loop.ask(self.peer, header or self.header(arrays, outputs), tensors)

    def assert_bound_runs(self, count: int) -> None:
        assert self.model.runs == (count if self.fast else 0)


@pytest.fixture
def make(twin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(executor, "_QUICK_NS", FAR_NS)
    monkeypatch.setattr(executor, "TOGETHER_NS", FAR_NS)
    loops: list[Loop] = []

    def make(graph: TinyGraph) -> Bench:
        name = len(loops)
        loops.append(Loop(tmp_path / f"lane{name}", monkeypatch))
        return Bench(loops[-1], tmp_path / f"{name}.onnx", graph, fast=twin == "compiled")

    yield make
    for loop in loops:
        loop.close()


Make = Callable[[TinyGraph], Bench]


def some(datatype: str, *shape: int) -> Array:
    """Any bytes, but for truth; among real ones some are no numbers."""
    if datatype == "BOOL":
        return np.array(RANDOM.integers(0, 2, shape), np.bool_)
    dtype = np.dtype(DTYPES[datatype])
    data: Array = np.frombuffer(RANDOM.bytes(int(np.prod(shape)) * dtype.itemsize), dtype)
    return data.reshape(shape)


def told(frame: lane.LaneFrame) -> tuple[int, bytes, list[bytes]]:
    return frame.kind, bytes(frame.header), list(map(bytes, frame.tensors))


def assert_alike(benches: Sequence[Bench], *asked: Any) -> lane.LaneFrame:  # noqa: ANN401
    """Both are told the same; give what the first is."""
    first, second = (bench.ask(*asked) for bench in benches)
    assert told(first) == told(second)
    return first


def pair(make: Make, graph: TinyGraph) -> tuple[Bench, Bench]:
    """One who uses bound memory, and one who does not."""
    bound, arrays = make(graph), make(graph)
    arrays.model.binds = False
    return bound, arrays


# --- the same answers ---------------------------------------------------------------------------


@pytest.mark.parametrize("datatype", list(DTYPES))
def test_answers_are_the_same_bit_for_bit(make: Make, datatype: str) -> None:
    benches = pair(make, several(datatype))
    for _ in range(8):
        a, b = some(datatype, 2, 3), some(datatype, 2, 3)
        frame = assert_alike(benches, {"a": a, "b": b})
        assert [bytes(one) for one in frame.tensors] == [
            b.T.tobytes(),
            a.tobytes(),
            np.array([2, 3]).tobytes(),
        ]
    benches[0].assert_bound_runs(0 if datatype == "BOOL" else 5)
    benches[1].assert_bound_runs(0)


def test_bytes_that_are_no_truth_are_refused_alike(make: Make) -> None:
    benches = pair(make, several("BOOL"))
    for n in (0, 1, 0, 1, 2, 255, 1, 128):
        arrays = {name: np.full((2, 3), n, np.uint8) for name in "ab"}
        header = benches[0].header({name: array.view(np.bool_) for name, array in arrays.items()})
        frame = assert_alike(benches, arrays, (), header)
        if n > 1:
            error = decode_error(frame.header)
            assert error.code == "INVALID_ARGUMENT"
            assert f"expected BOOL as bytes of 0 and 1, found one of {n}" in error.message
        else:
            assert bytes(frame.tensors[1]) == bytes([n]) * 6


@pytest.mark.parametrize(
    "outputs",
    [
        ["turned"],
        ["shape"],
        ["same", "turned"],
        ["shape", "turned", "same"],
        ["turned", "same", "shape"],
    ],
)
def test_outputs_come_as_they_are_asked_for(make: Make, outputs: list[str]) -> None:
    benches = pair(make, several("FP32"))
    for _ in range(8):
        arrays = {"a": some("FP32", 2, 3), "b": some("FP32", 2, 3)}
        frame = assert_alike(benches, arrays, outputs)
        assert [output.name for output in response(frame).outputs] == outputs
    benches[0].assert_bound_runs(5)


def test_inputs_are_taken_by_name_in_any_order(make: Make) -> None:
    benches = pair(make, several("FP32"))
    for n in range(16):
        arrays = {"b": some("FP32", 2, 3), "a": some("FP32", 2, 3)}
        frame = assert_alike(benches, arrays if n % 2 else dict(reversed(arrays.items())))
        assert bytes(frame.tensors[0]) == arrays["b"].T.tobytes()
    assert (benches[0].model.runs > 8) == benches[0].fast


@pytest.mark.parametrize(
    "sizes",
    [[1, 2] * 8, [1, 1, 1, 2, 2, 2] * 3, [1] * 4 + [2] * 4 + [1, 2, 3] * 4, [3, 3, 1, 1] * 4],
)
def test_shapes_that_change_are_answered_alike(make: Make, sizes: list[int]) -> None:
    benches = pair(make, several("FP32"))
    for rows in sizes:
        arrays = {"a": some("FP32", rows, 3), "b": some("FP32", rows, 3)}
        frame = assert_alike(benches, arrays)
        assert response(frame).outputs[0].shape == [3, rows]


def test_each_shape_keeps_its_own_memory(make: Make) -> None:
    bench = make(several("FP32"))
    for rows in (1, 1, 1, 2, 2, 2):
        bench.ask({"a": some("FP32", rows, 3), "b": some("FP32", rows, 3)})
    bench.model.runs = 0
    for rows in (1, 2, 1, 2, 1, 1, 2):
        arrays = {"a": some("FP32", rows, 3), "b": some("FP32", rows, 3)}
        frame = bench.ask(arrays)
        assert bytes(frame.tensors[1]) == arrays["a"].tobytes()
        assert bytes(frame.tensors[0]) == arrays["b"].T.tobytes()
    bench.assert_bound_runs(7)


def test_several_that_come_together_get_each_its_own(make: Make) -> None:
    benches = pair(make, several("FP32"))
    for _ in range(3):
        assert_alike(benches, {"a": some("FP32", 2, 3), "b": some("FP32", 2, 3)})
    header = benches[0].header({"a": np.zeros((2, 3), "f4"), "b": np.zeros((2, 3), "f4")})
    tensors = [[some("FP32", 2, 3).tobytes() for _ in "ab"] for _ in range(20)]
    heard = []
    for bench in benches:
        bench.model.runs = 0
        kinds = [lane.REQUEST, lane.FORWARD]
        numbers = [
            bench.loop.send(bench.peer, header, one, FAR_NS << 20, kinds[n % 2])
            for n, one in enumerate(tensors)
        ]
        frames = bench.loop.answers(bench.peer, 20)
        assert [frame.request_id for frame in frames] == numbers
        heard.append([told(frame) for frame in frames])
    assert heard[0] == heard[1]
    assert [tensors[0] for _, _, tensors in heard[0]] == [
        np.frombuffer(b, "f4").reshape(2, 3).T.tobytes() for _, b in tensors
    ]
    assert all(response(frame).id == ID for frame in frames)


@pytest.mark.parametrize("together", [1, 5])
def test_what_the_peer_does_not_take_at_once_is_no_other_ones(make: Make, together: int) -> None:
    bench = make(identity("FP32", 3000))
    for _ in range(3):
        bench.ask({"x": some("FP32", 3000)})
    bench.model.runs = 0
    (link,) = bench.loop.loop._lanes.values()
    link._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    header = bench.header({"x": np.zeros(3000, np.float32)})
    sent = [np.full(3000, value, np.float32).tobytes() for value in range(4 * together)]
    for first in range(0, len(sent), together):
        for one in sent[first : first + together]:
            bench.loop.send(bench.peer, header, [one], FAR_NS << 20)
        bench.loop.settle()
    assert link.pending_bytes > 12_000
    frames = bench.loop.answers(bench.peer, len(sent))
    assert [bytes(frame.tensors[0]) for frame in frames] == sent
    assert bench.loop.figures.pong(0).ok == bench.loop.figures.pong(0).runs == 3 + len(sent)
    assert (bench.model.runs > 0) == bench.fast


# --- shared memory ------------------------------------------------------------------------------


def bind(bench: Bench) -> None:
    """Let the graph have bound memory for two rows."""
    for _ in range(3):
        bench.ask({"a": some("FP32", 2, 3), "b": some("FP32", 2, 3)})
    bench.model.runs = 0


def test_inputs_and_rooms_in_shared_memory_are_answered_alike(make: Make) -> None:
    benches = pair(make, several("FP32"))
    zero = np.zeros((2, 3), np.float32)
    outputs = [
        RequestedOutput("same", SharedMemory(2, 24, 64)),
        RequestedOutput("shape"),
        RequestedOutput("turned", SharedMemory(2, 24, 256)),
    ]
    header = asking(placed("a", zero, 1), placed("b", zero, 1, 64), outputs=outputs)
    inputs, rooms = [], []
    for bench in benches:
        bind(bench)
        inputs.append(bench.loop.share(bench.peer, 1))
        rooms.append(bench.loop.share(bench.peer, 2))
    for _ in range(8):
        a, b = some("FP32", 2, 3), some("FP32", 2, 3)
        for memory, room in zip(inputs, rooms, strict=True):
            memory[:24], memory[64:88] = a.tobytes(), b.tobytes()
            room[:] = b"\xee" * len(room)
        frame = assert_alike(benches, {}, (), header)
        assert list(map(bytes, frame.tensors)) == [np.array([2, 3]).tobytes()]
        assert rooms[0][:] == rooms[1][:]
        assert rooms[0][64:88] == a.tobytes()
        assert rooms[0][256:280] == b.T.tobytes()
        assert rooms[0][:64] == b"\xee" * 64
    benches[0].assert_bound_runs(7)


def test_inputs_and_outputs_may_be_the_same_bytes(make: Make) -> None:
    bench = make(several("FP32"))
    bind(bench)
    memory = bench.loop.share(bench.peer, 1)
    zero = np.zeros((2, 3), np.float32)
    outputs = [RequestedOutput("turned", SharedMemory(1, 24))]
    header = asking(placed("a", zero, 1), placed("b", zero, 1), outputs=outputs)
    expected = some("FP32", 2, 3)
    memory[:24] = expected.tobytes()
    for _ in range(8):
        said = response(bench.ask({}, (), header)).outputs
        assert said == [TensorHeader("turned", "FP32", [3, 2], SharedMemory(1, 24))]
        expected = expected.T.reshape(-1).reshape(2, 3)
        assert memory[:24] == expected.tobytes()
    bench.assert_bound_runs(7)


def test_whole_numbers_in_shared_memory_are_answered_alike(make: Make) -> None:
    benches = pair(make, several("INT64"))
    zero = np.zeros((2, 3), np.int64)
    header = asking(placed("a", zero, 1), placed("b", zero, 1, 64))
    memories = []
    for bench in benches:
        for _ in range(3):
            bench.ask({"a": zero, "b": zero})
        memories.append(bench.loop.share(bench.peer, 1))
    for _ in range(6):
        data = RANDOM.bytes(128)
        for memory in memories:
            memory[:128] = data
        assert_alike(benches, {}, (), header)


# --- what does not go so ------------------------------------------------------------------------


def test_while_another_thread_has_its_turn_answers_are_made_by_arrays(make: Make) -> None:
    bench = make(several("FP32"))
    bind(bench)
    bound = bench.model.engine.bound()
    assert bound is not None
    with bound.turn:
        for _ in range(3):
            arrays = {"a": some("FP32", 2, 3), "b": some("FP32", 2, 3)}
            assert bytes(bench.ask(arrays).tensors[1]) == arrays["a"].tobytes()
        bench.assert_bound_runs(0)
    arrays = {"a": some("FP32", 2, 3), "b": some("FP32", 2, 3)}
    assert bytes(bench.ask(arrays).tensors[1]) == arrays["a"].tobytes()
    bench.assert_bound_runs(1)
    assert not bound.turn.locked()


def test_another_thread_that_runs_the_graph_meanwhile_gets_its_own(make: Make) -> None:
    bench = make(several("FP32"))
    bind(bench)
    ended = threading.Event()
    wrong: list[object] = []

    def prove() -> None:
        while not ended.is_set():
            mine = {"a": some("FP32", 2, 3), "b": some("FP32", 2, 3)}
            given = bench.model.engine.run(mine)
            if given["same"].tobytes() != mine["a"].tobytes():
                wrong.append(given)

    thread = threading.Thread(target=prove)
    thread.start()
    try:
        for value in range(400):
            arrays = {"a": np.full((2, 3), value, "f4"), "b": np.full((2, 3), -value, "f4")}
            frame = bench.ask(arrays)
            assert bytes(frame.tensors[1]) == arrays["a"].tobytes()
            assert bytes(frame.tensors[0]) == arrays["b"].tobytes()
    finally:
        ended.set()
        thread.join(PATIENCE_S)
    assert not wrong


def test_a_run_that_fails_is_that_requests_own_error(make: Make) -> None:
    benches = pair(make, GATHER)
    table = some("FP32", 4, 2)
    for place in (0, 1, 2, 3, 9, 1, 9, 9, 2, -4, -5, 0):
        frame = assert_alike(benches, {"table": table, "place": np.array([place])})
        if -4 <= place < 4:
            assert bytes(frame.tensors[0]) == table[place].tobytes()
        else:
            assert error(frame).code == "INTERNAL"
    assert benches[0].loop.figures.internal_errors == 4
    assert benches[0].loop.figures.pong(0).ok == 8
    bound = benches[0].model.engine.bound()
    assert bound is not None
    assert not bound.turn.locked()


def test_a_run_on_bound_memory_that_alone_fails_is_no_error(make: Make) -> None:
    bench = make(several("FP32"))
    bind(bench)

    def fails() -> None:
        raise SystemExit(4)

    bench.model.meanwhile = fails
    arrays = {"a": some("FP32", 2, 3), "b": some("FP32", 2, 3)}
    for _ in range(3):
        assert bytes(bench.ask(arrays).tensors[1]) == arrays["a"].tobytes()
    bench.assert_bound_runs(3)
    assert bench.loop.figures.pong(0).runs == bench.loop.figures.pong(0).ok == 6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rows", [1, 2])
def test_a_graph_that_gives_other_sizes_than_it_declares_is_answered_alike(
    make: Make, rows: int
) -> None:
    benches = pair(make, WRONG_SIZE)
    for _ in range(8):
        assert_alike(benches, {"x": some("FP32", rows, 2)})


@pytest.mark.filterwarnings("ignore")
def test_a_graph_whose_values_decide_its_sizes_is_answered_alike(make: Make) -> None:
    benches = pair(make, WRONG_NAME)
    for kept in ([1, 1], [1, 1], [1, 1], [1, 1], [0, 1], [1, 1], [1, 0], [1, 1], [1, 1]):
        assert_alike(benches, {"x": some("FP32", 2), "kept": np.array(kept, np.bool_)})


@pytest.mark.parametrize("missing", ["a", "b"])
def test_who_leaves_out_an_input_is_refused_each_time(make: Make, missing: str) -> None:
    bench = make(several("FP32"))
    bind(bench)
    arrays = {name: some("FP32", 2, 3) for name in "ab" if name != missing}
    for _ in range(4):
        assert error(bench.ask(arrays)).code == "INVALID_ARGUMENT"
    more = {name: some("FP32", 2, 3) for name in "abc"}
    for _ in range(4):
        assert error(bench.ask(more)).code == "INVALID_ARGUMENT"
    bench.assert_bound_runs(0)


@pytest.mark.parametrize("tensors", [[], [bytes(24)], [bytes(24)] * 3, [bytes(24), bytes(20)]])
def test_tensors_that_do_not_fit_are_refused_and_the_next_are_not(
    make: Make, tensors: list[bytes]
) -> None:
    bench = make(several("FP32"))
    bind(bench)
    arrays = {"a": some("FP32", 2, 3), "b": some("FP32", 2, 3)}
    for _ in range(3):
        frame = bench.loop.ask(bench.peer, bench.header(arrays), tensors)
        assert error(frame).code == "INVALID_ARGUMENT"
        assert bytes(bench.ask(arrays).tensors[1]) == arrays["a"].tobytes()
    bench.assert_bound_runs(3)


# --- what is told of it -------------------------------------------------------------------------


def test_its_times_are_those_of_its_run(make: Make) -> None:
    bench = make(several("FP32"))
    bind(bench)
    tally = bench.loop.figures.tally
    before = len(rows_of(tally.room))
    for _ in range(5):
        bench.ask({"a": some("FP32", 2, 3), "b": some("FP32", 2, 3)})
    rows = rows_of(tally.room)[before:]
    assert len(rows) == 5
    for arrived_ns, began_ns, first_ns, engine_ns, ended_ns, _ in rows:
        assert arrived_ns <= began_ns <= first_ns <= first_ns + engine_ns <= ended_ns
        assert engine_ns > 0
    totals = tally.totals()
    assert sum(totals.sums_ns[:-1].tolist()) == totals.sums_ns[-1]
    told = bench.loop.figures.pong(0)
    assert told.runs == told.ok == told.direct_requests == 8
    bench.assert_bound_runs(5)


def test_it_is_named_while_it_is_executed(make: Make) -> None:
    bench = make(several("FP32"))
    bind(bench)
    seen: list[tuple[object, ...]] = []

    def look() -> None:
        figures = bench.loop.figures
        page = bench.loop.page
        named = flight.executing(page.fd, 1)
        seen.append((named, page.page[1], figures.executing(), figures.executing_since_ns > 0))

    bench.model.meanwhile = look
    for _ in range(3):
        bench.ask({"a": some("FP32", 2, 3), "b": some("FP32", 2, 3)})
        bench.loop.assert_idle()
    first = bench.loop.number - 2
    if bench.fast:
        assert seen == [(frozenset({first + n}), 1, [ID], True) for n in range(3)]
    else:
        assert not seen


# --- what is kept -------------------------------------------------------------------------------


def test_asking_keeps_nothing(make: Make) -> None:
    bench = make(several("FP32"))
    bind(bench)
    arrays = {"a": some("FP32", 2, 3), "b": some("FP32", 2, 3)}
    header, tensors = bench.header(arrays), [array.tobytes() for array in arrays.values()]

    def once() -> None:
        for _ in range(10):
            bench.loop.send(bench.peer, header, tensors, FAR_NS << 20)
        assert len(bench.loop.answers(bench.peer, 10)) == 10

    assert_keeps_nothing(once)
    tracemalloc.start()
    try:
        for _ in range(110):  # as many as durations are kept of
            once()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            once()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 50_000
    finally:
        tracemalloc.stop()
    assert (bench.model.runs > 20_000) == bench.fast


def test_failing_and_giving_way_keep_nothing(make: Make) -> None:
    bench = make(several("FP32"))
    bind(bench)
    bound = bench.model.engine.bound()
    assert bound is not None
    arrays = {"a": some("FP32", 2, 3), "b": some("FP32", 2, 3)}

    def fails() -> None:
        raise SystemExit(4)

    bench.model.meanwhile = fails

    def once() -> None:
        with bound.turn:
            assert bench.ask(arrays).kind == lane.RESPONSE
        assert bench.ask(arrays).kind == lane.RESPONSE

    assert_keeps_nothing(once)
