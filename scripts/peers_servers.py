"""The servers of `scripts/bench peers`: how each is installed, started, asked and reloaded.

Every peer has an environment of its own below `SUPERBRAIN_BENCH_HOME` (~/.cache/superbrain-bench),
made on first use from scripts/peers/requirements/. One that cannot be installed or started is left
out with the reason.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from scripts.peers_load import Road
from scripts.peers_models import BenchModel
from scripts.peers_roads import Http, Lane, Zmtp, infer_parts
from superbrain.bundle.folder import build
from tests.support.appliance import Appliance

PEERS = Path(__file__).parent / "peers"
HOME = Path(os.environ.get("SUPERBRAIN_BENCH_HOME") or "~/.cache/superbrain-bench").expanduser()
PATIENCE_S = 60.0
BINARY = ("Content-Type: application/octet-stream",)
JSON = ("Content-Type: application/json",)
Command = Callable[[Path, BenchModel, int, Path], list[str]]
MakeRoad = Callable[[BenchModel, int], Road]


class ServerFailed(Exception):
    """A server could not be installed, started or asked."""


class Running(NamedTuple):
    """A started server."""

    road: Road
    start_s: float
    pids: Callable[[], list[int]]
    reload: Callable[[int], None]

    def memory_mib(self) -> float:
        """Proportional memory of all its processes."""
        return sum(map(_pss_bytes, self.pids())) / (1 << 20)

    def reloading(self, times: int) -> Callable[[], bool]:
        """Reload so often in a thread; gives what says whether that is over."""
        numbers = iter(range(1, times + 1))
        return in_background(lambda: self.reload(next(numbers)), times, pause_s=0.5)


class Server:
    """One server: `started` gives it running."""

    def __init__(self, name: str, reload_how: str) -> None:
        self.name = name
        self.reload_how = reload_how

    def started(self, model: BenchModel) -> contextlib.AbstractContextManager[Running]:
        """Start it around `model`; it answers when this returns."""
        raise NotImplementedError


class Peer(Server):
    """A server of others, in an environment of its own."""

    def __init__(
        self,
        name: str,
        environment: str,
        command: Command,
        road: MakeRoad,
        reload_how: str = "restart",
        reload: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__(name, reload_how)
        self._environment = HOME / environment
        self._command = command
        self._road = road
        self._reload = reload

    def prepare(self) -> None:
        """Make the environment if there is none."""
        if (self._environment / "ready").exists():
            return
        print(f"{self.name}: installing into {self._environment} …", file=sys.stderr, flush=True)
        shutil.rmtree(self._environment, ignore_errors=True)
        wanted = PEERS / "requirements" / f"{self._environment.name}.txt"
        python = self._environment / "bin/python"
        for command in (
            [sys.executable, "-m", "venv", str(self._environment)],
            [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(wanted)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ServerFailed(f"it does not install: {done.stderr.strip()[-300:]}")
        (self._environment / "ready").touch()

    @contextlib.contextmanager
    def started(self, model: BenchModel) -> Iterator[Running]:
        """Start its process on a free port."""
        port = _free_port()
        with tempfile.TemporaryDirectory(prefix="peer-") as folder:
            command = self._command(self._environment, model, port, Path(folder))
            processes = [self._spawn(command, model, port, folder)]
            road = self._road(model, port)
            begin = time.monotonic()
            try:
                _first_answer(road, processes[-1], Path(folder) / "log")
                start_s = time.monotonic() - begin

                def reload(_number: int) -> None:
                    if self._reload is not None:
                        self._reload(port, processes[-1].pid)
                        return
                    _end(processes[-1])
                    processes.append(self._spawn(command, model, port, folder))
                    _first_answer(road, processes[-1], Path(folder) / "log")

                yield Running(road, start_s, lambda: _tree(processes[-1].pid), reload)
            finally:
                _end(processes[-1])

    def _spawn(
        self, command: Sequence[str], model: BenchModel, port: int, folder: str
    ) -> subprocess.Popen[bytes]:
        packages = next(self._environment.glob("lib/python*/site-packages"))
        environment = os.environ | {
            "MODEL_PATH": str(model.path),
            "PORT": str(port),
            "PYTHONPATH": f"{PEERS}:{packages}",
            "PEER_PATH": f"{PEERS}:{packages}",
            "PATH": f"{self._environment}/bin:{os.environ['PATH']}",
            # For Triton: the interpreter of its stub, and the libraries that it was linked with.
            "LD_LIBRARY_PATH": f"{sys.base_prefix}/lib:{packages}/nvidia_pytriton.libs",
        }
        with (Path(folder) / "log").open("ab") as log:
            return subprocess.Popen(
                command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )


class Superbrain(Server):
    """superbrain itself, with the bundle in its store, as it starts with a host."""

    def __init__(self, name: str, road: Callable[[BenchModel, Appliance], Road]) -> None:
        super().__init__(name, "new version dropped into the inbox")
        self._road = road

    @contextlib.contextmanager
    def started(self, model: BenchModel) -> Iterator[Running]:
        """Start the daemon on what it served before."""
        with tempfile.TemporaryDirectory() as folder, Appliance(Path(folder)) as appliance:
            keys = [appliance.author.signing]
            appliance.drop(build(model.folder, keys, appliance.work).path)
            appliance.wait_live(model.name, "1.0.0")
            appliance.stop()
            begin = time.monotonic()
            appliance.start()
            road = self._road(model, appliance)
            _first_answer(road, appliance.process, appliance.log)
            start_s = time.monotonic() - begin
            releases = Path(folder) / "releases"
            releases.mkdir()
            made = model._replace(folder=shutil.copytree(model.folder, releases / model.name))
            built = {n: build(made.release(n), keys, appliance.work).path for n in range(2, 8)}

            def reload(number: int) -> None:
                appliance.drop(built[number + 1])
                appliance.wait_live(model.name, f"{number + 1}.0.0")

            def pids() -> list[int]:
                return _tree(appliance.process.pid) if appliance.process else []

            yield Running(road, start_s, pids, reload)


# --- each server --------------------------------------------------------------------------------


def _script(name: str, *more: str) -> Command:
    def command(environment: Path, _model: BenchModel, port: int, _folder: Path) -> list[str]:
        options = [option.format(port=port) for option in more]
        return [str(environment / "bin/python"), str(PEERS / name), *options]

    return command


def _raw(path: str) -> MakeRoad:
    return lambda model, port: Http(port, path, model.x.tobytes(), model.expected, BINARY)


def _in_json(path: str) -> MakeRoad:
    def road(model: BenchModel, port: int) -> Road:
        body = json.dumps({"x": base64.b64encode(model.x.tobytes()).decode()}).encode()
        return Http(port, path, body, base64.b64encode(model.expected), JSON)

    return road


def _bentoml(environment: Path, _model: BenchModel, port: int, _folder: Path) -> list[str]:
    server = [str(environment / "bin/bentoml"), "serve", "bentoml_server:Inference"]
    return [*server, "--working-dir", str(PEERS), "--host", "127.0.0.1", "--port", str(port)]


def _mlserver(environment: Path, _model: BenchModel, port: int, folder: Path) -> list[str]:
    settings = {"debug": False, "parallel_workers": 0, "http_port": port, "host": "127.0.0.1"}
    settings |= {"grpc_port": _free_port(), "metrics_port": _free_port()}
    model = {"name": "m", "implementation": "mlserver_runtime.Inference"}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return [str(environment / "bin/mlserver"), "start", str(folder)]


def _mlserver_road(model: BenchModel, port: int) -> Road:
    data = [base64.b64encode(model.x.tobytes()).decode()]
    tensor = {"name": "x", "shape": [1], "datatype": "BYTES", "data": data}
    body = json.dumps({"inputs": [tensor]}).encode()
    return Http(port, "/v2/models/m/infer", body, base64.b64encode(model.expected), JSON)


def _triton(environment: Path, model: BenchModel, port: int, folder: Path) -> list[str]:
    """Use the Triton binary that pytriton carries, with its Python backend, directly."""
    package = next(environment.glob("lib/python*/site-packages/pytriton/tritonserver"))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    backends, repository = folder / "backends", folder / "models"
    if not backends.exists():
        shutil.copytree(package / "backends", backends)
        stub = package / "python_backend_stubs" / version / "triton_python_backend_stub"
        shutil.copy(stub, backends / "python")
        (repository / "m/1").mkdir(parents=True)
        shutil.copy(PEERS / "triton_model.py", repository / "m/1/model.py")
        sizes = ", ".join(map(str, model.x.shape))
        (repository / "m/config.pbtxt").write_text(
            f'name: "m"\nbackend: "python"\n'
            f'input [{{ name: "x", data_type: TYPE_FP32, dims: [{sizes}] }}]\n'
            f'output [{{ name: "y", data_type: TYPE_FP32, dims: [-1] }}]\n'
            f"instance_group [{{ count: 1, kind: KIND_CPU }}]\n"
        )
    return [
        str(package / "bin/tritonserver"),
        *("--model-repository", str(repository), "--backend-directory", str(backends)),
        *("--http-address", "127.0.0.1", "--http-port", str(port)),
        *("--allow-grpc", "false", "--allow-metrics", "false"),
        *("--model-control-mode", "explicit", "--load-model", "m"),
    ]


def _triton_road(model: BenchModel, port: int) -> Road:
    size = {"binary_data_size": model.x.nbytes}
    tensor = {"name": "x", "shape": model.x.shape, "datatype": "FP32", "parameters": size}
    wanted = {"name": "y", "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [tensor], "outputs": [wanted]}).encode()
    headers = (*BINARY, f"Inference-Header-Content-Length: {len(head)}")
    body = head + model.x.tobytes()
    return Http(port, "/v2/models/m/infer", body, model.expected, headers)


def _load_again(port: int, _pid: int) -> None:
    """Reload by the model repository's own interface."""
    url = f"http://127.0.0.1:{port}/v2/repository/models/m/load"
    request = urllib.request.Request(url, data=b"{}", method="POST")
    with urllib.request.urlopen(request, timeout=PATIENCE_S):  # noqa: S310
        pass


def _deploy_again(_port: int, pid: int) -> None:
    """Let the script deploy anew, and give it time."""
    os.kill(pid, signal.SIGHUP)
    time.sleep(4)


def _rep(model: BenchModel, port: int) -> Road:
    return Zmtp(("127.0.0.1", port), b"REQ", [b"", model.x.tobytes()], model.expected)


def gateway_road(model: BenchModel, appliance: Appliance) -> Road:
    """Give the road through superbrain's gateway, as a bare DEALER takes it."""
    parts = infer_parts(model.name, model.input, list(model.x.shape), model.x.tobytes())
    path = appliance.endpoint.removeprefix("ipc://")
    return Zmtp(path, b"DEALER", parts, model.expected)


def lane_road(model: BenchModel, appliance: Appliance) -> Road:
    """Give the road by superbrain's lanes."""
    return Lane(appliance.endpoint.removeprefix("ipc://"), model)


SERVERS: dict[str, Server] = {
    server.name: server
    for server in (
        Superbrain("superbrain lanes", lane_road),
        Superbrain("superbrain ZeroMQ", gateway_road),
        Peer("pyzmq REP", "pyzmq", _script("pyzmq_server.py"), _rep),
        Peer("FastAPI", "fastapi", _script("fastapi_server.py"), _raw("/infer")),
        Peer(
            "mosec",
            "mosec",
            _script("mosec_server.py", "--address", "127.0.0.1", "--port", "{port}"),
            _raw("/inference"),
        ),
        Peer("LitServe", "litserve", _script("litserve_server.py"), _in_json("/predict")),
        Peer("BentoML", "bentoml", _bentoml, _in_json("/infer")),
        Peer("MLServer", "mlserver", _mlserver, _mlserver_road, "repository load", _load_again),
        Peer(
            "Ray Serve", "ray", _script("ray_server.py"), _raw("/infer"), "redeploy", _deploy_again
        ),
        Peer("Triton", "triton", _triton, _triton_road, "repository load", _load_again),
    )
}


def prepared(name: str) -> Server:
    """Find a server by name, installed.

    Raises:
        ServerFailed: there is none, or it does not install.
    """
    if name not in SERVERS:
        raise ServerFailed(f"expected one of {', '.join(SERVERS)}")
    server = SERVERS[name]
    if isinstance(server, Peer):
        server.prepare()
    return server


def in_background(step: Callable[[], None], times: int, pause_s: float) -> Callable[[], bool]:
    """Take a step so often in a thread, with a pause behind each; gives whether that is over."""

    def carry_out() -> None:
        for _ in range(times):
            step()
            time.sleep(pause_s)

    thread = threading.Thread(target=carry_out, daemon=True)
    thread.start()
    return lambda: not thread.is_alive()


# --- processes ----------------------------------------------------------------------------------


def _first_answer(road: Road, process: subprocess.Popen[bytes] | None, log: Path) -> None:
    """Ask until the right answer comes."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if process is not None and process.poll() is not None:
            break
        with contextlib.suppress(OSError):
            if _one_answer(road):
                return
        time.sleep(0.02)
    text = log.read_text(errors="replace").strip()[-300:] if log.exists() else ""
    raise ServerFailed(f"no right answer within {PATIENCE_S:g} s: {' '.join(text.split())}")


def _one_answer(road: Road) -> bool:
    with road.connect() as connection:
        connection.settimeout(5)
        connection.sendall(road.request)
        received = bytearray()
        while not (count := road.answer_bytes(received)):
            data = connection.recv(1 << 18)
            if not data:
                return False
            received += data
        return road.is_right(bytes(received[:count]))


def _tree(pid: int) -> list[int]:
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [pid, *(child.pid for child in root.children(recursive=True))]
    return []


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and everything it started."""
    family: list[Any] = []
    for pid in _tree(process.pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            family.append(psutil.Process(pid))
    process.terminate()
    _, alive = psutil.wait_procs(family, timeout=5)
    for one in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


def _pss_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
