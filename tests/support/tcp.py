"""Keys, folder and configuration of an appliance's TCP face, as an operator makes them.

>>> with TcpAppliance(tmp_path) as appliance:
...     appliance.allow("camera")
...     with appliance.tcp_client("camera") as client: ...
"""

from __future__ import annotations

import shutil
import socket
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import zmq

from superbrain.cli.main import main
from superbrain.client import Client, CurveKeys
from superbrain.domain import ctl
from superbrain.domain import operations as op
from superbrain.domain.health import TcpFacts
from superbrain.wire.curve import Certificate, certificate_text
from tests.support.appliance import Appliance
from tests.support.processes import PATIENCE_S, Child

FROM_FACE: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ctl.FromTcpFace)
SETTINGS = """
[tcp]
endpoints = ["{endpoint}"]
secret_key = "{folder}/server.key"
clients = "{folder}/clients"
"""


def free_endpoint(host: str = "127.0.0.1") -> str:
    """Find an address that nobody listens on now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


class TcpAppliance(Appliance):
    """An appliance that also listens on TCP; the client `camera` may connect from the start."""

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        tcp: str = "",
        **options: Any,  # noqa: ANN401
    ) -> None:
        self.keys = folder / "curve"
        self.clients = self.keys / "clients"
        self.clients.mkdir(parents=True)
        self.clients.chmod(0o755)
        self.tcp_endpoint = free_endpoint(host)
        settings = SETTINGS.format(endpoint=self.tcp_endpoint, folder=self.keys) + tcp
        super().__init__(folder, settings=settings + options.pop("settings", ""), **options)
        self.make_keys("server")
        self.make_keys("camera")
        self.allow("camera", reload=False)

    def start(self, *program: str) -> None:
        """Start the daemon and wait until its TCP face is open."""
        super().start(*program)
        self.wait_for(lambda: self.tcp().running, "the TCP face to open")

    def make_keys(self, name: str) -> None:
        """Make a pair with the command."""
        assert main(["access", "generate", name, "--directory", str(self.keys)]) == 0

    def allow(self, name: str, *, reload: bool = True) -> None:
        """Let a client connect."""
        file = str(self.keys / f"{name}.pub")
        assert main(["access", "allow", file, "--folder", str(self.clients)]) == 0
        if reload:
            self.reload()

    def deny(self, name: str) -> None:
        """Let a client connect no more."""
        assert main(["access", "deny", name, "--folder", str(self.clients)]) == 0
        self.reload()

    def reload(self) -> None:
        self.ask(op.Reload(), op.Outcome)

    def tcp(self) -> TcpFacts:
        """Give what health says of the TCP face."""
        facts = self.health().tcp
        assert facts is not None
        return facts

    def curve(self, name: str, server: str = "server") -> CurveKeys:
        return CurveKeys.load(self.keys / f"{server}.pub", self.keys / f"{name}.key")

    def tcp_client(self, name: str, **options: Any) -> Client:  # noqa: ANN401 - passed on
        """Give a client by TCP."""
        return Client(self.tcp_endpoint, curve=self.curve(name), **options)

    def make_client(self, name: str) -> partial[Client]:
        """Give what `Load` makes its clients with."""
        return partial(self.tcp_client, name)

    def forget_keys(self) -> None:
        shutil.rmtree(self.keys)


class FaceChild(Child):
    """A TCP face process alone, in front of a `Stage`'s gateway, with one client allowed."""

    def __init__(self, folder: Path, gateway: str, **options: int) -> None:
        self.folder = folder
        self.endpoint = free_endpoint()
        self.server, self.client = certificate(folder / "server"), certificate(folder / "client")
        (folder / "clients").mkdir()
        (folder / "clients").chmod(0o755)
        self.allow("client", self.client)
        limits = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._context: zmq.Context[Any] = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []
        super().__init__(
            [
                *("-I", "-m", "superbrain.serve.tcp_face", "--bind", self.endpoint),
                *("--gateway", gateway.removeprefix("ipc://")),
                *("--secret-key", str(folder / "server.key")),
                *("--clients", str(folder / "clients")),
                *(word.replace("_", "-") for word in limits),
            ],
            FROM_FACE,
        )
        self.hear(ctl.TcpReady)

    def allow(self, name: str, pair: Certificate) -> None:
        text = certificate_text(Certificate(pair.public), name)
        (self.folder / "clients" / f"{name}.pub").write_text(text)

    def figures(self) -> ctl.TcpPong:
        return self.order(ctl.Ping(), ctl.TcpPong)

    def close(self) -> None:
        for dealer in self._sockets:
            dealer.close()
        self._context.term()
        super().close()

    def dealer(self, **options: int) -> zmq.Socket[bytes]:
        """Give a connected DEALER of the client's, with socket options by name."""
        socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._sockets.append(socket)
        socket.linger = 0
        socket.rcvtimeo = int(PATIENCE_S * 1000)
        speak_curve(socket, self.server.public, self.client)
        for option, value in options.items():
            socket.set(getattr(zmq, option), value)
        socket.connect(self.endpoint)
        return socket


def certificate(path: Path) -> Certificate:
    """Make a pair, and write PATH.key."""
    public, secret = zmq.curve_keypair()
    pair = Certificate(public.decode(), secret.decode())
    key = path.with_suffix(".key")
    key.touch(mode=0o600)
    key.write_text(certificate_text(pair, path.name))
    return pair


def speak_curve(socket: zmq.Socket[bytes], server: str, pair: Certificate) -> None:
    """Let a socket connect with these keys."""
    socket.curve_serverkey = server.encode()
    socket.curve_publickey = pair.public.encode()
    socket.curve_secretkey = pair.secret.encode()
