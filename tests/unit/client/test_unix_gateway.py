"""The connection over a Unix socket against a peer played by hand, in time that stands still."""

from __future__ import annotations

import errno
import gc
import logging
import os
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from superbrain.client import link, unix_gateway
from superbrain.client.gateway import Gateway
from superbrain.client.ledger import Exchange
from superbrain.client.unix_gateway import UnixGateway
from superbrain.transport import stream_socket
from superbrain.wire.errors import DeadlineExceeded, Unavailable
from superbrain.wire.messages import MAX_TENSORS
from tests.support.gateway_ends import (
    CLIENT_READY,
    GREETING,
    HELLO,
    Asker,
    Clock,
    GatewayEnd,
    Listener,
    answer,
    command,
    inferred,
    message,
    ready,
)

LARGE = 1 << 20


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(unix_gateway, "time", clock)
    monkeypatch.setattr(link, "time", clock)
    return clock


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "infer.sock")


@pytest.fixture
def listener(path: str) -> Iterator[Listener]:
    with Listener(path) as listener:
        yield listener


@pytest.fixture
def asker(path: str, clock: Clock) -> Iterator[Asker]:
    asker = Asker(f"ipc://{path}")
    yield asker
    asker.link.close()


@pytest.fixture
def _small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_socket, "_SOCKET_BUFFER_BYTES", 1 << 14)
    monkeypatch.setattr(stream_socket, "_SO_SNDBUFFORCE", socket.SO_SNDBUF)


def greeted(asker: Asker, listener: Listener) -> GatewayEnd:
    """Accept the client, shake hands and answer whom it has asked so far."""
    end = listener.accept()
    end.greet()
    asker.turns()
    assert asker.connected()
    return end


def opened(asker: Asker, listener: Listener) -> GatewayEnd:
    """Give a connection over which one question was asked and answered."""
    exchange = asker.ask()
    end = greeted(asker, listener)
    assert end.asked() == [exchange.id]
    end.give(answer(exchange.id))
    asker.turns()
    assert exchange.settled
    asker.settled.clear()
    return end


def came_back(asker: Asker, listener: Listener, clock: Clock) -> GatewayEnd:
    """Let the time come to connect again, and shake hands."""
    asker.turn_when_due(clock)
    return greeted(asker, listener)


def takes(gateway: Gateway) -> bool:
    return gateway.takes


def refusal(exchange: Exchange) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        exchange.outcome()
    return caught.value


class TestHandshake:
    @pytest.mark.parametrize("piece", [len(HELLO), 1, 7, 63, 64, 65, len(HELLO) - 1])
    def test_in_pieces_of_any_size_and_nothing_is_sent_before_its_end(
        self, asker: Asker, listener: Listener, piece: int
    ) -> None:
        exchange = asker.ask()
        end = listener.accept()
        assert end.take() == GREETING  # unasked
        came = b""
        for position in range(0, len(HELLO), piece):
            assert not asker.connected()
            assert came == (CLIENT_READY if position >= len(GREETING) else b"")
            end.give(HELLO[position : position + piece])
            asker.turns()
            if position + piece < len(HELLO):
                came += end.take()
        assert asker.connected()
        end.expect_ready(came=came)
        assert end.asked() == [exchange.id]

    @pytest.mark.parametrize("kind", [b"ROUTER", b"DEALER", b"REP"])
    def test_with_whoever_may_talk_to_a_dealer(
        self, asker: Asker, listener: Listener, kind: bytes
    ) -> None:
        exchange = asker.ask()
        end = listener.accept()
        end.take()
        end.give(GREETING + ready(kind))
        asker.turns()
        end.give(answer(exchange.id, delimiter=kind == b"REP"))
        asker.turns()
        assert exchange.outcome().live

    def test_what_was_asked_meanwhile_goes_in_its_order_when_it_is_over(
        self, asker: Asker, listener: Listener
    ) -> None:
        asked = [asker.ask().id for _ in range(3)]
        end = greeted(asker, listener)
        assert end.asked() == asked

    def test_messages_in_the_same_bytes_are_taken(self, asker: Asker, listener: Listener) -> None:
        exchange = asker.ask()
        end = listener.accept()
        end.take()
        end.give(HELLO + answer(exchange.id))
        asker.turns()
        assert exchange.outcome().live
        assert end.asked() == []

    def test_an_abstract_name_is_one(self, tmp_path: Path, clock: Clock) -> None:
        name = f"superbrain{tmp_path}"
        asker = Asker(f"ipc://@{name}")
        with Listener("\0" + name) as listener:
            opened(asker, listener)
            asker.link.close()

    @pytest.mark.parametrize("delimiter", [False, True])
    def test_a_delimiter_in_front_of_the_answer_does_not_matter(
        self, asker: Asker, listener: Listener, delimiter: bool
    ) -> None:
        end = opened(asker, listener)
        exchange = asker.ask()
        end.give(answer(exchange.id, delimiter=delimiter))
        asker.turns()
        assert exchange.outcome().live


class TestNoGateway:
    TALK: tuple[tuple[bytes, str], ...] = (
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "expected the signature of ZMTP"),
        (b"S", "expected the signature of ZMTP, found b'S'"),
        (b"\xff\0\0\0\0\0\0\0\1\x7f\1\5", "expected ZMTP 3 .*found version 1"),
        (b"\xff\0\0\0\0\0\0\0\7\x7f\2\5", "found version 2"),
        (GREETING.replace(b"NULL", b"CURVE")[:64], "expected the security mechanism NULL.*CURVE"),
        (GREETING.replace(b"NULL", b"PLAIN")[:64], "mechanism NULL, found b'PLAIN'"),
        (GREETING + ready(b"PUB"), "type ROUTER or DEALER or REP, found b'PUB'"),
        (GREETING + ready(b"REQ"), "found b'REQ'"),
        (GREETING + ready(b"PAIR"), "found b'PAIR'"),
        (
            GREETING + command(b"ERROR", b"\4what"),
            r"expected the command READY, found b'\\x05ERROR",
        ),
        (GREETING + message(b"SB1r", b"{}"), "READY behind the greeting, found another frame"),
    )

    @pytest.mark.parametrize(("talk", "found"), TALK)
    def test_is_said_at_once_to_everybody_who_waits(
        self, asker: Asker, listener: Listener, talk: bytes, found: str
    ) -> None:
        waiting = [asker.ask(), asker.ask()]
        end = listener.accept()
        end.take()
        end.give(talk)
        asker.turns()
        assert asker.settled == waiting
        for exchange in waiting:
            error = refusal(exchange)
            assert error.message.startswith(f"{asker.link.endpoint} is no superbrain gateway's: ")
            assert "superbrain status" in error.mend
            with pytest.raises(Unavailable, match=found):
                raise error
        assert end.gone
        assert not asker.connected()
        assert asker.due() is None  # nobody waits

    def test_the_next_request_asks_again(
        self, asker: Asker, listener: Listener, clock: Clock
    ) -> None:
        for _ in range(3):
            exchange = asker.ask()
            if asker.due() is not None:
                asker.turn_when_due(clock)
            end = listener.accept()
            end.take()
            end.give(b"220 mail ESMTP\r\n")
            asker.turns()
            assert "220 mail" in refusal(exchange).message
        exchange = asker.ask()
        end = came_back(asker, listener, clock)
        assert end.asked() == [exchange.id]

    def test_a_request_that_comes_late_enough_needs_no_second_turn(
        self, asker: Asker, listener: Listener, clock: Clock
    ) -> None:
        asker.ask()
        end = listener.accept()
        end.take()
        end.give(b"no")
        asker.turns()
        clock.now += 1
        asker.ask()
        assert listener.accept().take() == GREETING

    def test_what_breaks_the_protocol_later_is_refused_as_well(
        self, asker: Asker, listener: Listener, clock: Clock
    ) -> None:
        end = opened(asker, listener)
        exchange = asker.ask()
        end.give(b"\x80\0")
        asker.turns()
        assert "expected a frame of ZMTP, found flags 0x80" in refusal(exchange).message
        exchange = asker.ask()
        assert came_back(asker, listener, clock).asked() == [exchange.id]

    def test_who_says_nothing_is_named_when_the_time_is_over(
        self, asker: Asker, listener: Listener
    ) -> None:
        exchange = asker.ask()
        end = listener.accept()
        asker.turns()
        overdue = asker.link.overdue(exchange)
        assert isinstance(overdue, DeadlineExceeded)
        assert "takes the connection and says nothing" in overdue.message
        assert "systemctl status superbraind" in overdue.mend
        end.give(GREETING)  # a part of it is not enough
        asker.turns()
        assert "says nothing" in asker.link.overdue(exchange).message
        end.give(ready())
        asker.turns()
        assert "no answer within the time given" in asker.link.overdue(exchange).message

    def test_a_loss_is_not_taken_for_it(self, asker: Asker, listener: Listener) -> None:
        end = opened(asker, listener)
        exchange = asker.ask()
        end.socket.close()
        asker.turns()
        assert "was lost and did not come back" in asker.link.overdue(exchange).message


class TestRetries:
    DELAYS_MS = (10, 20, 40, 80, 160, 320, 320, 320)

    def delay_ms(self, gateway: UnixGateway, clock: Clock) -> int:
        assert gateway.retry_at is not None
        return round(1000 * (gateway.retry_at - clock.now))

    def test_come_later_each_time_and_not_before(self, path: str, clock: Clock) -> None:
        with select.epoll() as epoll:
            gateway = UnixGateway(f"ipc://{path}", epoll)
            for delay in self.DELAYS_MS:
                assert self.delay_ms(gateway, clock) == delay
                due = gateway.retry_at
                assert due is not None
                clock.now = due - 0.001
                assert gateway.catch_up() == (False, None)
                assert gateway.retry_at == due
                clock.now = due
                assert gateway.catch_up() == (False, None)
            with Listener(path) as listener:
                gateway.catch_up()
                assert not listener.called
                clock.now += self.delay_ms(gateway, clock) / 1000 + 1e-9
                gateway.catch_up()
                assert listener.accept()
                assert gateway.retry_at is None
            gateway.close()

    def test_begin_anew_after_a_handshake_and_only_then(self, path: str, clock: Clock) -> None:
        with select.epoll() as epoll, Listener(path) as listener:
            gateway = UnixGateway(f"ipc://{path}", epoll)
            for delay in self.DELAYS_MS:
                end = listener.accept()
                end.give(GREETING)
                gateway.catch_up()
                end.socket.close()
                assert gateway.catch_up().lost
                assert self.delay_ms(gateway, clock) == delay
                clock.now += delay / 1000
                gateway.catch_up()
            listener.accept().greet()
            gateway.catch_up()
            assert takes(gateway)
            listener.close()
            assert gateway.catch_up().lost
            assert not gateway.connected
            assert [self.delay_ms(gateway, clock)] == [10]
            gateway.close()

    def test_nobody_waits_and_nothing_is_due(
        self, asker: Asker, listener: Listener, clock: Clock
    ) -> None:
        end = opened(asker, listener)
        end.socket.close()
        asker.turns()
        assert not asker.connected()
        assert asker.due() is None
        exchange = asker.ask(clock.now + 5)
        assert asker.due() == clock.now + 0.01
        asker.link.ledger.forget(exchange)
        assert asker.due() is None

    def test_poll_waits_until_one_is_due_and_no_longer(
        self, asker: Asker, listener: Listener, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        end = opened(asker, listener)
        waits: list[float] = []

        def poll(timeout_s: float) -> list[tuple[int, int]]:
            waits.append(timeout_s)
            return []

        monkeypatch.setattr(asker.link._wait, "poll", poll)
        asker.link.poll(7)
        end.socket.close()
        asker.link.pump([(asker.link._gateway._talk.fd, select.EPOLLIN)])  # type: ignore[union-attr]
        asker.link.poll(7)  # nobody asks
        asker.ask()
        asker.link.poll(7)
        asker.link.poll(0.005)
        clock.now += 3
        asker.link.poll(7)
        assert waits == [7, 7, pytest.approx(0.01), 0.005, 0]

    def test_the_socket_file_may_go_and_come_back(
        self, asker: Asker, listener: Listener, path: str, clock: Clock
    ) -> None:
        end = opened(asker, listener)
        Path(path).unlink()
        exchange = asker.ask()
        assert end.asked() == [exchange.id]  # it needs no name any more
        listener.close()
        asker.turns()
        for _ in range(4):
            asker.turn_when_due(clock)
        with Listener(path) as again:
            assert came_back(asker, again, clock).asked() == [exchange.id]

    def test_who_left_its_socket_file_behind_may_come_back(
        self, asker: Asker, listener: Listener, path: str, clock: Clock
    ) -> None:
        opened(asker, listener)
        listener.close()  # and the file stays
        asker.turns()
        exchange = asker.ask()
        asker.turn_when_due(clock)
        assert not exchange.settled
        Path(path).unlink()
        with Listener(path) as again:
            assert came_back(asker, again, clock).asked() == [exchange.id]

    def test_a_long_line_of_callers_is_waited_out(
        self, path: str, asker: Asker, clock: Clock
    ) -> None:
        with Listener(path, backlog=0) as listener:
            callers = []
            while True:
                caller = socket.socket(socket.AF_UNIX)
                caller.setblocking(False)
                callers.append(caller)
                if caller.connect_ex(path) == errno.EAGAIN:
                    break
            exchange = asker.ask()
            for _ in range(3):
                asker.turn_when_due(clock)
            assert not exchange.settled
            for caller in callers:
                caller.close()
            while listener.called:
                listener._socket.accept()[0].close()
            assert came_back(asker, listener, clock).asked() == [exchange.id]

    @pytest.mark.parametrize("fault", ["connect", "socket"])
    @pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT, errno.EMFILE, errno.ENOBUFS])
    def test_what_the_kernel_refuses_for_a_while_is_tried_again(
        self,
        asker: Asker,
        listener: Listener,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
        fault: str,
        number: int,
    ) -> None:
        end = opened(asker, listener)
        exchange = asker.ask()
        end.socket.close()
        asker.turns()

        def refuse(*_: object) -> None:
            raise OSError(number, "not now")

        with monkeypatch.context() as patch:
            if fault == "connect":
                patch.setattr(socket.socket, "connect", refuse)
            else:
                patch.setattr(socket, "socket", refuse)
            for _ in range(3):
                asker.turn_when_due(clock)
        assert not exchange.settled
        assert came_back(asker, listener, clock).asked() == [exchange.id]


class TestLoss:
    def test_what_is_in_doubt_is_sent_again_once_and_what_was_answered_is_not(
        self, asker: Asker, listener: Listener, clock: Clock
    ) -> None:
        end = opened(asker, listener)
        first, second, third = asker.ask(), asker.ask(), asker.ask()
        assert end.asked() == [first.id, second.id, third.id]
        end.give(answer(second.id))
        asker.turns()
        end.socket.close()
        asker.turns()
        fourth = asker.ask()
        end = came_back(asker, listener, clock)
        assert end.asked() == [first.id, third.id, fourth.id]
        for exchange in (first, third, fourth):
            end.give(answer(exchange.id))
        asker.turns()
        assert end.asked() == []
        assert asker.settled == [second, first, third, fourth]

    def test_answers_that_came_with_the_end_are_kept(
        self, asker: Asker, listener: Listener, clock: Clock
    ) -> None:
        end = opened(asker, listener)
        asked = [asker.ask() for _ in range(3)]
        end.messages()
        end.give(answer(asked[0].id) + answer(asked[2].id))
        end.socket.close()
        asker.turns()
        assert asker.settled == [asked[0], asked[2]]
        assert came_back(asker, listener, clock).asked() == [asked[1].id]

    @pytest.mark.parametrize("size", [10, 3000, 50_000])
    @pytest.mark.parametrize("asks", [False, True])
    def test_so_are_those_that_take_many_reads(
        self, asker: Asker, listener: Listener, size: int, asks: bool
    ) -> None:
        end = opened(asker, listener)
        end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        asked = [asker.infer(bytes(1)) for _ in range(40 if size < 50_000 else 4)]
        end.messages()
        for exchange in asked:
            end.give(inferred(exchange.id, bytes(size)))
        end.socket.close()
        if asks:  # which finds that nobody takes anything any more
            asked.append(asker.infer(bytes(1)))
        asker.turns()
        assert asker.settled == asked[: len(asked) - asks]
        assert not asker.connected()
        assert asker.link.ledger.unsent == asks

    def test_an_answer_that_was_cut_off_is_asked_for_again(
        self, asker: Asker, listener: Listener, clock: Clock
    ) -> None:
        tensor = np.random.default_rng(1).integers(0, 256, LARGE, np.uint8).tobytes()
        end = opened(asker, listener)
        exchange = asker.infer(bytes(1))
        end.messages()
        end.give(inferred(exchange.id, bytes(LARGE))[:100_000])
        asker.turns()
        end.socket.close()
        asker.turns()
        assert not exchange.settled
        end = came_back(asker, listener, clock)
        assert end.asked() == [exchange.id]
        whole = inferred(exchange.id, tensor)
        while whole:
            whole = whole[end.socket.send(whole) :]
            asker.turns()
        assert exchange.outcome()["y0"].tobytes() == tensor

    @pytest.mark.usefixtures("_small_buffers")
    def test_a_request_that_was_cut_off_is_sent_again_from_its_beginning(
        self, asker: Asker, listener: Listener, clock: Clock
    ) -> None:
        tensor = np.random.default_rng(2).integers(0, 256, LARGE, np.uint8)
        end = opened(asker, listener)
        exchange = asker.infer(tensor)
        assert 0 < len(end.take(100_000)) < LARGE
        end.socket.close()
        asker.turns()
        end = came_back(asker, listener, clock)
        assert read_all(asker, end, 1)[0][2] == tensor.tobytes()
        end.give(inferred(exchange.id))
        asker.turns()
        assert asker.settled == [exchange]

    def test_is_seen_where_the_other_end_only_stops_reading(
        self, asker: Asker, listener: Listener, clock: Clock
    ) -> None:
        end = opened(asker, listener)
        before = asker.ask()
        end.messages()
        end.socket.shutdown(socket.SHUT_RD)
        assert asker.link.poll(0) == []  # the kernel says nothing of it
        exchange = asker.ask()
        assert asker.due() == clock.now
        assert "was lost" in asker.link.overdue(exchange).message
        end.give(answer(before.id))
        asker.turn()
        assert asker.settled == [before]
        asker.turn()
        assert end.gone
        assert came_back(asker, listener, clock).asked() == [exchange.id]

    def test_before_the_handshake_loses_nothing(
        self, asker: Asker, listener: Listener, clock: Clock
    ) -> None:
        exchange = asker.ask()
        listener.accept().socket.close()
        asker.turns()
        assert not exchange.settled
        assert came_back(asker, listener, clock).asked() == [exchange.id]


def read_all(asker: Asker, end: GatewayEnd, count: int) -> list[list[bytes]]:
    """Take and turn until so many requests have come, and nothing more comes."""
    found: list[list[bytes]] = []
    for _ in range(10_000):
        came = end.messages()
        found += came
        asker.turns()
        if len(found) >= count and not end._rest and not came:
            break
    assert len(found) == count
    return found


class TestPeerThatDoesNotRead:
    @pytest.mark.usefixtures("_small_buffers")
    def test_others_stay_in_the_ledger_and_those_whose_time_is_over_never_go(
        self, asker: Asker, listener: Listener, clock: Clock
    ) -> None:
        tensor = np.random.default_rng(3).integers(0, 256, LARGE, np.uint8)
        end = opened(asker, listener)
        large = asker.infer(tensor)
        hasty, patient = asker.ask(clock.now + 1), asker.ask()
        gateway = asker.link._gateway
        assert gateway is not None
        assert not takes(gateway)
        assert asker.link.ledger.unsent == 2
        clock.now += 2
        asker.turns()
        requests = read_all(asker, end, 2)
        assert takes(gateway)
        assert requests[0][2] == tensor.tobytes()
        assert patient.id.encode() in requests[1][1]
        assert asker.settled == [hasty]
        with pytest.raises(DeadlineExceeded, match="no answer within the time"):
            hasty.outcome()
        assert not large.settled

    @pytest.mark.usefixtures("_small_buffers")
    def test_a_request_of_more_buffers_than_one_call_takes_arrives_whole(
        self, asker: Asker, listener: Listener
    ) -> None:
        end = opened(asker, listener)
        tensors = [np.full(9000, i % 251, np.uint8) for i in range(600)]
        asker.infer(*tensors)
        (found,) = read_all(asker, end, 1)
        assert found[2:] == [tensor.tobytes() for tensor in tensors]

    @pytest.mark.usefixtures("_small_buffers")
    def test_thousands_of_small_requests_wait_and_all_go_once(
        self, asker: Asker, listener: Listener
    ) -> None:
        end = opened(asker, listener)
        asked = [asker.ask() for _ in range(5000)]
        assert asker.link.ledger.unsent > 4000
        ids = []
        for _ in range(10_000):
            came = end.asked()
            ids += came
            for request_id in came:
                end.give(answer(request_id))
                asker.turns()
            asker.turns()
            if not came:
                break
        assert ids == [exchange.id for exchange in asked]
        assert asker.settled == asked

    @pytest.mark.usefixtures("_small_buffers")
    def test_its_answers_are_read_meanwhile(self, asker: Asker, listener: Listener) -> None:
        end = opened(asker, listener)
        before, large = asker.ask(), asker.infer(np.zeros(LARGE, np.uint8))
        end.give(answer(before.id) + command(b"PING", b"\0\x0ahere"))
        asker.turns()
        assert asker.settled == [before]
        requests = read_all(asker, end, 3)
        assert [len(one) for one in requests] == [2, 3, 2]
        assert requests[2] == [b"\4", b"\4PONGhere"]
        assert not large.settled

    def test_nothing_is_looked_for_once_everything_is_sent(
        self, asker: Asker, listener: Listener
    ) -> None:
        opened(asker, listener)
        asker.ask()
        assert asker.link.poll(0) == []


class TestAnswers:
    def test_a_ping_is_answered_with_its_context(self, asker: Asker, listener: Listener) -> None:
        end = opened(asker, listener)
        end.give(command(b"PING", b"\0\x0a") + command(b"PING", b"\0\x0ahere"))
        asker.turns()
        assert end.take() == command(b"PONG", b"") + command(b"PONG", b"here")
        assert asker.connected()

    @pytest.mark.parametrize("size", [1, 300, 9000, 40_000, LARGE])
    def test_have_memory_of_their_own_that_may_be_written_to(
        self, asker: Asker, listener: Listener, size: int
    ) -> None:
        end = opened(asker, listener)
        asked = [asker.infer(bytes(1)) for _ in range(3)]
        random = np.random.default_rng(size)
        tensors = random.integers(0, 256, (3, 2, size), np.uint8)
        for exchange, (one, other) in zip(asked, tensors, strict=True):
            whole = inferred(exchange.id, one.tobytes(), other.tobytes())
            while whole:
                whole = whole[end.socket.send(whole[:100_000]) :]
                asker.turns()
        results = [exchange.outcome() for exchange in asked]
        arrays = [result[name] for result in results for name in ("y0", "y1")]
        for array, tensor in zip(arrays, tensors.reshape(6, size), strict=True):
            assert np.array_equal(array, tensor)
            array[:] = 0  # nobody else's
        assert not any(array.any() for array in arrays)

    def test_of_more_frames_than_any_may_have_are_dropped_and_nothing_else(
        self, asker: Asker, listener: Listener, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING, "superbrain")
        end = opened(asker, listener)
        end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        first, second, third = (asker.infer(bytes(1)) for _ in range(3))
        end.give(inferred(first.id, *[b"x"] * (MAX_TENSORS + 2)))
        end.give(inferred(second.id, *[b"x"] * MAX_TENSORS))
        end.give(message(b"", b"SB1r", b'{"id":"%s"}' % third.id.encode(), *[b""] * MAX_TENSORS))
        asker.turns()
        assert asker.settled == [second, third]
        assert len(second.outcome()) == MAX_TENSORS
        assert "not of this protocol" in caplog.text

    def test_a_message_of_one_empty_frame_or_two_harms_nobody(
        self, asker: Asker, listener: Listener
    ) -> None:
        end = opened(asker, listener)
        exchange = asker.ask()
        end.give(message(b"") + message(b"", b"") + message(b"", b"", b"") + answer(exchange.id))
        asker.turns()
        assert exchange.outcome().live


def silent(asker: Asker, listener: Listener) -> None:
    asker.ask()
    listener.accept()


def halfway(asker: Asker, listener: Listener) -> None:
    asker.ask()
    listener.accept().give(GREETING)
    asker.turns()


def lost(asker: Asker, listener: Listener) -> None:
    opened(asker, listener)
    asker.ask()
    listener.close()
    asker.turns()


def half_sent(asker: Asker, listener: Listener) -> None:
    opened(asker, listener)
    asker.infer(np.zeros(LARGE, np.uint8))


def half_received(asker: Asker, listener: Listener) -> None:
    end = opened(asker, listener)
    exchange = asker.infer(bytes(1))
    end.give(inferred(exchange.id, bytes(LARGE))[:100_000])
    asker.turns()


def ended_unread(asker: Asker, listener: Listener) -> None:
    end = opened(asker, listener)
    end.give(answer(asker.ask().id))
    listener.close()


@pytest.mark.usefixtures("_small_buffers")
@pytest.mark.parametrize(
    "state", [silent, halfway, opened, lost, half_sent, half_received, ended_unread]
)
def test_closing_leaves_no_descriptor_and_ends_the_connection(
    path: str, clock: Clock, state: Callable[[Asker, Listener], object]
) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    gc.collect()  # what other tests have left is not ours to count
    before = descriptors()
    with Listener(path) as listener:
        asker = Asker(f"ipc://{path}")
        state(asker, listener)
        asker.link.close()
        asker.link.close()
        for end in listener.ends:
            if end.socket.fileno() >= 0:
                end.take()
                assert end.gone
    assert descriptors() == before


def test_a_closed_gateway_is_never_due_and_takes_nothing(path: str, listener: Listener) -> None:
    with select.epoll() as epoll:
        gateway = UnixGateway(f"ipc://{path}", epoll)
        listener.accept().greet()
        gateway.catch_up()
        assert takes(gateway)
        gateway.close()
        assert not takes(gateway)
        assert not gateway.connected
        assert gateway.retry_at is None
        assert gateway.catch_up() == (False, None)
        assert gateway.receive() is None
        assert not listener.called
        with pytest.raises(RuntimeError):
            gateway.send([b"SB1l", b"{}"])
        gateway.close()


def test_a_gateway_that_was_closed_while_it_was_due_is_never_due(path: str, clock: Clock) -> None:
    with select.epoll() as epoll:
        gateway = UnixGateway(f"ipc://{path}", epoll)
        gateway.close()
        clock.now += 1
        with Listener(path) as listener:
            assert gateway.catch_up() == (False, None)
            assert not listener.called
        assert gateway.retry_at is None


def test_closing_forgets_what_nobody_has_asked_for(path: str, listener: Listener) -> None:
    with select.epoll() as epoll:
        gateway = UnixGateway(f"ipc://{path}", epoll)
        end = listener.accept()
        for data in (HELLO + answer("a-1"), answer("a-2"), answer("a-3")):
            end.give(data)
            gateway.catch_up()
        for request_id in (b"a-1", b"a-2"):
            frames = gateway.receive()
            assert frames is not None
            assert request_id in frames[1]
        gateway.close()
        assert gateway.receive() is None


def test_closing_is_seen_at_the_other_end_though_a_fork_has_the_socket_too(
    asker: Asker, listener: Listener
) -> None:
    end = opened(asker, listener)
    gateway = asker.link._gateway
    assert isinstance(gateway, UnixGateway)
    assert gateway._talk is not None
    inherited = os.dup(gateway._talk.fd)
    asker.link.close()
    assert end.gone
    os.close(inherited)


def test_retries_leave_no_descriptor(path: str, clock: Clock) -> None:
    with select.epoll() as epoll:
        gateway = UnixGateway(f"ipc://{path}", epoll)
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            clock.now += 1
            gateway.catch_up()
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        gateway.close()
