"""Lanes of a client: which one is next, who waits, and what an end leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from superbrain.wire import lane
from superbrain.wire.errors import DeadlineExceeded, Internal, NotFound
from tests.support.lane_ends import ClientEnd, WorkerEnd, connected
from tests.support.twins import twin

__all__ = ["twin"]
pytestmark = pytest.mark.usefixtures("twin")


@pytest.fixture
def client() -> Iterator[ClientEnd]:
    client = ClientEnd()
    yield client
    client.lanes.close()


def test_the_first_request_of_a_model_asks_for_no_lane(client: ClientEnd) -> None:
    assert client.ask()[1] is False
    assert not client.lanes.has_mail
    assert client.ask()[1] is False
    assert client.lanes.has_mail


def test_nothing_travels_before_the_worker_has_greeted(
    client: ClientEnd, worker: WorkerEnd
) -> None:
    client.ask()
    client.ask()
    client.resolve(worker.path)
    assert client.ask()[1] is False
    worker.greet()
    client.read()
    assert client.ask()[1] is True
    assert len(worker.requests()) == 1


def test_an_answer_settles_its_request(client: ClientEnd, worker: WorkerEnd) -> None:
    connected(client, worker)
    (one, _), (two, _) = client.ask(), client.ask()
    first, second = worker.requests()
    worker.answer(second, NotFound("gone"))
    assert client.read() == [two]
    with pytest.raises(NotFound, match="gone"):
        two.outcome()
    worker.answer(first)
    assert client.read() == [one]
    assert one.outcome().model_version == "1"


def test_an_error_that_cannot_be_read_is_internal(client: ClientEnd, worker: WorkerEnd) -> None:
    connected(client, worker)
    one, _ = client.ask()
    (frame,) = worker.requests()
    worker.open_socket.send(lane.encode(lane.ERROR, b"{", request_id=frame.request_id))
    assert client.read() == [one]
    with pytest.raises(Internal):
        one.outcome()


def test_what_finds_no_room_waits_by_priority(client: ClientEnd, worker: WorkerEnd) -> None:
    connected(client, worker, window=1)
    client.ask()
    (low, taken), (high, _), (given_up, _) = client.ask(), client.ask(priority=9), client.ask()
    assert taken
    given_up.settled = True
    order = []
    for _ in range(3):
        (frame,) = worker.requests()
        order.append(frame.request_id)
        worker.answer(frame)
        client.read()
    assert order[1:] == [high.number, low.number]
    assert worker.requests() == []


def test_who_waited_too_long_is_told(client: ClientEnd, worker: WorkerEnd) -> None:
    connected(client, worker, window=1)
    client.ask()
    late, _ = client.ask(deadline=0.0)
    worker.answer(worker.requests()[0])
    assert late in client.read()
    with pytest.raises(DeadlineExceeded):
        late.outcome()


def test_the_lane_with_the_least_outstanding_is_next(
    client: ClientEnd, worker: WorkerEnd, tmp_path: Path
) -> None:
    other = WorkerEnd(tmp_path / "other")
    client.ask()
    client.ask()
    client.resolve(worker.path, other.path)
    worker.greet()
    other.greet()
    client.read()
    for _ in range(4):
        assert client.ask()[1]
    assert len(worker.requests()) == len(other.requests()) == 2
    other.close()


def test_after_a_goodbye_nobody_is_blamed_and_all_goes_through_the_gateway(
    client: ClientEnd, worker: WorkerEnd
) -> None:
    connected(client, worker, window=1)
    (sent, _), (waiting, _) = client.ask(), client.ask()
    worker.end(goodbye=True)
    client.read()
    client.read()  # the end of file, behind GOODBYE
    question, *returned = client.lanes.take_mail()
    assert question.call.verb == b"W"
    assert returned == [sent, waiting]
    assert not sent.suspect
    assert client.ask()[1] is False


def test_who_said_goodbye_may_still_answer_and_takes_nothing_more(
    client: ClientEnd, worker: WorkerEnd
) -> None:
    connected(client, worker, window=1)
    (sent, _), (waiting, _) = client.ask(), client.ask()
    assert worker.socket is not None
    worker.socket.send(lane.encode(lane.GOODBYE))
    assert client.read() == []
    assert client.lanes.take_mail() == [waiting]
    assert client.ask()[1] is False
    worker.reply(sent.number, 3)
    assert client.read() == [sent]
    assert sent.header is not None
    worker.end(goodbye=False)
    client.read()
    assert client.lanes.take_mail() == []
    assert client.ask()[1] is False
    (question,) = client.lanes.take_mail()
    assert question.call.verb == b"W"


@pytest.mark.parametrize("goodbye", [False, True])
def test_a_death_makes_a_suspect_of_what_was_executing(
    client: ClientEnd, worker: WorkerEnd, goodbye: bool
) -> None:
    """Also where it was what a worker that retires still finished."""
    connected(client, worker)
    (guilty, _), (innocent, _) = client.ask(), client.ask()
    worker.page.begin(5, guilty.number)
    worker.end(goodbye=goodbye)
    client.read()
    client.read(0)  # the end of file, where it is behind GOODBYE
    assert client.lanes.take_mail()[1:] == [guilty, innocent]
    assert (guilty.suspect, innocent.suspect) == (True, False)


def test_a_request_of_another_lane_blames_nobody_here(client: ClientEnd, worker: WorkerEnd) -> None:
    connected(client, worker)
    one, _ = client.ask()
    worker.page.begin(6, one.number)
    worker.end(goodbye=False)
    client.read()
    assert not one.suspect


def test_a_given_up_request_is_not_sent_again(client: ClientEnd, worker: WorkerEnd) -> None:
    connected(client, worker)
    one, _ = client.ask()
    one.settled = True
    worker.end(goodbye=True)
    client.read()
    client.read()  # the end of file, behind GOODBYE
    assert client.lanes.take_mail() == []


def test_a_lane_that_cannot_be_reached_leaves_the_gateway(
    client: ClientEnd, tmp_path: Path
) -> None:
    client.ask()
    client.ask()
    client.resolve(str(tmp_path / "nobody"))
    assert client.ask()[1] is False
    assert not client.lanes.has_mail  # and it is not tried again at once


def test_garbage_ends_a_lane(client: ClientEnd, worker: WorkerEnd) -> None:
    connected(client, worker)
    one, _ = client.ask()
    worker.open_socket.send([b"\xff" * 100])
    client.read()
    assert one in client.lanes.take_mail()
