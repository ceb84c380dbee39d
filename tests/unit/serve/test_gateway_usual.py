"""Which turns of the gateway are usual, so that Python has nothing to do with them, and which not.

Each test runs with either twin: the one in Python passes everything on itself, with the same end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from superbrain.domain.records import RecordPolicy
from superbrain.wire import lane
from tests.support.gateway_ends import COMMAND, MORE, command, message
from tests.support.gateway_loop import (
    ClientEnd,
    GatewayLoop,
    WorkerEnd,
    asked,
    raw_head,
    request,
)
from tests.support.twins import twin

__all__ = ["twin"]
WINDOW = 4


class Bench(NamedTuple):
    """A gateway with one worker and one client, whose requests are usual."""

    loop: GatewayLoop
    worker: WorkerEnd
    client: ClientEnd
    fast: bool

    def exchange(self, data: bytes, answers: int = 1) -> list[str]:
        """Send, let the worker answer, and give the ids of the replies."""
        self.client.send(data)
        self.loop.turns()
        assert self.worker.answer_all() == answers
        self.loop.turns()
        return self.client.ids()

    def assert_usual(self, requests: int, answers: int) -> None:
        """So many have been passed on by the compiled loop since the last time this was said."""
        usual = self.loop.usual
        assert usual == ((requests, answers) if self.fast else (0, 0))
        self.loop._by_python = [
            count + usual[place] for place, count in enumerate(self.loop._by_python)
        ]


@pytest.fixture
def bench(twin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    loop = GatewayLoop(tmp_path, monkeypatch)
    yield begun(loop, twin)
    loop.close()


def begun(loop: GatewayLoop, twin: str) -> Bench:
    worker = loop.worker(WINDOW)
    loop.route("m", [worker])
    bench = Bench(loop, worker, loop.client(), fast=twin == "compiled")
    settled(bench)
    return bench


def settled(bench: Bench) -> None:
    """Let the loop learn again what is usual, and forget what has been counted."""
    for delimiter in ([], [b""]):
        bench.loop.learn(bench.client, bench.worker, [*delimiter, *request()])
    bench.loop._by_python = [
        count + usual for count, usual in zip(bench.loop._by_python, bench.loop.usual, strict=True)
    ]


# --- usual ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [[], [b""]])
def test_a_request_like_one_before_is_usual_and_so_is_its_answer(
    bench: Bench, delimiter: list[bytes]
) -> None:
    for name in ("a", "b", "long" * 50, "é€"):
        assert bench.exchange(message(*delimiter, *request(name, b"tensor"))) == [name]
    bench.assert_usual(4, 4)


def test_the_first_of_its_kind_is_learned_and_the_next_is_usual(bench: Bench) -> None:
    for name, usual in (("a", 0), ("b", 1), ("c", 1)):
        assert bench.exchange(asked(name, more=b'"parameters":{"priority":3},')) == [name]
        bench.assert_usual(usual, 1)
    assert [frame.priority for frame in bench.worker.frames[-3:]] == [3, 3, 3]


def test_several_requests_in_one_write_are_usual_up_to_the_window(bench: Bench) -> None:
    names = [str(number) for number in range(WINDOW)]
    assert bench.exchange(b"".join(map(asked, names)), WINDOW) == names
    bench.assert_usual(WINDOW, WINDOW)


def test_requests_of_several_clients_are_usual(bench: Bench) -> None:
    clients = [bench.client, *[bench.loop.client() for _ in range(3)]]
    for number, client in enumerate(clients):
        client.send(asked(str(number)))
    bench.loop.turns()
    bench.worker.answer_all()
    bench.loop.turns()
    assert [client.ids() for client in clients] == [["0"], ["1"], ["2"], ["3"]]
    bench.assert_usual(4, 4)


def test_long_heads_of_short_frames_are_usual(bench: Bench) -> None:
    verb, header = request("a")
    data = raw_head(MORE, len(verb)) + verb + raw_head(0, len(header)) + header
    assert bench.exchange(data) == ["a"]
    bench.assert_usual(1, 1)


def test_two_lanes_of_a_model_are_filled_in_turns(bench: Bench) -> None:
    other = bench.loop.worker(WINDOW)
    bench.loop.route("m", [bench.worker, other], joining=[other])
    settled(bench)
    bench.client.send(b"".join(asked(str(number)) for number in range(6)))
    bench.loop.turns()
    assert bench.worker.ids() == ["0", "2", "4"]
    assert other.ids() == ["1", "3", "5"]
    bench.assert_usual(6, 0)
    bench.worker.send(b"".join(map(bench.worker.answer, bench.worker.waiting[:2])))
    bench.loop.turns()
    bench.client.send(b"".join(asked(str(number)) for number in range(6, 9)))
    bench.loop.turns()
    assert bench.worker.ids() == ["4", "6", "7", "8"]
    assert other.ids() == ["1", "3", "5"]
    bench.assert_usual(3, 2)


def test_a_tensor_of_no_bytes_and_no_tensor_at_all_are_usual(bench: Bench) -> None:
    assert bench.exchange(asked("a", b"") + asked("b"), 2) == ["a", "b"]
    assert [len(frame.tensors) for frame in bench.worker.frames[-2:]] == [1, 0]
    bench.assert_usual(2, 2)


# --- not usual ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        asked("a", model="nobody"),
        asked("a", more=b'"model_version":"2",'),
        asked("a", more=b'"parameters":{"timeout_ms":-1},'),
        asked(b'"\x01"'),
        asked(b'"\xff"'),
        message(b"SB1I", b'{"model_name":"m"'),
        message(b"SB1I"),
        message(b"SB2I", *request()[1:]),
        message(b"SB1H", b'{"id":"a"}'),
    ],
)
def test_what_no_worker_gets_is_answered_by_python(bench: Bench, data: bytes) -> None:
    for _ in range(3):
        bench.client.send(data)
        bench.loop.turns()
        assert len(bench.client.messages()) == 1
    assert bench.worker.take() == []
    bench.assert_usual(0, 0)


@pytest.mark.parametrize(
    "frames",
    [
        request(b'""'),
        request(b'"q\\""'),
        request(b'"\\u0061"'),
        [b"hop", b"", *request()],
        [b"SB1I", b'{"model_name":"m","inputs":[{"id":"a"}]}'],
        request("a", bytes(5000)),
        request("a", bytes(100_000)),
        request("a", *[b"x"] * 31),
        request("a", more=b'"parameters":{"suspect":true},'),
        request("a", more=b'"id":"b",'),
        request("a", more=b'"more":"%b",' % bytes(5000).replace(b"\0", b"x")),
    ],
    ids=str,
)
def test_what_is_odd_or_large_goes_through_python(bench: Bench, frames: list[bytes]) -> None:
    for _ in range(3):
        data = message(*frames)
        while data:
            data = data[bench.client.send(data) :]
            bench.loop.turns()
        assert bench.worker.answer_all([]) == 1
        bench.loop.turns()
        assert len(bench.client.messages()) == 1
        assert bench.loop.usual[0] == 0


def test_what_python_passed_on_behind_hops_is_answered_without_it(bench: Bench) -> None:
    bench.client.send(message(b"hop 1", b"hop 2", b"", *request()))
    bench.loop.turns()
    bench.worker.answer_all()
    bench.loop.turns()
    assert bench.client.messages()[0][:3] == [b"hop 1", b"hop 2", b""]
    bench.assert_usual(0, 1)


def test_nothing_is_usual_beyond_the_window_until_nothing_waits(bench: Bench) -> None:
    names = [str(number) for number in range(WINDOW + 2)]
    bench.client.send(b"".join(map(asked, names)))
    bench.loop.turns()
    assert bench.worker.ids() == names[:WINDOW]
    bench.assert_usual(WINDOW, 0)
    assert bench.loop.figures().models[0].waiting == 2
    bench.client.send(asked("late"))
    for _ in range(3):
        bench.worker.send(bench.worker.answer(bench.worker.waiting[0]))
        bench.loop.turns()
        bench.worker.take()
    assert bench.worker.ids() == ["3", "4", "5", "late"]
    bench.assert_usual(0, 0)
    bench.worker.answer_all()
    bench.loop.turns()
    assert bench.client.ids() == [*names, "late"]
    bench.assert_usual(0, WINDOW)


def test_a_larger_priority_among_those_that_wait_still_goes_first(bench: Bench) -> None:
    urgent = b'"parameters":{"priority":9},'
    bench.exchange(asked("a", more=urgent))
    settled(bench)
    bench.client.send(b"".join(asked(str(number)) for number in range(WINDOW + 1)))
    bench.client.send(asked("urgent", more=urgent))
    bench.loop.turns()
    bench.worker.answer_all()
    bench.loop.turns()
    assert bench.worker.ids() == ["urgent", str(WINDOW)]


def test_a_suspect_travels_alone(bench: Bench) -> None:
    bench.client.send(asked("suspect", more=b'"parameters":{"suspect":true},'))
    bench.loop.turns()
    bench.client.send(asked("a"))
    bench.loop.turns()
    assert bench.worker.ids() == ["suspect"]
    assert bench.worker.frames[-1].kind == lane.ALONE
    bench.worker.answer_all()
    bench.loop.turns()
    assert bench.worker.ids() == ["a"]
    assert bench.worker.frames[-1].kind == lane.FORWARD
    bench.assert_usual(0, 0)


def test_beside_a_suspect_the_other_lane_is_used(bench: Bench) -> None:
    other = bench.loop.worker(WINDOW)
    bench.loop.route("m", [bench.worker, other], joining=[other])
    settled(bench)
    bench.client.send(asked("suspect", more=b'"parameters":{"suspect":true},'))
    bench.loop.turns()
    bench.client.send(b"".join(asked(str(number)) for number in range(WINDOW)))
    bench.loop.turns()
    assert bench.worker.ids() == ["suspect"]
    assert other.ids() == [str(number) for number in range(WINDOW)]


def test_a_lane_that_has_said_goodbye_takes_nothing_more(bench: Bench) -> None:
    bench.client.send(asked("before"))
    bench.loop.turns()
    goodbye = b"".join(map(bytes, lane.encode(lane.GOODBYE)))
    bench.worker.take()
    bench.worker.send(bench.worker.answer(bench.worker.waiting[0]) + goodbye)
    bench.loop.turns()
    assert bench.client.ids() == ["before"]
    bench.assert_usual(1, 1)
    bench.client.send(asked("after"))
    bench.loop.turns()
    assert bench.worker.ids() == []
    assert bench.loop.figures().models[0].waiting == 1
    bench.assert_usual(0, 0)


def test_while_a_switch_is_under_way_requests_wait_for_the_new_version(bench: Bench) -> None:
    bench.client.send(asked("old"))
    bench.loop.turns()
    heir = bench.loop.worker(WINDOW, 2)
    bench.loop.route("m", [heir], version="2")
    for name in ("new 1", "new 2"):
        bench.client.send(asked(name))
        bench.loop.turns()
    assert bench.worker.ids() == ["old"]
    assert heir.ids() == []
    bench.assert_usual(1, 0)
    bench.worker.answer_all()
    bench.loop.turns()
    assert bench.client.ids() == ["old"]
    assert heir.ids() == ["new 1", "new 2"]
    bench.assert_usual(0, 0)


def test_a_version_that_serves_no_more_is_asked_for_in_vain(bench: Bench) -> None:
    version = b'"model_version":"1",'
    for _ in range(3):
        assert bench.exchange(asked("a", more=version)) == ["a"]
    heir = bench.loop.worker(WINDOW, 2)
    bench.loop.route("m", [heir], version="2")
    bench.client.send(asked("a", more=version))
    bench.loop.turns()
    ((verb, _),) = bench.client.messages()
    assert verb == b"SB1e"
    assert heir.ids() == []


def test_a_model_with_a_reason_refuses_at_once(bench: Bench) -> None:
    bench.loop.route("m", [], reason="the disk is full")
    bench.client.send(asked("a"))
    bench.loop.turns()
    ((verb, header),) = bench.client.messages()
    assert verb == b"SB1e"
    assert b"the disk is full" in header
    assert bench.worker.ids() == []


def test_of_a_message_that_is_half_read_python_takes_the_rest(bench: Bench) -> None:
    data = asked("a", b"tensor")
    for place in range(1, len(data)):
        bench.client.send(asked("first") + data[:place])
        bench.loop.turns()
        bench.client.send(data[place:] + asked("last"))
        bench.loop.turns()
        assert bench.worker.answer_all() == 3
        bench.loop.turns()
        assert bench.client.ids() == ["first", "a", "last"]
        assert bench.worker.frames[-2].tensors == [b"tensor"]
        bench.assert_usual(1, 3)


def test_a_command_is_answered_and_what_follows_is_usual_again(bench: Bench) -> None:
    ping = command(b"PING", b"\0\0context")
    bench.client.send(asked("a") + ping + asked("b"))
    bench.loop.turns()
    bench.worker.answer_all()
    bench.loop.turns()
    pong, *_ = messages = bench.client.messages()
    assert pong == [b"command", b"\4PONGcontext"]
    assert len(messages) == 3
    bench.assert_usual(1, 2)
    assert bench.exchange(asked("c")) == ["c"]
    bench.assert_usual(1, 1)


def test_a_command_within_a_message_is_no_part_of_it(bench: Bench) -> None:
    verb, header = request("a")
    odd = raw_head(MORE, len(verb)) + verb + bytes((COMMAND, len(header))) + header
    _, header = request("b")
    assert bench.exchange(odd + raw_head(0, len(header)) + header) == ["b"]
    bench.assert_usual(0, 1)


def test_refusals_of_a_worker_go_through_python(bench: Bench) -> None:
    bench.client.send(asked("a") + asked("b"))
    bench.loop.turns()
    bench.worker.take()
    first, second = bench.worker.waiting
    data = bench.worker.answer(first) + bench.worker.answer(second, kind=lane.ERROR)
    bench.worker.send(data)
    bench.loop.turns()
    assert [frames[0] for frames in bench.client.messages()] == [b"SB1r", b"SB1e"]
    bench.assert_usual(2, 1)
    traffic = bench.loop.figures().models[0]
    assert traffic.errors == 1
    assert traffic.outstanding == 0


@pytest.mark.parametrize("outputs", [[bytes(9000)], [b"x"] * 40, [bytes(300_000)]])
def test_large_answers_go_through_python(bench: Bench, outputs: list[bytes]) -> None:
    bench.client.send(asked("a"))
    bench.loop.turns()
    bench.worker.answer_all(outputs)
    bench.loop.turns()
    ((_, _, *found),) = bench.client.messages()
    assert found == outputs
    bench.assert_usual(1, 0)


def test_an_answer_that_nobody_waits_for_is_passed_over(bench: Bench) -> None:
    bench.client.send(asked("a"))
    bench.loop.turns()
    bench.worker.take()
    twice = bench.worker.answer(bench.worker.waiting[0]) * 2
    bench.worker.send(twice)
    bench.loop.turns()
    assert bench.client.ids() == ["a"]
    traffic = bench.loop.figures().models[0]
    assert (traffic.answered, sum(traffic.latency.counts)) == (5, 5)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_with_traces_no_request_is_usual(
    twin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ratio: float
) -> None:
    loop = GatewayLoop(tmp_path, monkeypatch, RecordPolicy(traces=True, trace_ratio=ratio))
    try:
        bench = begun(loop, twin)
        for _ in range(2):
            assert bench.exchange(asked("a")) == ["a"]
        header = bytes(bench.worker.frames[-1].header)
        assert (b"traceparent" in header) == bool(ratio)
        bench.assert_usual(0, 0 if ratio else 2)  # answers are, to requests of no trace
    finally:
        loop.close()


@pytest.mark.parametrize("count", [127, 128, 129, 200, 300])
def test_more_than_one_turn_delivers_is_delivered(
    twin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    loop = GatewayLoop(tmp_path, monkeypatch)
    try:
        worker = loop.worker(1000)
        loop.route("m", [worker])
        client = loop.client()
        loop.learn(client, worker, request())
        before = loop.usual
        names = [str(number) for number in range(count)]
        client.send(b"".join(map(asked, names)))
        loop.turns()
        assert worker.answer_all() == count
        loop.turns()
        assert client.ids() == names
        traffic = loop.figures().models[0]
        assert (traffic.requests, traffic.answered) == (count + 2, count + 2)
        assert sum(traffic.latency.counts) == count + 2
        if twin == "compiled":
            taken = [now - then for now, then in zip(loop.usual, before, strict=True)]
            assert taken == [min(count, 128)] * 2
    finally:
        loop.close()
