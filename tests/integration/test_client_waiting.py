"""A client's requests that wait, and many of them at a time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from superbrain.client import Cancelled, Client, DeadlineExceeded, Internal, Unavailable
from superbrain.client.fake import FakeModel, FakeServer
from tests.support.fake_servers import client, echo, number, number_of, raising, server

__all__ = ["client", "server"]
pytestmark = pytest.mark.integration


def test_a_timeout_raises_and_the_late_answer_harms_nobody(client: Client) -> None:
    with pytest.raises(DeadlineExceeded, match="no answer within the time given"):
        client.infer("nap", {"seconds": 0.5}, timeout=0.1)
    assert number_of(client.infer("echo", number(7))) == 7


def test_a_result_may_be_waited_for_in_pieces(client: Client) -> None:
    pending = client.submit("nap", {"seconds": 0.2})
    assert not pending.done()
    with pytest.raises(TimeoutError, match="still under way"):
        pending.result(timeout=0.05)
    assert pending.result(timeout=10).model_name == "nap"
    assert pending.done()


def test_several_threads_may_wait_for_one_result(client: Client) -> None:
    pending = client.submit("nap", {"seconds": 0.1})
    with ThreadPoolExecutor(8) as pool:
        results = [future.result() for future in [pool.submit(pending.result)] * 8]
    assert len(results) == 8


def test_a_cancelled_request_is_over(client: Client) -> None:
    pending = client.submit("nap", {"seconds": 0.05})
    pending.cancel()
    with pytest.raises(Cancelled):
        pending.result()
    assert number_of(client.infer("echo", number(1))) == 1


def test_submitted_inputs_may_be_changed_at_once(client: Client) -> None:
    array = np.zeros(1000, "i8")
    blocker = client.submit("nap", {"seconds": 0.05})
    pending = client.submit("echo", {"x": array})
    array[:] = 1
    blocker.result()
    assert pending.result()["y"].max() == 0


def test_waiting_for_a_model_outlasts_its_deployment(server: FakeServer, client: Client) -> None:
    proving = server.models["proving"]
    timer = threading.Timer(0.1, server.models.__setitem__, ("proving", FakeModel(echo)))
    timer.start()
    client.wait_ready("proving", timeout=10)
    server.models["proving"] = proving
    with pytest.raises(DeadlineExceeded, match="golden cases are being proven"):
        client.wait_ready("proving", timeout=1)
    timer.join()


def test_unavailable_is_raised_or_outwaited_as_asked(server: FakeServer, client: Client) -> None:
    with pytest.raises(Unavailable, match="golden cases"):
        client.infer("proving", number(1))
    timer = threading.Timer(0.1, server.models.__setitem__, ("proving", FakeModel(echo)))
    timer.start()
    with Client(server.endpoint, retry_unavailable=True) as patient:
        assert number_of(patient.infer("proving", number(1))) == 1
    timer.join()


def test_sixteen_threads_on_one_client_each_get_their_own_answers(client: Client) -> None:
    def ask(thread: int) -> list[int]:
        base = thread * 1000
        return [number_of(client.infer("echo", number(base + i))) for i in range(200)]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))
    assert answers == [[thread * 1000 + i for i in range(200)] for thread in range(16)]


def test_threads_with_waits_of_different_length_do_not_delay_each_other(client: Client) -> None:
    """The leader gives up first, then others: somebody must always go on reading."""

    def ask(thread: int) -> bool:
        for _ in range(20):
            try:
                client.infer("nap", {"seconds": 0.001}, timeout=0.002 + 0.01 * thread)
            except DeadlineExceeded:
                continue
        return number_of(client.infer("echo", number(thread))) == thread

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))


def test_a_thousand_requests_may_be_under_way_at_once(client: Client) -> None:
    pending = [client.submit("echo", number(i)) for i in range(1000)]
    assert [number_of(each.result()) for each in reversed(pending)] == list(range(999, -1, -1))


def test_answers_that_nobody_reads_for_a_while_are_not_lost(client: Client) -> None:
    pending = [client.submit("echo", {"x": np.full(5000, i)}) for i in range(3000)]
    time.sleep(0.3)
    assert [number_of(each.result()) for each in pending] == list(range(3000))


def test_infer_many_keeps_the_order_and_stops_at_an_error(
    client: Client, server: FakeServer
) -> None:
    results = client.infer_many("echo", (number(i) for i in range(100)), window=8)
    assert [number_of(result) for result in results] == list(range(100))
    server.models["echo"] = FakeModel(raising(Internal("broken")))
    with pytest.raises(Internal, match="broken"):
        list(client.infer_many("echo", [number(1), number(2)]))
