"""A child's control channel: every reply goes to the order it answers."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from superbrain import serve
from superbrain.deploy.child import Child, ChildError
from superbrain.deploy.gateway import GATEWAY_MODULE, GatewayKeeper
from superbrain.domain import ctl
from superbrain.host.events import CHILDREN_TELL, Event
from superbrain.wire.messages import ModelMetadata

pytestmark = pytest.mark.integration


def route(model: str = "adder", version: str = "1", *lanes: ctl.LaneAddress) -> ctl.Route:
    return ctl.Route(
        model=model,
        version=version,
        deployment_id=1,
        lanes=list(lanes),
        metadata=ModelMetadata(model, [version], "superbrain", [], []),
        queue_size=8,
        request_timeout_ms=1000,
    )


def test_a_condemned_child_fails_its_order_with_the_verdict(tmp_path: Path) -> None:
    async def scene() -> tuple[ChildError, str]:
        arguments = ("--endpoint", f"ipc://{tmp_path}/g.sock")
        child = await Child.spawn("gateway", GATEWAY_MODULE, arguments)
        waiting = asyncio.create_task(child.order(ctl.Open(), ctl.WorkerPong, 10))
        await asyncio.sleep(0)  # the order is on its way
        child.condemn(ChildError("MEMORY_LIMIT", "it took too much"))
        child.condemn(ChildError("THREAD_LIMIT", "the first verdict counts"))
        await child.exited.wait()
        with pytest.raises(ChildError):
            await waiting
        with pytest.raises(ChildError) as caught:
            await child.order(ctl.Open(), ctl.Done, 10)
        return caught.value, child.epitaph()

    error, epitaph = asyncio.run(scene())
    assert (error.code, epitaph) == ("MEMORY_LIMIT", "it took too much")


def test_a_child_gets_nothing_that_speaks_for_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "5")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret")

    async def scene() -> bytes:
        arguments = ("--endpoint", f"ipc://{tmp_path}/g.sock")
        child = await Child.spawn("gateway", GATEWAY_MODULE, arguments)
        try:
            environment = Path(f"/proc/{child.pid}/environ").read_bytes
            while not (found := await asyncio.to_thread(environment)):
                pass  # while it becomes another program it has none
            return found
        finally:
            await child.end()

    found = asyncio.run(scene())
    assert b"NOTIFY_SOCKET" not in found
    assert b"OTEL_" not in found
    assert b"OPENCV_IO_MAX_IMAGE_PIXELS=5" in found


def test_the_reply_to_an_order_given_up_is_not_taken_for_the_next_ones(tmp_path: Path) -> None:
    async def scene() -> None:
        arguments = ("--endpoint", f"ipc://{tmp_path}/g.sock")
        child = await Child.spawn("gateway", GATEWAY_MODULE, arguments)
        try:
            nowhere = ctl.LaneAddress(str(tmp_path / "none.lane"), 1)
            given_up = asyncio.create_task(child.order(route("adder", "1", nowhere), ctl.Done, 10))
            await asyncio.sleep(0)  # the order is on its way
            given_up.cancel()
            await asyncio.gather(given_up, return_exceptions=True)
            assert isinstance(await child.order(route("adder", "2"), ctl.Done, 10), ctl.Done)
            with pytest.raises(ChildError, match=r"none\.lane"):
                await child.order(route("adder", "3", nowhere), ctl.Done, 10)
        finally:
            await child.end()

    asyncio.run(scene())


def test_a_route_that_changes_while_a_new_gateway_opens_is_told_all_the_same() -> None:
    keeper: Any = GatewayKeeper("ipc:///unused", lambda _poisoned: None)
    told: list[ctl.Message] = []

    async def order(_child: Child, message: ctl.Message) -> None:
        told.append(message)
        if isinstance(message, ctl.Open):
            await keeper.route(route("adder", "2"))
            await keeper.unroute("gone")

    async def scene() -> None:
        await keeper.route(route("adder", "1"))
        await keeper.route(route("gone"))
        await keeper._tell_everything(None)

    keeper._order = order
    asyncio.run(scene())
    assert told[-2:] == [ctl.Unroute("gone"), route("adder", "2")]


def test_what_a_child_said_last_is_waited_for() -> None:
    """Its end may be heard of before its output."""

    class Ended:
        def __init__(self, process: asyncio.subprocess.Process) -> None:
            self.pid, self.returncode = process.pid, 3
            self.stdout = asyncio.StreamReader()
            self._process = process
            self.heard = asyncio.Event()

        async def wait(self) -> int:
            self._process.kill()
            await self._process.wait()
            self.heard.set()
            return self.returncode

    async def scene() -> str:
        made: list[Ended] = []

        async def start(_: socket.socket) -> Ended:
            made.append(Ended(await asyncio.create_subprocess_exec("sleep", "60")))
            return made[0]

        child = await Child.begin("worker", start)
        await made[0].heard.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        made[0].stdout.feed_data(b"out of memory\n")
        made[0].stdout.feed_eof()
        await child.exited.wait()
        return child.epitaph()

    assert asyncio.run(scene()) == "worker exited with status 3; its last words: out of memory"


def test_one_that_has_ended_before_it_is_looked_at_is_told_of_like_any_other() -> None:
    async def start(_: socket.socket) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", "echo no such module; exit 7", stdout=asyncio.subprocess.PIPE
        )
        await process.wait()  # and nobody has its number any more
        return process

    async def scene() -> str:
        child = await Child.begin("worker", start)
        await child.exited.wait()
        child.kill()
        with pytest.raises(ChildError, match="no such module") as caught:
            await child.order(ctl.Open(), ctl.Done, 10)
        assert caught.value.code == "DIED"
        return child.epitaph()

    assert asyncio.run(scene()) == "worker exited with status 7; its last words: no such module"


async def spoken(said: bytes, printed: bytes = b"") -> Child:
    """A child that says these bytes on its control channel, prints those, and stays."""
    source = (
        "import os, signal, sys; os.write(int(sys.argv[1]), bytes.fromhex(sys.argv[2]));"
        "os.write(1, bytes.fromhex(sys.argv[3])); os.close(1); signal.pause()"
    )

    async def start(channel: socket.socket) -> asyncio.subprocess.Process:
        arguments = str(channel.fileno()), said.hex(), printed.hex()
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", source, *arguments),
            pass_fds=(channel.fileno(),),
            stdout=asyncio.subprocess.PIPE,
        )

    return await Child.begin("worker 7", start)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (ctl.encode_message(ctl.WorkerPong(executing_s=float("nan"))), "Expected `float`"),
        (ctl.encode_message(ctl.Ping()), "Invalid value 'Ping'"),
        (ctl.LENGTH.pack(5) + b"{}{}{", "found"),
        (ctl.LENGTH.pack(ctl.MAX_MESSAGE_BYTES + 1), f"{ctl.MAX_MESSAGE_BYTES + 1} bytes"),
    ],
)
def test_one_that_says_what_no_child_says_is_ended_for_that(said: bytes, found: str) -> None:
    async def scene() -> ChildError:
        child = await spoken(said)
        await child.exited.wait()
        with pytest.raises(ChildError) as caught:
            await child.order(ctl.Open(), ctl.Done, 10)
        return caught.value

    error = asyncio.run(scene())
    assert error.code == "PROTOCOL"
    assert "worker 7: expected a message of its control channel" in error.message
    assert found in error.message


def test_a_child_cannot_speak_for_the_daemon(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    printed = b'{"event":"audited","what":"nothing"}\n{"event":"lane_closed","error":"so"}\n'

    async def scene() -> None:
        child = await spoken(b"", printed)
        await child._tasks[1]  # all of its output
        await child.end()

    asyncio.run(scene())
    events = [getattr(record, "superbrain_event", "") for record in caplog.records]
    assert events == [Event.CHILD_OUTPUT, Event.LANE_CLOSED]


def test_every_event_that_children_tell_of_is_theirs() -> None:
    """And no other name is let through."""
    folder = Path(serve.__file__).parent
    source = "".join(path.read_text() for path in sorted(folder.glob("*.py")))
    told = re.findall(r"child\.log\(\s*\"(\w+)\"", source)
    assert len(told) > 15
    assert set(told) == CHILDREN_TELL
