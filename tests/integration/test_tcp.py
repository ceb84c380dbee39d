"""The TCP face: who gets in, who does not and learns why, and what it keeps through bad days."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from superbrain.cli.main import main
from superbrain.client import AsyncClient, Client, CurveKeys, InvalidArgument, Unavailable
from tests.support.load import Load
from tests.support.releases import answer, go_live, release
from tests.support.tcp import TcpAppliance

pytestmark = pytest.mark.integration

ZEROS = np.zeros((1, 4), np.float32)
REFUSED_WITHIN_S = 60.0  # they take milliseconds


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TcpAppliance]:
    with TcpAppliance(tmp_path_factory.mktemp("tcp")) as appliance:
        go_live(appliance, 1)
        appliance.make_keys("stranger")
        appliance.make_keys("impostor")  # whose server is another one
        yield appliance


def ask(client: Client) -> float:
    return float(client.infer("adder", {"x": ZEROS})["y"][0, 0])


def refused(client: Client) -> str:
    with client, pytest.raises(Unavailable) as caught:
        ask(client)
    return str(caught.value)


def face(appliance: TcpAppliance) -> psutil.Process:
    process = appliance.tcp().process
    assert process is not None
    return psutil.Process(process.pid)


# --- who gets in --------------------------------------------------------------------------------


def test_a_client_whose_key_is_allowed_gets_answers(appliance: TcpAppliance) -> None:
    with appliance.tcp_client("camera") as client:
        assert ask(client) == 1
    (accepted, *_) = appliance.wait_for(
        lambda: appliance.logged("tcp_client_accepted"), "the line in the log"
    )
    assert accepted["told"]["client"] == "camera"
    assert accepted["told"]["address"] == "127.0.0.1"


def test_an_asyncio_client_gets_answers(appliance: TcpAppliance) -> None:
    async def talk() -> list[float]:
        async with AsyncClient(appliance.tcp_endpoint, curve=appliance.curve("camera")) as client:
            results = await asyncio.gather(
                *(client.infer("adder", {"x": ZEROS + n}) for n in b"123")
            )
        return [float(result["y"][0, 0]) for result in results]

    assert asyncio.run(talk()) == [50, 51, 52]


def test_the_command_asks_by_tcp(
    appliance: TcpAppliance, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = ["--curve-server", f"{appliance.keys}/server.pub"]
    keys += ["--curve-key", f"{appliance.keys}/camera.key"]
    where = ["--endpoint", appliance.tcp_endpoint, *keys]
    assert main(["infer", "adder", "--input", "x=[[1, 2, 3, 4]]", "--json", *where]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"][0]["data"] == [2, 3, 4, 5]
    assert main(["models", *where]) == 0
    assert "adder" in capsys.readouterr().out


# --- who does not -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda site: site.tcp_client("stranger"), "does not allow this program's key"),
        (
            lambda site: Client(site.tcp_endpoint, curve=site.curve("camera", "impostor")),
            "the server's public key is another one",
        ),
        (lambda site: Client(site.tcp_endpoint), "expects CURVE keys"),
        (
            lambda site: Client(site.endpoint, curve=site.curve("camera")),
            "does not speak CURVE as this program does",
        ),
    ],
    ids=["unknown key", "another server", "no keys", "keys for a Unix socket"],
)
def test_who_may_not_is_told_why(
    appliance: TcpAppliance, make: Callable[[TcpAppliance], Client], found: str
) -> None:
    client = make(appliance)
    client.timeout = REFUSED_WITHIN_S
    assert found in refused(client)


def test_refusals_are_counted_and_logged_with_key_and_address(appliance: TcpAppliance) -> None:
    before = appliance.tcp().refused
    refused(appliance.tcp_client("stranger", timeout=REFUSED_WITHIN_S))
    appliance.wait_for(lambda: appliance.tcp().refused > before, "the refusal to be counted")
    key = appliance.curve("stranger").public

    def told() -> bool:
        lines = [fields["told"] for fields in appliance.logged("tcp_client_refused")]
        return any(fields.get("key") == key for fields in lines) or len(lines) >= 20  # no more then

    appliance.wait_for(told, "the line in the log")


def test_reload_lets_in_and_cuts_off_and_leaves_the_others_alone(appliance: TcpAppliance) -> None:
    with appliance.tcp_client("camera") as camera, appliance.tcp_client("stranger") as stranger:
        assert ask(camera) == 1
        assert "superbrain access allow" in refused_again(stranger)
        appliance.allow("stranger")
        assert ask(stranger) == 1
        appliance.wait_for(lambda: appliance.tcp().clients >= 2, "both to be counted")
        before = len(appliance.logged("tcp_client_accepted"))
        appliance.deny("stranger")
        appliance.wait_for(lambda: appliance.tcp().clients < 2, "the stranger to be cut")
        assert "superbrain access allow" in refused_again(stranger)
        assert ask(camera) == 1  # over the connection that it had
        assert len(appliance.logged("tcp_client_accepted")) == before


def refused_again(client: Client) -> str:
    with pytest.raises(Unavailable) as caught:
        ask(client)
    return str(caught.value)


def test_a_folder_that_others_may_write_lets_nobody_in(appliance: TcpAppliance) -> None:
    appliance.clients.chmod(0o777)
    try:
        appliance.reload()
        assert "does not allow" in refused(appliance.tcp_client("camera", timeout=60))
        (problem,) = [p for p in appliance.health().problems if p.subject == "tcp"]
        assert "writable for its owner only" in problem.message
        assert answer(appliance) == 1  # by the Unix socket
    finally:
        appliance.clients.chmod(0o755)
        appliance.reload()
    with appliance.tcp_client("camera") as client:
        assert ask(client) == 1


# --- bad days -----------------------------------------------------------------------------------


def test_swaps_kills_and_a_restart_under_tcp_load_lose_no_answer(tmp_path: Path) -> None:
    with TcpAppliance(tmp_path, host="::1") as appliance:
        go_live(appliance, 1)
        with Load(appliance.make_client("camera"), clients=3) as load:
            for number in (2, 3):
                appliance.drop(release(appliance, number))
                appliance.wait_for(partial(seen, load, number), f"an answer of version {number}")
            for end in (kill_face, kill_gateway, restart):
                end(appliance)
                appliance.wait_for(partial(went_on, load, load.answered), "answers to go on")
        load.assert_flawless()
        assert load.newest == 3


def seen(load: Load, number: int) -> bool:
    return load.newest >= number


def went_on(load: Load, answered: int) -> bool:
    return load.answered > answered + 20


def kill_face(appliance: TcpAppliance) -> None:
    restarts = appliance.tcp().restarts
    face(appliance).send_signal(signal.SIGKILL)
    appliance.wait_for(
        lambda: appliance.tcp().restarts > restarts and appliance.tcp().running, "a new face"
    )


def kill_gateway(appliance: TcpAppliance) -> None:
    gateway = appliance.health().gateway
    assert gateway.process is not None
    psutil.Process(gateway.process.pid).kill()
    appliance.wait_for(lambda: appliance.health().gateway.restarts > 0, "a new gateway")


def restart(appliance: TcpAppliance) -> None:
    appliance.kill()
    appliance.start()


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda site: (site.keys / "server.key").chmod(0o640), "readable and writable for its own"),
        (lambda site: site.forget_keys(), "No such file"),
    ],
    ids=["readable by others", "no folder"],
)
def test_a_secret_key_that_cannot_be_used_keeps_tcp_closed_and_all_else_open(
    tmp_path: Path, spoil: Callable[[TcpAppliance], object], found: str
) -> None:
    appliance = TcpAppliance(tmp_path, start=False)
    spoil(appliance)
    with appliance:
        super(TcpAppliance, appliance).start()
        problems = appliance.wait_for(
            lambda: [p for p in appliance.health().problems if p.subject == "tcp"], "the problem"
        )
        assert found in problems[0].message
        assert problems[0].severity == "critical"
        assert not appliance.tcp().running
        host, _, port = appliance.tcp_endpoint.removeprefix("tcp://").rpartition(":")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)))
        with appliance.client() as client:
            assert client.live()


def test_keys_are_loaded_from_certificates_only(tmp_path: Path) -> None:
    (tmp_path / "no.pub").write_text("ssh-ed25519 AAAA")
    with pytest.raises(InvalidArgument, match=r"no\.pub: expected a CURVE certificate"):
        CurveKeys.load(tmp_path / "no.pub", tmp_path / "no.pub")
    with pytest.raises(InvalidArgument, match="No such file"):
        CurveKeys.load(tmp_path / "none.pub", tmp_path / "none.key")
