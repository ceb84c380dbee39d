"""A client that asks one model again and again: in one step while it is alone, always right."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from superbrain.client import Client, InvalidArgument, link
from superbrain.client.link import Link
from superbrain.client.result import Result
from tests.support.fake_worker import REFUSE, SLOW
from tests.support.processes import Stage, WorkerChild, until
from tests.support.twins import twin

__all__ = ["twin"]
pytestmark = pytest.mark.integration
PATIENCE_S = 20.0
ANSWERS = 300


def add(client: Client, value: float) -> float:
    return float(client.infer("adder", {"x": np.array([value], np.float32)})["y"][0])


def wrong(client: Client, first: int) -> list[int]:
    """Ask many times; which answers were not those to their questions."""
    return [n for n in range(first, first + ANSWERS) if add(client, n) != n + 1]


def in_a_fork(passes: Callable[[], bool]) -> bool:
    """Whether it passes there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside ZeroMQ's threads
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if passes() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.fixture
def in_one_step(monkeypatch: pytest.MonkeyPatch) -> list[Result]:
    """What was answered in one step, on a host where that is worth it however busy it is."""
    results: list[Result] = []
    ask = Link.ask

    def seen(self: Link, *args: Any) -> object:  # noqa: ANN401 - passed on
        answer = ask(self, *args)
        if isinstance(answer, Result):
            results.append(answer)
        return answer

    monkeypatch.setattr(Link, "ask", seen)
    monkeypatch.setattr(link, "_MOMENT_NS", 50_000_000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    return results


def on_lane(client: Client, worker: WorkerChild) -> None:
    until(lambda: add(client, 1) == 2 and worker.figures().direct_requests, "a lane")


def test_from_one_thread_then_from_two_and_in_a_fork_every_answer_is_its_own(
    stage: Stage, twin: str, in_one_step: list[Result]
) -> None:
    worker = stage.serving()
    with Client(stage.endpoint) as client:
        on_lane(client, worker)
        if twin == "compiled":
            until(lambda: add(client, 1) == 2 and in_one_step, "an answer in one step")
        assert wrong(client, 0) == []
        assert bool(in_one_step) == (twin == "compiled")

        mixed_up: list[int] = []
        threads = [
            threading.Thread(target=lambda n=n: mixed_up.extend(wrong(client, n * 1000)))
            for n in (1, 2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in threads)
        assert mixed_up == []

        in_one_step.clear()
        assert wrong(client, 3000) == []
        assert in_one_step == []  # there was another thread

        assert in_a_fork(lambda: wrong(client, 4000) == [])
        assert wrong(client, 5000) == []
    assert worker.figures().direct_requests > 5 * ANSWERS


@pytest.mark.usefixtures("twin", "in_one_step")
def test_a_second_thread_that_comes_meanwhile_mixes_nothing_up(stage: Stage) -> None:
    worker = stage.serving()
    mixed_up: list[int] = []
    with Client(stage.endpoint) as client:
        on_lane(client, worker)
        assert wrong(client, 0) == []
        other = threading.Thread(target=lambda: mixed_up.extend(wrong(client, 1000)))
        other.start()
        assert wrong(client, 2000) == []
        other.join(PATIENCE_S)
        assert not other.is_alive()
        assert mixed_up == []


@pytest.mark.usefixtures("twin", "in_one_step")
def test_results_stay_what_they_were_while_others_come(stage: Stage) -> None:
    worker = stage.serving()
    values = np.arange(50_000, dtype=np.float32)
    with Client(stage.endpoint) as client:
        on_lane(client, worker)
        results = [client.infer("adder", {"x": values + n}) for n in range(30)]
    assert len({result.id for result in results}) == len(results)
    for n, result in enumerate(results):
        np.testing.assert_array_equal(result["y"], values + n + 1)


@pytest.mark.usefixtures("twin", "in_one_step")
def test_a_refusal_and_a_slow_answer_among_quick_ones_are_what_they_are(stage: Stage) -> None:
    worker = stage.serving()
    with Client(stage.endpoint) as client:
        on_lane(client, worker)
        for n in range(20):
            assert [add(client, value) for value in range(20)] == list(range(1, 21))
            with pytest.raises(InvalidArgument, match="numbers of zero or more"):
                add(client, REFUSE)
            if n % 5 == 0:
                assert add(client, SLOW) == SLOW + 1


@pytest.mark.usefixtures("twin", "in_one_step")
def test_a_worker_that_is_killed_while_it_is_asked_costs_no_answer(stage: Stage) -> None:
    doomed, fresh = stage.serving(), stage.worker().bring_up()
    with Client(stage.endpoint) as client:
        on_lane(client, doomed)
        asks = threading.Event()

        def kill() -> None:
            asks.wait()
            doomed.kill()
            stage.gateway.route("adder", "1", [fresh])

        killer = threading.Thread(target=kill)
        killer.start()
        answers: list[float] = []
        while killer.is_alive():
            answers.append(add(client, len(answers)) - len(answers))
            asks.set()
        killer.join()
        assert answers == [1] * len(answers)
        assert wrong(client, 1000) == []
