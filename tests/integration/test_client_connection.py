"""A client's connection: nobody there, lost, encrypted, closed, inherited by a fork."""

from __future__ import annotations

import json
import os
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zmq

from superbrain.client import (
    Client,
    ClientClosed,
    CurveKeys,
    DeadlineExceeded,
    InvalidArgument,
    Pending,
    Result,
    Unavailable,
)
from superbrain.client.fake import FakeServer
from tests.support.fake_servers import MODELS, ServerProcess, client, number, number_of, server
from tests.support.processes import until

__all__ = ["client", "server"]
pytestmark = pytest.mark.integration


def test_nothing_listening_is_said_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    with (
        Client(f"ipc://{tmp_path}/none.sock") as client,
        pytest.raises(Unavailable, match=r"no superbrain gateway answers at ipc://") as caught,
    ):
        client.infer("echo", number(1))
    assert time.monotonic() - started < 10  # not the 30 s of the timeout
    assert "systemctl status superbraind" in caught.value.mend


def test_nothing_listening_is_neither_live_nor_ready(tmp_path: Path) -> None:
    with Client(f"ipc://{tmp_path}/none.sock") as client:
        assert not client.live()
        assert not client.ready("echo")


def test_a_client_may_be_made_before_its_server(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/infer.sock"
    with Client(endpoint, retry_unavailable=True) as client, ThreadPoolExecutor() as pool:
        waiting = pool.submit(client.infer, "echo", number(1))
        with FakeServer(MODELS, endpoint):
            assert number_of(waiting.result()) == 1


def test_a_server_that_does_not_come_back_is_told_from_one_that_is_slow(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, Client(server.endpoint) as client:
        client.infer("echo", number(1))
        server.kill()
        until(lambda: "was lost and did not come back" in overdue(client), "the loss to be seen")


def overdue(client: Client) -> str:
    with pytest.raises(DeadlineExceeded) as caught:
        client.infer("echo", number(1), timeout=0.2)
    return str(caught.value)


def test_requests_survive_a_server_that_is_killed_and_restarted(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, Client(server.endpoint) as client:
        client.infer("echo", number(0))
        pending: list[Pending[Result]] = []
        for kill in range(3):
            pending += [client.submit("echo", number(kill * 100 + i)) for i in range(100)]
            pending[kill * 100 + 5].result()
            server.kill()
            server.start()
        assert [number_of(each.result()) for each in pending] == list(range(300))


def test_threads_survive_a_server_that_is_killed_and_restarted(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, Client(server.endpoint) as client:
        done = threading.Event()

        def ask(thread: int) -> int:
            count = 0
            while not done.is_set():
                count += 1
                assert number_of(client.infer("echo", number(thread + count))) == thread + count
            return count

        with ThreadPoolExecutor(4) as pool:
            counts = [pool.submit(ask, thread * 100_000) for thread in range(4)]
            for _ in range(4):
                client.infer("echo", number(0))
                server.kill()
                server.start()
            client.infer("echo", number(0))
            done.set()
            assert all(count.result() > 0 for count in counts)


def test_a_curve_server_answers_who_has_the_keys() -> None:
    server_public, server_secret = zmq.curve_keypair()
    public, secret = zmq.curve_keypair()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.set(zmq.CURVE_SERVER, 1)
        router.set(zmq.CURVE_SECRETKEY, server_secret)
        endpoint = f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"
        keys = CurveKeys(server_public.decode(), public.decode(), secret.decode())
        with Client(endpoint, curve=keys) as client, ThreadPoolExecutor() as pool:
            asked = pool.submit(client.live, timeout=10)
            address, _, header = router.recv_multipart()
            request_id = json.loads(header)["id"]
            answer = json.dumps({"live": True, "id": request_id}).encode()
            router.send_multipart([address, b"SB1r", answer])
            assert asked.result()
        with (
            Client(endpoint, curve=CurveKeys("short", "x", "y")) as client,
            pytest.raises(InvalidArgument, match="endpoint and keys that ZeroMQ takes"),
        ):
            client.infer("echo", number(1))


def test_closing_ends_what_is_under_way_in_every_thread(server: FakeServer) -> None:
    client = Client(server.endpoint)
    pending = [client.submit("nap", {"seconds": 0.2}) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(each.result) for each in pending]
        time.sleep(0.05)
        client.close()
        for each in waiting:
            with pytest.raises(ClientClosed):
                each.result(5)
    client.close()
    with pytest.raises(ClientClosed, match="client is closed"):
        client.infer("echo", number(1))


def test_a_fork_gets_a_socket_of_its_own(client: Client) -> None:
    assert number_of(client.infer("echo", number(1))) == 1
    inherited = client.submit("nap", {"seconds": 0.2})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside the server's thread
        pid = os.fork()
    if pid == 0:
        os._exit(_child(client, inherited))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert inherited.result().model_name == "nap"
    assert number_of(client.infer("echo", number(4))) == 4


def _child(client: Client, inherited: Pending[Result]) -> int:
    """Exit status of the child: 0 when all is as it should be."""
    if number_of(client.infer("echo", number(3), timeout=10)) != 3:
        return 1
    try:
        inherited.result(timeout=1)
    except ClientClosed:
        client.close()
        return 0
    return 2


def test_no_descriptor_outlives_its_client(server: FakeServer) -> None:
    def count() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    with Client(server.endpoint) as client:
        client.infer("echo", number(1))
    before = count()
    for _ in range(5):
        with Client(server.endpoint) as client:
            client.infer("echo", number(1))
    # The server notices hang-ups in its own time; its connections are in this process too.
    deadline = time.monotonic() + 5
    while count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert count() <= before
