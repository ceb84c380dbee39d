"""Shortcuts of a client, with a real gateway and real workers: taken where they may, and right."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from superbrain.client import Client, ClientClosed, DeadlineExceeded, InvalidArgument, Result
from superbrain.client.buffers import Buffers
from superbrain.domain import ctl
from superbrain.wire.messages import InterfaceTensor, ModelMetadata
from tests.support.fake_worker import BIG, REFUSE, SLOW
from tests.support.processes import Stage, WorkerChild, until
from tests.support.shortcuts import Shortcuts
from tests.support.twins import twin

__all__ = ["twin"]
pytestmark = pytest.mark.integration
PATIENCE_S = 20.0
ANSWERS = 300
SIZE = 1000
INTERFACE = ModelMetadata(
    "adder",
    ["1"],
    "superbrain",
    [InterfaceTensor("x", "FP32", [-1])],
    [
        InterfaceTensor("y", "FP32", [SIZE]),
        InterfaceTensor("version", "INT64", [1]),
        InterfaceTensor("mates", "INT64", [1]),
    ],
)


@pytest.fixture
def shortcuts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Shortcuts:
    """Count them, where what a worker answers at once is never too slow."""
    if "twin" in request.fixturenames:
        request.getfixturevalue("twin")
    return Shortcuts(monkeypatch, 20_000_000)


def route(stage: Stage, *workers: WorkerChild, version: str = "1") -> None:
    lanes = [worker.address for worker in workers]
    number = workers[0].load.deployment_id
    stage.gateway.order(ctl.Route("adder", version, number, lanes, INTERFACE, 64, 20_000), ctl.Done)


def serving(stage: Stage, recipe: str = "") -> WorkerChild:
    worker = stage.worker(recipe).bring_up()
    route(stage, worker)
    return worker


def ask(client: Client, value: float, timeout: float = PATIENCE_S) -> Result:
    return client.infer("adder", {"x": np.array([value], np.float32)}, timeout=timeout)


def add(client: Client, value: float) -> float:
    return float(ask(client, value)["y"][0])


def wrong(client: Client, first: int, count: int = ANSWERS) -> list[int]:
    """Ask many times; which answers were not those to their questions."""
    return [n for n in range(first, first + count) if add(client, n) != n + 1]


def ask_on(client: Client, begun: threading.Event) -> None:
    """Ask for ever."""
    for n in itertools.count():
        assert add(client, n) == n + 1
        begun.set()


def add_shared(buffers: Buffers, value: float) -> float:
    buffers["x"][:] = value
    y = buffers.infer()["y"]
    assert y[0] == y[-1]
    return float(y[0])


def wrong_shared(buffers: Buffers, first: int, count: int = ANSWERS) -> list[int]:
    return [n for n in range(first, first + count) if add_shared(buffers, n) != n + 1]


def armed(asked: Client | Buffers, shortcuts: Shortcuts) -> None:
    """Ask until it goes by a shortcut, where there are any."""

    def once() -> float:
        return add(asked, 1) if isinstance(asked, Client) else add_shared(asked, 1)

    if not shortcuts.there:
        assert [once() for _ in range(20)] == [2] * 20
        return
    shortcuts.results.clear()
    until(lambda: once() and shortcuts.results, "an answer by a shortcut")


def bare(result: Result) -> tuple[object, ...]:
    """All there is to say of a result but for its id and the values."""
    arrays = [
        (name, type(one), one.dtype, one.shape, one.strides, one.flags.writeable, one.tolist())
        for name, one in result.items()
    ]
    return type(result), result.model_name, result.model_version, repr(result), arrays


def memory_of(worker: WorkerChild) -> int:
    """How many regions it has."""
    maps = Path(f"/proc/{worker.process.pid}/maps").read_text()
    return maps.count("memfd:superbrain-tensors")


# --- it is taken, and gives what any other way does ----------------------------------------------


@pytest.mark.usefixtures("twin")
def test_results_are_those_of_the_gateway_in_every_respect(
    stage: Stage, shortcuts: Shortcuts
) -> None:
    serving(stage)
    with Client(stage.endpoint) as client, Client(stage.endpoint, lanes=False) as other:
        armed(client, shortcuts)
        until(lambda: bare(ask(client, 5)) == bare(ask(other, 5)), "equal results")
        shortcuts.results.clear()
        results = [ask(client, n) for n in range(ANSWERS)]
        assert [bare(result) for result in results] == [bare(ask(other, n)) for n in range(ANSWERS)]
        assert len({result.id for result in results}) == ANSWERS
        assert all(one["y"].base is not None and one["y"].flags.writeable for one in results)
    if shortcuts.there:
        assert len(shortcuts.results) > ANSWERS / 2
    else:
        assert shortcuts.made == 0


@pytest.mark.usefixtures("twin")
@pytest.mark.parametrize("outputs", [True, False])
def test_results_in_shared_memory_are_those_of_the_gateway_too(
    stage: Stage, shortcuts: Shortcuts, outputs: bool
) -> None:
    worker = serving(stage)
    with (
        Client(stage.endpoint) as client,
        Client(stage.endpoint, lanes=False) as other,
        client.buffers("adder", outputs=outputs, x=(SIZE,)) as buffers,
        other.buffers("adder", outputs=outputs, x=(SIZE,)) as inline,
    ):
        if outputs:
            armed(buffers, shortcuts)
        else:
            until(lambda: add_shared(buffers, 1) and memory_of(worker), "a lane")
        for n in range(ANSWERS):
            assert add_shared(buffers, n) == n + 1
            inline["x"][:] = n
            assert bare(buffers.infer()) == bare(inline.infer())
        first, second = buffers.infer(), buffers.infer()
        assert first.id != second.id
        assert np.shares_memory(first["y"], second["y"]) == outputs
    assert bool(shortcuts.results) == (shortcuts.there and outputs)


def test_an_output_in_shared_memory_is_overwritten_by_the_next(
    stage: Stage, shortcuts: Shortcuts
) -> None:
    serving(stage)
    with Client(stage.endpoint) as client, client.buffers("adder", x=(SIZE,)) as buffers:
        armed(buffers, shortcuts)
        buffers["x"][:] = 7
        first = buffers.infer()["y"]
        assert first[0] == 8
        buffers["x"][:] = 9
        assert first[0] == 8
        buffers.infer()
        assert first[0] == 10


# --- what ends it --------------------------------------------------------------------------------


def test_eight_threads_get_their_own_answers_where_one_was_alone(
    stage: Stage, shortcuts: Shortcuts
) -> None:
    serving(stage)
    mixed_up: list[int] = []
    with Client(stage.endpoint) as client:
        armed(client, shortcuts)
        threads = [
            threading.Thread(target=lambda n=n: mixed_up.extend(wrong(client, n * 1000)))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        mixed_up += wrong(client, 9000)
        for thread in threads:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in threads)
        shortcuts.results.clear()
        assert wrong(client, 10_000) == []
    assert mixed_up == []
    assert shortcuts.results == []


def test_a_thread_with_a_client_of_its_own_harms_nobody(stage: Stage, shortcuts: Shortcuts) -> None:
    serving(stage)
    mixed_up: list[int] = []

    def alone(first: int) -> None:
        with Client(stage.endpoint) as client:
            mixed_up.extend(wrong(client, first))

    threads = [threading.Thread(target=alone, args=(n * 1000,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in threads)
    assert mixed_up == []
    assert bool(shortcuts.results) == shortcuts.there


def test_a_fork_has_a_lane_of_its_own_and_its_parent_goes_on(
    stage: Stage, shortcuts: Shortcuts
) -> None:
    serving(stage)
    with Client(stage.endpoint) as client:
        armed(client, shortcuts)
        connection = client._connection()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking beside ZeroMQ's threads
            pid = os.fork()
        if pid == 0:
            status = 1
            try:
                if wrong(client, 2000) == [] and client._connection() is not connection:
                    status = 0
            finally:
                os._exit(status)
        assert wrong(client, 1000) == []
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        shortcuts.results.clear()
        assert wrong(client, 3000) == []
        assert client._connection() is connection
    assert bool(shortcuts.results) == shortcuts.there


def test_whoever_closes_a_client_ends_it_for_the_thread_that_asks(
    stage: Stage, shortcuts: Shortcuts
) -> None:
    serving(stage)
    for _ in range(10):
        client = Client(stage.endpoint)
        armed(client, shortcuts)
        asks = threading.Event()

        def close(client: Client = client, asks: threading.Event = asks) -> None:
            asks.wait()
            client.close()

        closer = threading.Thread(target=close)
        closer.start()
        with pytest.raises(ClientClosed):
            ask_on(client, asks)
        closer.join(PATIENCE_S)
        assert not closer.is_alive()


# --- workers -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("twin")
def test_versions_swapped_under_load_lose_no_answer_and_mix_none_up(
    stage: Stage, shortcuts: Shortcuts
) -> None:
    workers = [serving(stage)]
    workers += [stage.worker(f"version={version}").bring_up() for version in range(2, 7)]
    versions: list[str] = []
    with Client(stage.endpoint) as client, client.buffers("adder", x=(SIZE,)) as buffers:
        armed(client, shortcuts)
        stops = threading.Event()

        def answered_by(version: str) -> bool:
            return versions[-100:] == [version] * 100

        def swap() -> None:
            try:
                until(lambda: answered_by("1"), "answers")
                for old, new in itertools.pairwise(workers):
                    version = str(workers.index(new) + 1)
                    route(stage, new, version=version)
                    old.stand_by()
                    until(lambda version=version: answered_by(version), "answers")  # type: ignore[misc]
            finally:
                stops.set()

        swapper = threading.Thread(target=swap)
        swapper.start()
        n = 0
        while not stops.is_set():
            n += 1
            result = ask(client, n)
            assert result["y"].tolist() == [n + 1]
            assert result["version"].tolist() == [int(result.model_version)]
            buffers["x"][:] = n
            shared = buffers.infer()
            assert (shared["y"][0], shared["y"][-1]) == (n + 1, n + 1)
            assert shared["version"].tolist() == [int(shared.model_version)]
            versions += [result.model_version, shared.model_version]
        swapper.join()
    assert versions == sorted(versions)
    assert sorted(set(versions)) == list("123456")


def test_a_worker_that_is_killed_again_and_again_costs_no_answer(
    stage: Stage, shortcuts: Shortcuts
) -> None:
    doomed = serving(stage)
    with Client(stage.endpoint) as client, client.buffers("adder", x=(SIZE,)) as buffers:
        armed(client, shortcuts)
        for turn in range(3):
            asks = threading.Event()

            def kill(doomed: WorkerChild = doomed, asks: threading.Event = asks) -> None:
                asks.wait()
                doomed.kill()

            fresh = stage.worker().bring_up()
            killer = threading.Thread(target=kill)
            killer.start()
            n = 0
            while killer.is_alive():
                n += 1
                if n == 50:
                    asks.set()
                    route(stage, fresh)
                assert add(client, n) == n + 1
                assert add_shared(buffers, n) == n + 1
            doomed = fresh
            assert wrong(client, turn * 1000) == []
            assert wrong_shared(buffers, turn * 1000) == []


@pytest.mark.parametrize("shared", [False, True])
def test_a_worker_that_is_killed_while_it_is_idle_costs_no_answer(
    stage: Stage, shortcuts: Shortcuts, shared: bool
) -> None:
    doomed = serving(stage)
    with Client(stage.endpoint) as client, client.buffers("adder", x=(SIZE,)) as buffers:

        def once() -> float:
            return add_shared(buffers, 1) if shared else add(client, 1)

        armed(buffers if shared else client, shortcuts)
        doomed.kill()
        fresh = stage.worker().bring_up()
        route(stage, fresh)
        assert [once() for _ in range(50)] == [2] * 50


def test_a_worker_that_is_killed_at_work_leaves_it_to_the_next(
    stage: Stage, shortcuts: Shortcuts
) -> None:
    doomed = serving(stage, "slow_ms=20000")
    fresh = stage.worker("slow_ms=1").bring_up()
    with Client(stage.endpoint) as client:
        armed(client, shortcuts)

        def kill() -> None:
            until(doomed.at_work, "the worker at work")
            doomed.kill()
            route(stage, fresh)

        killer = threading.Thread(target=kill)
        killer.start()
        assert add(client, SLOW) == SLOW + 1
        killer.join()
        assert wrong(client, 0) == []


def test_refusals_and_slow_and_large_answers_are_what_they_are(
    stage: Stage, shortcuts: Shortcuts
) -> None:
    serving(stage, "slow_ms=40")
    with Client(stage.endpoint) as client, client.buffers("adder", x=(SIZE,)) as buffers:
        for n in range(10):
            armed(client, shortcuts)
            if n % 2:
                with pytest.raises(InvalidArgument, match="numbers of zero or more"):
                    add(client, REFUSE)
            else:
                assert add(client, SLOW) == SLOW + 1
            armed(buffers, shortcuts)
            with pytest.raises(InvalidArgument, match="numbers of zero or more"):
                add_shared(buffers, REFUSE)
            assert ask(client, BIG)["y"].shape == (8 << 18,)
            assert wrong(client, 0, 20) == []
            assert wrong_shared(buffers, 0, 20) == []


# --- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0.001, 0.03])
def test_a_short_time_is_kept_and_the_late_answer_dropped(
    stage: Stage, shortcuts: Shortcuts, timeout: float
) -> None:
    serving(stage, "slow_ms=60")
    with Client(stage.endpoint) as client:
        for _ in range(3):
            armed(client, shortcuts)
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                ask(client, SLOW, timeout=timeout)
            assert timeout <= time.monotonic() - began < 10
            assert wrong(client, 0, 50) == []


# --- shared memory -------------------------------------------------------------------------------


def test_an_answer_that_comes_too_late_writes_where_nobody_looks(
    stage: Stage, shortcuts: Shortcuts
) -> None:
    worker = serving(stage, "slow_ms=100")
    with Client(stage.endpoint) as client, client.buffers("adder", x=(SIZE,)) as buffers:
        for _ in range(3):
            armed(buffers, shortcuts)
            before = buffers.infer()["y"]
            buffers["x"][:] = SLOW
            with pytest.raises(DeadlineExceeded):
                buffers.infer(timeout=0.03)
            buffers["x"][:] = 5
            after = buffers.infer()["y"]
            assert after[0] == after[-1] == 6
            assert not np.shares_memory(before, after)
            until(lambda: not worker.at_work(), "the late answer")
            assert after[0] == after[-1] == 6
            assert wrong_shared(buffers, 0, 20) == []
        until(lambda: add_shared(buffers, 1) and memory_of(worker) == 2, "no more memory than used")


def test_buffers_of_one_client_do_not_share_an_answer(stage: Stage, shortcuts: Shortcuts) -> None:
    serving(stage)
    with (
        Client(stage.endpoint) as client,
        client.buffers("adder", x=(SIZE,)) as one,
        client.buffers("adder", x=(SIZE,)) as two,
    ):
        armed(one, shortcuts)
        armed(two, shortcuts)
        for n in range(ANSWERS):
            one["x"][:] = n
            two["x"][:] = n + 5000
            first, second = one.infer()["y"], two.infer()["y"]
            assert (first[0], first[-1]) == (n + 1, n + 1)
            assert (second[0], second[-1]) == (n + 5001, n + 5001)
            assert add(client, n) == n + 1


def test_buffers_that_are_closed_are_let_go_of_and_new_ones_are_right(
    stage: Stage, shortcuts: Shortcuts
) -> None:
    worker = serving(stage)
    with Client(stage.endpoint) as client:
        for n in range(12):  # more than a worker takes at once
            with client.buffers("adder", x=(SIZE,)) as buffers:
                armed(buffers, shortcuts)
                assert wrong_shared(buffers, n, 5) == []
            assert client._connection().shortcuts == {}
            assert add(client, n) == n + 1
        until(lambda: add(client, 1) and memory_of(worker) == 0, "the memory to be let go of")


def test_a_worker_that_takes_no_more_memory_is_asked_inline(
    stage: Stage, shortcuts: Shortcuts
) -> None:
    worker = serving(stage)
    with Client(stage.endpoint) as client:
        made = [client.buffers("adder", x=(SIZE,)) for _ in range(10)]  # two regions each, of 16
        armed(made[0], shortcuts)
        for _ in range(20):
            for n, buffers in enumerate(made):
                buffers["x"][:] = n
                result = buffers.infer()
                assert (result["y"][0], result["y"][-1]) == (n + 1, n + 1)
                assert [*result] == ["y", "version", "mates"]
        assert memory_of(worker) == 16
        for buffers in made:
            buffers.close()


# --- signals -------------------------------------------------------------------------------------


@pytest.fixture
def _interrupts() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("twin")
@pytest.mark.usefixtures("_interrupts")
def test_an_interrupt_ends_a_slow_request_and_no_other(stage: Stage, shortcuts: Shortcuts) -> None:
    worker = serving(stage, "slow_ms=200")
    with Client(stage.endpoint) as client:
        for _ in range(3):
            armed(client, shortcuts)

            def interrupt() -> None:
                until(worker.at_work, "the worker at work")
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

            thread = threading.Thread(target=interrupt)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                add(client, SLOW)
            thread.join()
            assert wrong(client, 0, 50) == []


def test_a_timer_of_the_program_costs_no_answer(stage: Stage, shortcuts: Shortcuts) -> None:
    serving(stage, "slow_ms=1")
    ticks: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: ticks.append(number))
    try:
        with Client(stage.endpoint) as client:
            armed(client, shortcuts)
            signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)
            for n in range(ANSWERS):
                assert add(client, n) == n + 1
                assert add(client, SLOW) == SLOW + 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(ticks) > 100


# --- what is kept --------------------------------------------------------------------------------


def test_no_descriptor_and_no_thread_is_left(stage: Stage, shortcuts: Shortcuts) -> None:
    serving(stage)

    def ask_all() -> None:
        with Client(stage.endpoint) as client, client.buffers("adder", x=(SIZE,)) as buffers:
            armed(buffers, shortcuts)
            armed(client, shortcuts)
        shortcuts.results.clear()
        shortcuts.begun.clear()

    def left() -> tuple[int, int]:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    ask_all()
    before = left()
    for _ in range(5):
        ask_all()
    assert left() == before
