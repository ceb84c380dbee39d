"""The client over real sockets: many threads, many requests, lost connections, forks, asyncio."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pytest
import zmq

from superbrain.client import (
    AsyncClient,
    Cancelled,
    Client,
    ClientClosed,
    CurveKeys,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    Pending,
    RequestError,
    ResourceExhausted,
    Result,
    Unavailable,
)
from superbrain.client.fake import FakeClient, FakeModel, FakeServer

pytestmark = pytest.mark.integration

Inputs = dict[str, Any]


def echo(request: Inputs) -> Inputs:
    return {"y": request["x"]}


def nap(request: Inputs) -> Inputs:
    time.sleep(float(request["seconds"]))
    return {}


def raising(error: Exception) -> Callable[[Inputs], Inputs]:
    def fail(_: Inputs) -> Inputs:
        raise error

    return fail


MODELS = {
    "echo": FakeModel(echo),
    "typed": FakeModel(echo, {"x": "FP32[-1]"}, {"y": "FP32[-1]"}, version="2.0.0"),
    "nap": FakeModel(nap, {"seconds": "FP64[]"}),
    "label": FakeModel(lambda request: {"label": request["image"][::-1]}, {"image": "BYTES[]"}),
    "proving": FakeModel(echo, ready=False, reason="golden cases are being proven"),
}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(MODELS) as server:
        yield server


@pytest.fixture
def client(server: FakeServer) -> Iterator[Client]:
    with Client(server.endpoint, timeout=20) as client:
        yield client


def number(value: int) -> Inputs:
    return {"x": np.array([value])}


def number_of(result: Result) -> int:
    return int(result["y"][0])


SLOW_ECHO = """
import signal, sys, time
from superbrain.client.fake import FakeServer
def echo(request):
    time.sleep(0.001)
    return {"y": request["x"]}
with FakeServer({"echo": echo}, sys.argv[1]):
    print("ready", flush=True)
    signal.pause()
"""
# As little as can be between receiving and sending.
BARE_ECHO = """
import sys, zmq
router = zmq.Context().socket(zmq.ROUTER)
router.bind(sys.argv[1])
print("ready", flush=True)
head = b'{"model_name":"echo","model_version":"1","outputs":'
head += b'[{"name":"y","datatype":"FP32","shape":[25]}],"id":"'
while True:
    *route, verb, header, tensor = router.recv_multipart()
    request_id = header.split(b'"id":"', 1)[1].split(b'"', 1)[0]
    router.send_multipart([*route, b"SB1r", head + request_id + b'"}', tensor])
"""


class ServerProcess:
    """An echo server in a process of its own, to be killed and started again."""

    def __init__(self, folder: Path, code: str = SLOW_ECHO) -> None:
        self._code = code
        self.endpoint = f"ipc://{folder}/infer.sock"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-c", self._code, self.endpoint]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()


# --- one request ----------------------------------------------------------------------------------


def test_bytes_go_in_and_come_out(client: Client) -> None:
    result = client.infer("label", {"image": b"abc"})
    assert result.text("label") == "cba"
    assert result.model_version == "1.0.0"


def test_a_list_takes_the_datatype_of_the_interface(client: Client, server: FakeServer) -> None:
    assert client.infer("typed", {"x": [1, 2.5]})["y"].dtype == np.float32
    assert server.requests[-1].inputs["x"].dtype == np.float32


def test_an_array_of_another_dtype_is_refused_by_the_server(client: Client) -> None:
    with pytest.raises(InvalidArgument, match=r"expected FP32\[-1\], found FP64\[2\]"):
        client.infer("typed", {"x": np.array([1, 2.5])})


def test_a_new_version_with_another_interface_is_noticed(
    client: Client, server: FakeServer
) -> None:
    client.infer("typed", {"x": [1]})
    server.models["typed"] = FakeModel(echo, {"x": "INT64[-1]"}, version="3.0.0")
    assert client.infer("typed", {"x": [1]})["y"].dtype == np.int64


def test_large_tensors_arrive_whole_and_writable(client: Client) -> None:
    array = np.random.default_rng(0).random((3, 1000, 1000))
    y = client.infer("echo", {"x": array})["y"]
    assert np.array_equal(y, array)
    y += 1


def test_timeout_and_priority_travel_with_the_request(client: Client, server: FakeServer) -> None:
    client.infer("echo", number(1), timeout=5, priority=3)
    parameters = server.requests[-1].parameters
    assert parameters.priority == 3
    assert 4000 < parameters.timeout_ms <= 5000


def test_the_server_can_be_asked_about_itself_and_its_models(client: Client) -> None:
    assert client.live()
    assert client.server().name == "superbrain-fake"
    assert [model.name for model in client.models()] == list(MODELS)
    assert client.metadata("typed").inputs[0].shape == [-1]
    assert client.ready("echo")
    assert not client.ready("proving")
    assert not client.ready("unknown")
    assert not client.ready()


@pytest.mark.parametrize("error", [ResourceExhausted("full"), NotFound("none"), Internal("broken")])
def test_errors_arrive_as_what_they_were(
    client: Client, server: FakeServer, error: RequestError
) -> None:
    error.mend = "slow down"
    server.models["echo"] = FakeModel(raising(error))
    with pytest.raises(type(error), match=f"{error.message}. slow down"):
        client.infer("echo", number(1))


def test_a_bug_in_the_model_is_internal(client: Client, server: FakeServer) -> None:
    server.models["echo"] = FakeModel(raising(ValueError("bug")))
    with pytest.raises(Internal, match="ValueError: bug"):
        client.infer("echo", number(1))


# --- waiting --------------------------------------------------------------------------------------


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
        client.wait_ready("proving", timeout=0.1)
    timer.join()


def test_unavailable_is_raised_or_outwaited_as_asked(server: FakeServer, client: Client) -> None:
    with pytest.raises(Unavailable, match="golden cases"):
        client.infer("proving", number(1))
    timer = threading.Timer(0.1, server.models.__setitem__, ("proving", FakeModel(echo)))
    timer.start()
    with Client(server.endpoint, retry_unavailable=True) as patient:
        assert number_of(patient.infer("proving", number(1))) == 1
    timer.join()


# --- many requests --------------------------------------------------------------------------------


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


# --- nobody there ---------------------------------------------------------------------------------


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
        with pytest.raises(DeadlineExceeded, match="was lost and did not come back"):
            client.infer("echo", number(1), timeout=0.2)


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


# --- closing and forking --------------------------------------------------------------------------


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


# --- asyncio --------------------------------------------------------------------------------------


def test_two_hundred_tasks_share_one_async_client(server: FakeServer) -> None:
    async def main() -> list[int]:
        async with AsyncClient(server.endpoint) as client:
            requests = [client.infer("echo", number(i)) for i in range(200)]
            return [number_of(result) for result in await asyncio.gather(*requests)]

    assert asyncio.run(main()) == list(range(200))


def test_a_cancelled_task_forgets_its_request(server: FakeServer) -> None:
    async def main() -> int:
        async with AsyncClient(server.endpoint) as client:
            await client.infer("echo", number(0))
            task = asyncio.create_task(client.infer("nap", {"seconds": np.array(0.1)}))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(client._link.ledger) == 0
            return number_of(await client.infer("echo", number(1)))

    assert asyncio.run(main()) == 1


def test_the_async_client_answers_like_the_other(server: FakeServer) -> None:
    async def main() -> None:
        async with AsyncClient(server.endpoint) as client:
            assert await client.live()
            assert not await client.ready()
            assert await client.ready("echo")
            await client.wait_ready("echo", timeout=5)
            assert (await client.server()).name == "superbrain-fake"
            assert [model.name for model in await client.models()] == list(MODELS)
            assert (await client.metadata("typed")).versions == ["2.0.0"]
            assert (await client.infer("typed", {"x": [1]}))["y"].dtype == np.float32
            many = client.infer_many("echo", (number(i) for i in range(50)), window=4)
            assert [number_of(result) async for result in many] == list(range(50))
            with pytest.raises(DeadlineExceeded):
                await client.infer("nap", {"seconds": 0.2}, timeout=0.05)
            with pytest.raises(Unavailable, match="golden cases"):
                await client.infer("proving", number(1))
            task = asyncio.create_task(client.infer("nap", {"seconds": 0.2}))
            await asyncio.sleep(0.02)
        with pytest.raises(ClientClosed):
            await task
        with pytest.raises(ClientClosed):
            await client.infer("echo", number(1))

    asyncio.run(main())


def test_async_requests_survive_a_restart_and_nobody_there_is_said(tmp_path: Path) -> None:
    async def main(server: ServerProcess) -> list[int]:
        async with AsyncClient(server.endpoint) as client:
            await client.infer("echo", number(0))
            tasks = [asyncio.create_task(client.infer("echo", number(i))) for i in range(100)]
            await tasks[5]
            server.kill()
            await asyncio.to_thread(server.start)
            return [number_of(result) for result in await asyncio.gather(*tasks)]

    async def nobody() -> None:
        async with AsyncClient(f"ipc://{tmp_path}/none.sock") as client:
            with pytest.raises(Unavailable, match="no superbrain gateway"):
                await client.infer("echo", number(1))

    with ServerProcess(tmp_path) as server:
        assert asyncio.run(main(server)) == list(range(100))
    asyncio.run(nobody())


# --- the fake, and what the client costs ----------------------------------------------------------


def test_a_fake_client_brings_its_own_server() -> None:
    with FakeClient({"double": lambda request: {"y": request["x"] * 2}}) as client:
        assert number_of(client.infer("double", number(4))) == 8
        assert client.fake.requests[0].model == "double"
