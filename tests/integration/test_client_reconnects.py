"""A client whose gateway comes and goes: whoever waits brings the connection back, in any thread.

Also who else may listen: sockets of libzmq, and its proxy.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq

from superbrain.client import AsyncClient, Client, DeadlineExceeded, Unavailable, calls
from superbrain.client.connection import Connection
from superbrain.client.fake import FakeServer
from superbrain.client.ledger import Exchange
from superbrain.client.unix_gateway import UnixGateway
from superbrain.wire.messages import InferResponse, ServerLive, TensorHeader
from tests.support.fake_servers import MODELS, client, number, number_of, server
from tests.support.gateway_ends import GatewayEnd, Listener, answer, ready
from tests.support.processes import ROOT, until

__all__ = ["client", "server"]
pytestmark = pytest.mark.integration
PATIENCE_S = 20.0


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "infer.sock")


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context() as context:
        context.linger = 0
        yield context


def answered(end: GatewayEnd, count: int = 1) -> list[str]:
    """Answer so many requests of a client in another thread; give their ids."""
    ids: list[str] = []

    def came() -> bool:
        ids.extend(end.asked())
        return len(ids) >= count

    until(came, "requests")
    for request_id in ids[:count]:
        end.give(answer(request_id))
    return ids[:count]


class TestLibzmq:
    """The other end is libzmq's."""

    @pytest.mark.parametrize("kind", [zmq.ROUTER, zmq.DEALER])
    @pytest.mark.parametrize("size", [1, 100, 300, 100_000, 3_000_000])
    def test_a_socket_of_it_takes_requests_and_gives_answers(
        self, path: str, context: zmq.Context[zmq.Socket[bytes]], kind: int, size: int
    ) -> None:
        tensor = np.arange(size).astype(np.uint8)
        with context.socket(kind) as there, Client(f"ipc://{path}", lanes=False) as client:
            there.bind(f"ipc://{path}")
            there.rcvtimeo = 10_000
            for _ in range(3):
                pending = client.submit("m", {"x": tensor})
                with ThreadPoolExecutor(1) as pool:
                    result = pool.submit(pending.result, 10)
                    *route, verb, header, data = there.recv_multipart()
                    assert (verb, data) == (b"SB1I", tensor.tobytes())
                    outputs = [TensorHeader("y", "UINT8", [size])]
                    reply = InferResponse("m", "1", outputs, json.loads(header)["id"])
                    there.send_multipart([*route, b"SB1r", msgspec.json.encode(reply), data[::-1]])
                    assert np.array_equal(result.result()["y"], tensor[::-1])

    def test_a_rep_shakes_hands(self, path: str, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        with context.socket(zmq.REP) as there, Client(f"ipc://{path}", lanes=False) as client:
            there.bind(f"ipc://{path}")
            with pytest.raises(DeadlineExceeded, match="no answer within the time given"):
                client.server(timeout=0.2)

    @pytest.mark.parametrize("kind", [zmq.PUB, zmq.PULL, zmq.PAIR, zmq.XSUB])
    def test_who_may_not_talk_to_a_dealer_is_no_gateway(
        self, path: str, context: zmq.Context[zmq.Socket[bytes]], kind: int
    ) -> None:
        with context.socket(kind) as there, Client(f"ipc://{path}", timeout=10) as client:
            there.bind(f"ipc://{path}")
            for _ in range(2):
                with pytest.raises(Unavailable, match="type ROUTER or DEALER or REP, found"):
                    client.server()

    def test_heartbeats_of_it_are_answered(
        self, path: str, context: zmq.Context[zmq.Socket[bytes]]
    ) -> None:
        with context.socket(zmq.ROUTER) as there, context.socket(zmq.PAIR) as monitor:
            there.set(zmq.HEARTBEAT_IVL, 10)
            there.set(zmq.HEARTBEAT_TIMEOUT, 100)
            there.monitor("inproc://events", zmq.EVENT_DISCONNECTED)
            monitor.connect("inproc://events")
            there.bind(f"ipc://{path}")
            with Client(f"ipc://{path}", lanes=False) as client:
                with pytest.raises(DeadlineExceeded):
                    client.server(timeout=0.1)
                while monitor.poll(0):  # the client looked first whether anybody listens
                    monitor.recv_multipart()
                with pytest.raises(DeadlineExceeded):
                    client.server(timeout=0.4)
                assert not monitor.poll(0)
            there.disable_monitor()

    def test_its_proxy_may_stand_in_between(
        self, path: str, context: zmq.Context[zmq.Socket[bytes]], server: FakeServer
    ) -> None:
        front, back = context.socket(zmq.DEALER), context.socket(zmq.DEALER)
        front.bind(f"ipc://{path}")
        back.connect(server.endpoint)
        control, other = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        control.bind("inproc://control")
        other.connect("inproc://control")
        proxy = threading.Thread(target=zmq.proxy_steerable, args=(front, back, None, control))
        proxy.start()
        with Client(f"ipc://{path}", timeout=10) as client:
            pending = [client.submit("echo", number(i)) for i in range(200)]
            assert [number_of(each.result()) for each in pending] == list(range(200))
            x = np.random.default_rng(0).random(1_000_000)
            assert np.array_equal(client.infer("echo", {"x": x})["y"], x)
        other.send(b"TERMINATE")
        proxy.join(PATIENCE_S)
        for each in (front, back, control, other):
            each.close()

    def test_its_server_takes_the_place_of_another(
        self, path: str, context: zmq.Context[zmq.Socket[bytes]]
    ) -> None:
        with Client(f"ipc://{path}", lanes=False, timeout=10) as client:
            for _ in range(3):
                with FakeServer(MODELS, f"ipc://{path}"):
                    assert number_of(client.infer("echo", number(5))) == 5


def test_nobody_else_listens_and_no_libzmq_is_needed(path: str) -> None:
    """The import, and the use of a local gateway, leave libzmq alone."""
    program = """
import asyncio, sys
import superbrain.client as client
assert "zmq" not in sys.modules, "import"
with client.Client(sys.argv[1], timeout=10) as one:
    assert one.live()
async def main():
    async with client.AsyncClient(sys.argv[1], timeout=10) as one:
        assert await one.live()
asyncio.run(main())
assert "zmq" not in sys.modules, "use"
assert not [name for name in sys.modules if name.startswith("superbrain.client.zmq")]
"""
    with Listener(path) as listener:
        command = [sys.executable, "-c", program, f"ipc://{path}"]
        child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(2):
            end = listener.accept()
            end.greet()
            answered(end)
        error = child.communicate(timeout=PATIENCE_S)[1]
        assert child.returncode == 0, error


class TestThreads:
    def ask(self, pool: ThreadPoolExecutor, connection: Connection) -> Future[ServerLive]:
        exchange = Exchange(calls.server_live(), time.monotonic() + PATIENCE_S)
        return pool.submit(connection.ask, exchange.call, exchange.deadline)

    def test_a_leader_that_sleeps_learns_of_a_loss_that_another_has_found(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Listener(path) as listener, ThreadPoolExecutor(1) as pool:
            connection = Connection(f"ipc://{path}", lanes=False)
            led = self.ask(pool, connection)
            end = listener.accept()
            end.greet()
            until(end.asked, "the leader's request")
            until(lambda: connection._leading, "a leader")
            link, here = connection._link, threading.current_thread()
            gateway = link._gateway
            assert isinstance(gateway, UnixGateway)
            assert gateway._talk is not None
            fd, poll = gateway._talk.fd, link.poll
            link._opened_epoll().modify(fd, 0)  # the leader is told nothing

            def poll_here(timeout_s: float) -> list[tuple[int, int]]:
                return [(fd, 1)] if threading.current_thread() is here else poll(timeout_s)

            monkeypatch.setattr(link, "poll", poll_here)
            end.socket.shutdown(socket.SHUT_WR)
            other = Exchange(calls.server_live(), time.monotonic() + PATIENCE_S)
            connection.send(other)
            assert not connection.look(other)
            assert not connection._link.connected
            end = listener.accept()
            end.greet()
            answered(end, 2)
            assert led.result(PATIENCE_S).live
            monkeypatch.undo()
            assert connection.wait(other, other.deadline)
            connection.close()

    def test_a_leader_that_waits_for_a_lane_brings_back_the_gateway_for_another(
        self, path: str
    ) -> None:
        connection = Connection(f"ipc://{path}", lanes=False)
        patience = time.monotonic() + 2 * PATIENCE_S
        with Listener(path) as listener, ThreadPoolExecutor(2) as pool:
            first = self.ask(pool, connection)
            end = listener.accept()
            end.greet()
            answered(end)
            assert first.result(PATIENCE_S).live
            elsewhere = Exchange(calls.server_live(), patience)  # no business of the gateway's
            leader = pool.submit(connection.wait, elsewhere, patience)
            until(lambda: connection._leading is elsewhere, "a leader")
            listener.close()
            until(lambda: not connection._link.connected, "the loss to be seen")
            time.sleep(0.05)  # the leader goes to sleep with nothing that is due
            gateway = connection._link._gateway
            assert gateway is not None
            due = gateway.retry_at
            asked = self.ask(pool, connection)
            until(lambda: gateway.retry_at != due, "an attempt in vain")
            with Listener(path) as again:
                end = again.accept()
                end.greet()
                answered(end)
                assert asked.result(PATIENCE_S).live
                assert connection._leading is elsewhere
                elsewhere.settled = True
                connection.close()
                leader.result(PATIENCE_S)

    def test_all_get_their_answers_from_whoever_comes_back(self, path: str) -> None:
        with (
            Listener(path) as listener,
            Client(f"ipc://{path}", lanes=False, timeout=20) as client,
            ThreadPoolExecutor(8) as pool,
        ):
            alive = [pool.submit(client.live) for _ in range(8)]
            end = listener.accept()
            end.greet()
            answered(end, 3)
            for _ in range(3):
                end.socket.close()
                end = listener.accept()
                end.greet()
            until(lambda: sum(each.done() for each in alive) >= 3, "three answers")
            assert len(set(answered(end, 5))) == 5
            assert all(each.result(PATIENCE_S) for each in alive)


class TestAsync:
    def timers(self, loop: asyncio.AbstractEventLoop) -> list[asyncio.TimerHandle]:
        scheduled: list[asyncio.TimerHandle] = loop._scheduled  # type: ignore[attr-defined]
        return [
            timer for timer in scheduled if not timer.cancelled() and "_on_retry" in repr(timer)
        ]

    def test_one_timer_for_all_who_wait_and_none_when_nobody_does(self, path: str) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            with Listener(path) as listener:
                client = AsyncClient(f"ipc://{path}", lanes=False, timeout=PATIENCE_S)
                tasks = [asyncio.create_task(client.live())]
                await asyncio.sleep(0)
                end = listener.accept()
                end.greet()
                await asyncio.to_thread(answered, end)
                assert await tasks[0]
            await asyncio.to_thread(until, lambda: not client._link.connected, "the loss")
            assert self.timers(loop) == []
            tasks = [asyncio.create_task(client.live()) for _ in range(5)]
            for _ in range(50):
                await asyncio.sleep(0.002)
                assert len(self.timers(loop)) <= 1
            assert len(self.timers(loop)) == 1
            with Listener(path) as listener:
                end = await asyncio.to_thread(listener.accept)
                end.greet()
                await asyncio.to_thread(answered, end, 5)
                assert await asyncio.gather(*tasks) == [True] * 5
                assert self.timers(loop) == []
            await asyncio.to_thread(until, lambda: not client._link.connected, "the loss")
            task = asyncio.create_task(client.live())
            await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.sleep(0.5)  # longer than the longest delay
            assert self.timers(loop) == []
            client.close()

        asyncio.run(main())

    def test_a_closed_client_has_no_timer(self, path: str) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            client = AsyncClient(f"ipc://{path}", lanes=False, timeout=PATIENCE_S)
            with Listener(path) as listener:
                task = asyncio.create_task(client.server())
                await asyncio.sleep(0)
                listener.accept()
            await asyncio.to_thread(until, lambda: self.timers(loop), "a timer")
            client.close()
            assert self.timers(loop) == []
            with pytest.raises(Exception, match="the client was closed while"):
                await task
            await asyncio.sleep(0.05)

        asyncio.run(main())

    def test_who_is_no_gateway_is_said_to_every_task_at_once(self, path: str) -> None:
        async def main() -> None:
            client = AsyncClient(f"ipc://{path}", lanes=False, timeout=PATIENCE_S)
            with Listener(path) as listener:
                for _ in range(3):
                    tasks = [asyncio.create_task(client.server()) for _ in range(3)]
                    end = await asyncio.to_thread(listener.accept)
                    end.give(ready(b"PUB"))
                    for found in await asyncio.gather(*tasks, return_exceptions=True):
                        assert isinstance(found, Unavailable)
                        assert "expected the signature of ZMTP" in found.message
                client.close()

        asyncio.run(main())

    def test_who_says_nothing_is_named_when_the_time_is_over(self, path: str) -> None:
        async def main() -> None:
            async with AsyncClient(f"ipc://{path}", lanes=False) as client:
                with pytest.raises(DeadlineExceeded, match="says nothing"):
                    await client.server(timeout=0.05)

        with Listener(path):
            asyncio.run(main())


def test_who_says_nothing_is_named_when_the_time_is_over(path: str) -> None:
    said = pytest.raises(DeadlineExceeded, match="takes the connection and says nothing")
    with Listener(path), Client(f"ipc://{path}") as client, said:
        client.server(timeout=0.05)


@pytest.mark.parametrize("leave", [Client.close, lambda _: None])
def test_a_fork_that_ends_leaves_its_parents_connection_alone(
    path: str, leave: Callable[[Client], None]
) -> None:
    with Listener(path) as listener, ThreadPoolExecutor(1) as pool:
        held = [Client(f"ipc://{path}", lanes=False, timeout=PATIENCE_S)]
        alive = pool.submit(held[0].live)
        end = listener.accept()
        end.greet()
        answered(end)
        assert alive.result(PATIENCE_S)
        pending = held[0].submit("m", number(1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking beside the pool
            pid = os.fork()
        if pid == 0:
            leave(held[0])
            held.clear()
            del pending
            gc.collect()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        until(end.asked, "the parent's request")
        assert not end.gone
        alive = pool.submit(held[0].live)
        answered(end)
        assert alive.result(PATIENCE_S)
        pending.cancel()
        held[0].close()
        assert not listener.called
        assert end.gone


def test_nothing_is_tried_while_nobody_waits(path: str) -> None:
    with (
        Listener(path) as listener,
        Client(f"ipc://{path}", lanes=False, timeout=PATIENCE_S) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        alive = pool.submit(client.live)
        end = listener.accept()
        end.greet()
        answered(end)
        assert alive.result(PATIENCE_S)
        pending = client.submit("m", number(1))
        end.socket.close()
        assert not pending.done()  # which finds the loss
        time.sleep(0.05)
        assert not listener.called
        assert not pending.done()
        assert listener.accept().take()
        pending.cancel()
