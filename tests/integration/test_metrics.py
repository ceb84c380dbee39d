"""Metrics of a real appliance, and the HTTP endpoint among clients that mean it no good."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import signal
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from superbrain.app import http_face
from superbrain.app.http_face import MOST_CONNECTIONS, HttpFace
from superbrain.app.metrics import Metrics
from superbrain.cli.main import main
from superbrain.client import Client
from superbrain.domain.durations import STAGES
from tests.support.appliance import PATIENCE_S, Appliance
from tests.support.processes import until
from tests.support.releases import go_live
from tests.support.reports import sample_health

pytestmark = pytest.mark.integration

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]
ASKED = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


# --- a real appliance -----------------------------------------------------------------------------


class Measured:
    """One appliance for all stories, its metrics in a file and by HTTP; every version is new."""

    def __init__(self, appliance: Appliance, path: Path, port: int) -> None:
        self.appliance = appliance
        self.path = path
        self.port = port
        self.numbers = itertools.count(1)

    def ask(self, times: int = 5) -> None:
        """Let the model answer, by the gateway and on a lane."""
        for lanes in (False, True):
            endpoint = self.appliance.endpoint
            with Client(endpoint, lanes=lanes, retry_unavailable=True) as client:
                for _ in range(times):
                    client.infer("adder", {"x": np.zeros((1, 4), np.float32)})

    def get(self, path: str) -> tuple[int, str]:
        """Ask by HTTP."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def series(self) -> Series:
        """Read what is scraped."""
        return parsed(self.get("/metrics")[1])

    def total(self, name: str, **labels: str) -> float:
        """Add up a counter or a histogram's count."""
        wanted = labels.items()
        found = self.series().items()
        return sum(value for (one, pairs), value in found if one == name and wanted <= set(pairs))


def parsed(text: str) -> Series:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    folder = tmp_path_factory.mktemp("metrics")
    path, port = folder / "superbrain.prom", free_port()
    settings = f'[metrics]\nfile = "{path}"\nlisten = "127.0.0.1:{port}"\n'
    with Appliance(folder, settings=settings) as appliance:
        measured = Measured(appliance, path, port)
        go_live(appliance, next(measured.numbers))
        yield measured
    assert not path.exists(), "who has stopped has no figures"


def test_the_file_is_what_a_collector_reads(measured: Measured) -> None:
    series = parsed(measured.path.read_text())
    assert series["superbrain_ready", ()] == 1
    assert stat.S_IMODE(measured.path.stat().st_mode) == 0o644
    assert {name for name, _ in series} == {name for name, _ in measured.series()}


def test_probes_say_that_it_is_alive_and_ready(measured: Measured) -> None:
    assert measured.get("/healthz") == (200, "ok\n")
    assert measured.get("/readyz") == (200, "ok\n")
    assert measured.get("/")[0] == 404


def test_every_answer_is_in_every_stage(measured: Measured) -> None:
    name = "superbrain_request_duration_seconds_count"
    before = measured.total(name, stage="engine")
    measured.ask(5)
    measured.appliance.wait_for(
        lambda: measured.total(name, stage="engine") >= before + 10, "ten more answers"
    )
    series = measured.series()
    version = measured.appliance.health().models[0].version
    mine = (("model", "adder"), ("version", version))
    parts = [
        series["superbrain_request_duration_seconds_sum", (mine[0], ("stage", stage), mine[1])]
        for stage in STAGES
    ]
    assert min(parts[1:]) > 0, "a lone request does not queue"
    assert sum(parts) == pytest.approx(series["superbrain_request_latency_seconds_sum", mine])
    ok = series["superbrain_requests_total", (mine[0], ("outcome", "ok"), mine[1])]
    for stage in STAGES:
        count = series[name, (mine[0], ("stage", stage), mine[1])]
        assert count == ok, stage


def kill_worker(measured: Measured) -> None:
    appliance = measured.appliance
    (worker,) = appliance.health().models[0].workers
    psutil.Process(worker.pid).send_signal(signal.SIGKILL)
    appliance.wait_for(
        lambda: [one for one in appliance.health().models[0].workers if one.pid != worker.pid],
        "another worker",
    )


def kill_gateway(measured: Measured) -> None:
    appliance = measured.appliance
    process = appliance.health().gateway.process
    assert process is not None
    psutil.Process(process.pid).send_signal(signal.SIGKILL)

    def another() -> bool:
        now = appliance.health().gateway.process
        return now is not None and now.pid != process.pid

    appliance.wait_for(another, "another gateway")


def swap(measured: Measured) -> None:
    swaps = measured.total("superbrain_swaps_total", model="adder")
    go_live(measured.appliance, next(measured.numbers))
    measured.appliance.wait_for(
        lambda: measured.total("superbrain_swaps_total", model="adder") == swaps + 1, "its swap"
    )
    assert measured.total("superbrain_deployments", model="adder", state="LIVE") >= 1


@pytest.mark.parametrize("what", [kill_worker, kill_gateway, swap])
def test_no_total_goes_backwards(measured: Measured, what: Callable[[Measured], None]) -> None:
    measured.ask(5)
    gateway, workers = "superbrain_gateway_requests_total", "superbrain_requests_total"
    before_gateway, before_workers = measured.total(gateway), measured.total(workers)
    before = measured.series()
    what(measured)
    measured.ask(5)
    measured.appliance.wait_for(
        lambda: (
            measured.total(gateway) >= before_gateway + 5
            and measured.total(workers) >= before_workers + 10
        ),
        "five more answers by each road",
    )
    after = measured.series()
    kinds = ("_total", "_count", "_sum", "_bucket")
    shrunk = [
        (key, value, after[key])
        for key, value in before.items()
        if key[0].endswith(kinds) and "cpu" not in key[0] and after[key] < value
    ]
    assert not shrunk


def test_silent_connections_keep_nobody_from_the_daemon(measured: Measured) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3 * MOST_CONNECTIONS):
            idle = stack.enter_context(socket.socket())
            idle.settimeout(60)
            idle.connect(("127.0.0.1", measured.port))
        assert measured.appliance.health().ready
        measured.ask(2)
    assert measured.get("/healthz")[0] == 200


def test_the_command_prints_the_same_metrics(
    measured: Measured, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["metrics", "--control", measured.appliance.control_endpoint]) == 0
    assert {name for name, _ in parsed(capsys.readouterr().out)} == {
        name for name, _ in measured.series()
    }


# --- the endpoint alone ---------------------------------------------------------------------------


class Endpoint:
    """An endpoint in a thread of its own."""

    def __init__(self, port: int = 0) -> None:
        self.metrics = Metrics(None)
        self.metrics.publish(sample_health())
        self.face = HttpFace("127.0.0.1", port, self.metrics)
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        task = asyncio.create_task(self.face.run())
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._thread.join()

    def connect(self, receive_bytes: int = 0) -> socket.socket:
        until(lambda: self.face.port, "the endpoint to listen")
        client = socket.socket()
        client.settimeout(PATIENCE_S)
        if receive_bytes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.connect(("127.0.0.1", self.face.port))
        return client

    def asked(self) -> bytes:
        """What comes back for a good request."""
        with self.connect() as client:
            client.sendall(ASKED)
            return heard(client)


def heard(client: socket.socket) -> bytes:
    """Everything until the other end hangs up, however it does."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := client.recv(65536):
            data += piece
    return data


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """An endpoint with two places that waits for a third of a second at most."""
    monkeypatch.setattr(http_face, "PATIENCE_S", 0.3)
    monkeypatch.setattr(http_face, "MOST_CONNECTIONS", 2)
    monkeypatch.setattr(http_face, "AGAIN_S", 0.05)
    with Endpoint() as endpoint:
        yield endpoint
        assert endpoint.asked().endswith(b"ok\n"), "it answers after all that"


def test_who_says_nothing_is_hung_up_on(endpoint: Endpoint) -> None:
    with endpoint.connect() as silent:
        assert heard(silent) == b""


def test_who_says_it_byte_by_byte_is_hung_up_on(endpoint: Endpoint) -> None:
    with endpoint.connect() as slow:
        slow.settimeout(0.02)
        for byte in itertools.cycle(b"GET "):
            try:
                slow.send(bytes([byte]))
                if not slow.recv(1):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break


def test_silent_ones_in_every_place_only_delay_the_next(endpoint: Endpoint) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(endpoint.connect())
        assert endpoint.asked().endswith(b"ok\n")


def test_who_does_not_read_what_he_asked_for_is_hung_up_on(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("superbrain.domain.metrics.text", lambda _health: "x" * (16 << 20))
    endpoint.metrics.publish(sample_health())
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            greedy = stack.enter_context(endpoint.connect(receive_bytes=4096))
            greedy.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert endpoint.asked().endswith(b"ok\n")


def test_a_flood_is_answered_one_after_the_other(endpoint: Endpoint) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: endpoint.asked(), range(48)))
    assert all(answer.endswith(b"ok\n") for answer in answers)


def test_an_endless_head_is_not_read_to_its_end(endpoint: Endpoint) -> None:
    with endpoint.connect() as endless, pytest.raises(ConnectionError):
        endless.sendall(b"a" * (256 << 20))


def test_who_leaves_in_the_middle_leaves_nothing_behind(endpoint: Endpoint) -> None:
    for data in (b"", b"GET /met", ASKED):
        for _ in range(6):
            with endpoint.connect() as leaving:
                leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                leaving.sendall(data)


def test_an_address_that_is_taken_is_a_problem_until_it_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_face, "AGAIN_S", 0.05)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        with Endpoint(port) as endpoint:
            until(endpoint.face.problems, "a problem")
            (problem,) = endpoint.face.problems()
            found = f"nobody can ask on 127.0.0.1 port {port}: Address already in use"
            assert found in problem.message
            taken.close()
            until(lambda: not endpoint.face.problems(), "the address")
            assert endpoint.asked().endswith(b"ok\n")
