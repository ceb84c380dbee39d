"""Clients and workers that take less than they are given: nothing is lost, mixed up or given twice.

Each test runs with either twin.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from superbrain.serve.peer import Envelope, Peer
from superbrain.wire.messages import RESULT
from tests.support.gateway_ends import message
from tests.support.gateway_loop import ClientEnd, GatewayLoop, WorkerEnd, asked, request
from tests.support.twins import twin

__all__ = ["twin"]
LARGE = bytes(3000)


@pytest.fixture
def loop(twin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GatewayLoop]:
    loop = GatewayLoop(tmp_path, monkeypatch)
    yield loop
    loop.close()


@pytest.fixture
def worker(loop: GatewayLoop) -> WorkerEnd:
    worker = loop.worker(1000)
    loop.route("m", [worker])
    return worker


def came(loop: GatewayLoop, worker: WorkerEnd) -> tuple[ClientEnd, Peer]:
    """A client whose requests are usual, and the gateway's end of it."""
    before = set(loop.front.peers)
    client = loop.client()
    loop.learn(client, worker, request())
    (fd,) = set(loop.front.peers) - before
    return client, loop.front.peers[fd]


def narrow(peer: Peer) -> None:
    """Let the kernel take next to nothing for a client that does not read."""
    peer._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)


def taken(loop: GatewayLoop, client: ClientEnd, count: int) -> list[str]:
    """Read until so many replies have come."""
    ids: list[str] = []
    while len(ids) < count:
        assert loop.epoll.poll(0) or select.select([client.socket], [], [], 0)[0]
        loop.turn()
        ids += client.ids()
    return ids


def test_answers_for_two_clients_in_turns_reach_one_that_is_behind_in_order(
    loop: GatewayLoop, worker: WorkerEnd
) -> None:
    (slow, peer), (quick, _) = came(loop, worker), came(loop, worker)
    narrow(peer)
    names = [str(number) for number in range(9)]
    for name in names:
        for client in (slow, quick):
            client.send(asked(name, LARGE))
            loop.turns()
    worker.answer_all()
    loop.turns()
    assert peer.pending_bytes == sum(map(len, peer._outgoing)) > len(LARGE)
    assert quick.ids() == names
    assert taken(loop, slow, len(names)) == names
    assert peer.pending_bytes == 0
    assert peer._mask == select.EPOLLIN
    before = loop.usual
    slow.send(asked("again"))
    loop.turns()
    worker.answer_all()
    loop.turns()
    assert slow.ids() == ["again"]
    assert loop.usual == tuple(count + (loop.gateway._relay is not None) for count in before)


def test_what_is_answered_while_a_client_is_behind_comes_behind(
    loop: GatewayLoop, worker: WorkerEnd
) -> None:
    client, peer = came(loop, worker)
    narrow(peer)
    for name in ("0", "1", "2", "3"):
        client.send(asked(name, LARGE))
        loop.turns()
        worker.answer_all()
        loop.turns()
        assert peer.pending_bytes == sum(map(len, peer._outgoing))
    assert peer.pending_bytes > len(LARGE)
    assert taken(loop, client, 4) == ["0", "1", "2", "3"]


def test_workers_in_turns_get_all_though_one_is_behind(loop: GatewayLoop) -> None:
    workers = [loop.worker(1000), loop.worker(1000)]
    loop.route("m", workers)
    client = loop.client()
    loop.learn(client, workers[0], request())
    for slot in loop.traffic._lanes.values():
        slot.link._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    names = [str(number) for number in range(16)]
    client.send(b"".join(asked(name, LARGE) for name in names))
    loop.turns()
    for slot in loop.traffic._lanes.values():
        assert slot.link.pending_bytes == sum(map(len, slot.link._outgoing)) > 0
    while sum(len(worker.waiting) for worker in workers) < len(names):
        for worker in workers:
            worker.take()
        loop.turns()
    assert [worker.ids() for worker in workers] == [names[::2], names[1::2]]
    assert all(frame.tensors == [LARGE] for worker in workers for frame in worker.waiting)
    assert all(not slot.link.pending_bytes for slot in loop.traffic._lanes.values())


def test_a_client_that_takes_no_answer_and_sends_half_a_message_is_let_go_alone(
    loop: GatewayLoop, worker: WorkerEnd
) -> None:
    (deaf, _), (client, _) = came(loop, worker), came(loop, worker)
    for rest in (asked("b")[:5], asked("b"), message(b"SB1H", b"{}"), b"\xff\xff"):
        deaf.send(asked("a"))
        loop.turns()
        worker.answer_all()  # before anything else, so that the loop comes to it first
        deaf.socket.shutdown(socket.SHUT_RD)
        deaf.send(rest)
        loop.turns()
        assert deaf.gone
        worker.answer_all()
        loop.turns()
        client.send(asked("c"))
        loop.turns()
        worker.answer_all()
        loop.turns()
        assert client.ids() == ["c"]
        deaf, _ = came(loop, worker)
    assert loop.figures().models[0].outstanding == 0


def test_a_client_that_has_taken_everything_in_the_meantime_costs_no_turns(
    loop: GatewayLoop,
) -> None:
    client = loop.client()
    (peer,) = loop.front.peers.values()
    narrow(peer)
    while not peer.pending_bytes:
        loop.front.reply(Envelope(peer, []), RESULT, LARGE)
        loop.front.flush()
    client.take()
    loop.front.reply(Envelope(peer, []), RESULT, b"{}")
    loop.front.flush()
    client.take()
    assert peer.pending_bytes == 0
    loop.turns()


def test_an_answer_never_reaches_who_came_in_the_place_of_who_has_gone(
    loop: GatewayLoop, worker: WorkerEnd
) -> None:
    (first, peer), (other, _) = came(loop, worker), came(loop, worker)
    for turn_between in (True, False):
        first.send(asked("secret"))
        other.send(asked("o"))
        loop.turns()
        fd = peer.fd
        first.close()
        if turn_between:
            loop.turns()
        else:
            worker.answer_all()
        loop.turns()
        second, peer = came(loop, worker) if turn_between else (loop.client(), peer)
        assert fd in loop.front.peers
        second.send(asked("mine"))
        loop.turns()
        worker.answer_all()
        loop.turns()
        assert second.ids() == ["mine"]
        assert other.ids() == ["o"]
        second.close()
        loop.turns()
        first, peer = came(loop, worker)


def test_a_request_under_way_of_who_has_gone_is_counted_as_answered(
    loop: GatewayLoop, worker: WorkerEnd
) -> None:
    client, _ = came(loop, worker)
    client.send(asked("a"))
    loop.turns()
    client.close()
    loop.turns()
    worker.answer_all()
    loop.turns()
    traffic = loop.figures().models[0]
    assert (traffic.answered, traffic.outstanding) == (3, 0)


@pytest.mark.parametrize("goodbye", [True, False])
def test_a_lane_in_the_place_of_another_has_nothing_of_it(
    loop: GatewayLoop, worker: WorkerEnd, goodbye: bool
) -> None:
    client, _ = came(loop, worker)
    (fd,) = loop.traffic._lanes
    heir = loop.worker(1000)
    client.send(asked("a") + asked("b"))
    loop.turns()
    worker.take()
    worker.page.begin(1, worker.waiting[1].request_id)
    worker.send(worker.answer(worker.waiting[0]))
    worker.end(goodbye=goodbye)
    loop.turns()
    assert client.ids() == ["a"]
    loop.route("m", [heir])
    assert list(loop.traffic._lanes) == [fd]
    assert heir.ids() == ["b"]
    heir.answer_all()
    loop.turns()
    client.send(asked("c"))
    loop.turns()
    heir.answer_all()
    loop.turns()
    assert client.ids() == ["b", "c"]
    assert loop.figures().models[0].redispatched == 1


def test_what_ends_two_workers_is_poison_and_what_came_with_it_is_not(loop: GatewayLoop) -> None:
    worker = loop.worker(1000)
    loop.route("m", [worker])
    client, _ = came(loop, worker)
    client.send(asked("poison") + asked("innocent"))
    loop.turns()
    for _ in range(2):
        worker.take()
        assert worker.ids()[0] == "poison"
        worker.page.begin(1, worker.waiting[0].request_id)
        worker.end()
        loop.turns()
        worker = loop.worker(1000)
        loop.route("m", [worker])
    assert worker.ids() == ["innocent"]
    worker.answer_all()
    loop.turns()
    first, second = client.messages()
    assert (first[0], second[0]) == (b"SB1e", b"SB1r")
    assert b'"poison"' in first[1]
    assert b"ended 2 workers" in first[1]


def test_an_end_behind_answers_is_met_after_them(loop: GatewayLoop, worker: WorkerEnd) -> None:
    client, _ = came(loop, worker)
    names = [str(number) for number in range(200)]
    client.send(b"".join(map(asked, names)))
    loop.turns()
    worker.answer_all()
    worker.end(goodbye=True)
    loop.turns()
    assert client.ids() == names
    traffic = loop.figures().models[0]
    assert (traffic.redispatched, traffic.waiting, traffic.answered) == (0, 0, 202)


def test_a_worker_that_sends_nothing_any_more_has_ended(
    loop: GatewayLoop, worker: WorkerEnd
) -> None:
    client, _ = came(loop, worker)
    client.send(asked("a") + asked("b"))
    loop.turns()
    worker.take()
    assert worker.socket is not None
    worker.send(worker.answer(worker.waiting[0]))
    worker.socket.shutdown(socket.SHUT_WR)
    loop.turns()
    assert client.ids() == ["a"]
    assert loop.traffic._lanes == {}
    assert loop.figures().models[0].waiting == 1


def test_garbage_behind_answers_ends_the_lane_and_what_is_unanswered_is_kept(
    loop: GatewayLoop, worker: WorkerEnd
) -> None:
    client, _ = came(loop, worker)
    client.send(asked("a"))
    loop.turns()
    worker.send(b"\xff" * 64)
    loop.turns()
    assert loop.traffic._lanes == {}
    heir = loop.worker(1000)
    loop.route("m", [heir])
    heir.answer_all()
    loop.turns()
    assert client.ids() == ["a"]
    assert loop.figures().malformed == 1
