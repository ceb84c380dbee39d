"""The fork server: what comes from it is a child like any other, whatever becomes of itself."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from superbrain.deploy import fork_server
from superbrain.deploy.child import Child, ChildError
from superbrain.deploy.crew import WORKER_MODULE
from superbrain.deploy.fork_server import FORK_SERVER_MODULE, Forked, ForkServer, ForkServerError
from superbrain.domain import ctl
from tests.support.appliance import Appliance, words
from tests.support.load import Load
from tests.support.other_python import other_python
from tests.support.releases import go_live, release

pytestmark = pytest.mark.integration
PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 36, 37


@pytest.fixture(autouse=True)
def orphans_go_elsewhere() -> Iterator[None]:
    """Adopt nothing any more: what other tests leave behind is not this process's to reap."""
    yield
    adopting = ctypes.c_int()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0
    assert libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(adopting), 0, 0, 0) == 0
    assert not adopting.value


def play(scene: Callable[[ForkServer], Awaitable[None]]) -> None:
    """Play a scene with a fork server; afterwards no child of it is left, not even a dead one."""
    others = set(psutil.Process().children())

    async def whole() -> None:
        server = ForkServer()
        try:
            await scene(server)
        finally:
            await server.stop()
            server.reap_strays()
        assert set(psutil.Process().children()) <= others

    asyncio.run(whole())


async def pong(worker: Child) -> ctl.WorkerPong | None:
    return await worker.ping(ctl.WorkerPong, 20)


def test_a_forked_worker_is_the_daemons_own_child() -> None:
    async def scene(server: ForkServer) -> None:
        worker = await Child.begin("worker", server.fork)
        assert await pong(worker) is not None
        process = psutil.Process(worker.pid)
        assert process.ppid() == os.getpid()
        assert os.getsid(worker.pid) == worker.pid
        assert WORKER_MODULE in words(process)
        assert FORK_SERVER_MODULE not in words(process)
        with pytest.raises(ChildError, match="expected Load before Serve"):
            await worker.order(ctl.Serve(), ctl.Done, 10)
        await worker.end()

    play(scene)


def test_how_it_ends_is_known() -> None:
    async def scene(server: ForkServer) -> None:
        worker = await Child.begin("worker", server.fork)
        worker.kill()
        await worker.exited.wait()
        assert worker.process.returncode == -signal.SIGKILL
        assert "was ended by SIGKILL" in worker.epitaph()

    play(scene)


def test_how_it_ends_is_known_before_it_has_a_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", other_python(tmp_path, "dying_python.py", "session"))

    async def scene(server: ForkServer) -> None:
        async def late(channel: socket.socket) -> Forked:
            forked = await server.fork(channel)
            await until(lambda: has_ended(forked.pid))
            return forked

        worker = await Child.begin("worker", late)
        await worker.exited.wait()
        assert worker.process.returncode == -signal.SIGKILL

    play(scene)


def has_ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_it_holds_nothing_of_the_fork_server_but_what_it_was_given() -> None:
    async def scene(server: ForkServer) -> None:
        worker, other = [await Child.begin("worker", server.fork) for _ in range(2)]
        assert await pong(worker) is not None
        assert await pong(other) is not None
        assert sorted(held_by(other.pid)) == ["/dev/null", "pipe", "pipe", "socket"]
        await worker.end()
        await other.end()

    play(scene)


def held_by(pid: int) -> list[str]:
    held = [path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir()]
    return [str(path).partition(":")[0] for path in held]


def test_the_end_of_the_fork_server_ends_no_worker_and_there_is_another() -> None:
    async def scene(server: ForkServer) -> None:
        worker = await Child.begin("worker", server.fork)
        assert await pong(worker) is not None  # by now it has a name of its own
        (first,) = servers()
        first.kill()
        first.wait(20)
        with contextlib.suppress(ForkServerError):  # unless it has noticed by itself
            await (await Child.begin("worker", server.fork)).end()
        assert await pong(worker) is not None
        other = await Child.begin("worker", server.fork)
        assert await pong(other) is not None
        await worker.end()
        await other.end()

    play(scene)


def servers() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if FORK_SERVER_MODULE in words(one)]


def test_a_worker_that_it_did_not_live_to_tell_of_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(server: ForkServer) -> None:
        others = set(psutil.Process().children())
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", other_python(tmp_path, "dying_python.py", "answer"))
            with pytest.raises(ForkServerError, match="SIGKILL"):
                await Child.begin("worker", server.fork)
        await until(lambda: set(psutil.Process().children()) <= others)
        worker = await Child.begin("worker", server.fork)
        assert await pong(worker) is not None
        await worker.end()

    play(scene)


def test_one_that_cannot_begin_is_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_server, "FORK_SERVER_MODULE", "superbrain.of_another_time")

    async def scene(server: ForkServer) -> None:
        for _ in range(fork_server.ATTEMPTS):
            with pytest.raises(ForkServerError, match="of_another_time"):
                await Child.begin("worker", server.fork)
        with pytest.raises(ForkServerError, match=r"^$"):  # this was said
            await Child.begin("worker", server.fork)

    play(scene)


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not done():  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.01)


async def forking(server: ForkServer) -> None:
    while not server._forks:  # noqa: ASYNC110 - nobody tells of that
        await asyncio.sleep(0)


def orphans() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if words(one)[:1] == ["sleep"]]


def leave_an_orphan() -> None:
    subprocess.run(["sh", "-c", "sleep 60 &"], start_new_session=True, check=True, timeout=20)


def test_one_that_nobody_waits_for_any_more_leaves_nothing() -> None:
    async def scene(server: ForkServer) -> None:
        others = set(psutil.Process().children())
        begun = asyncio.create_task(Child.begin("worker", server.fork))
        await forking(server)  # the fork server is being started
        begun.cancel()
        with pytest.raises(asyncio.CancelledError):
            await begun
        worker = await Child.begin("worker", server.fork)  # its order comes behind the other
        assert await pong(worker) is not None
        await worker.end()
        await until(lambda: set(psutil.Process().children()) == {*others, *servers()})

    play(scene)


@pytest.mark.parametrize("turns", range(6))
def test_one_that_is_given_up_as_its_process_begins_leaves_nothing(turns: int) -> None:
    def give_up(begun: asyncio.Task[Child], left: int) -> None:
        if left:
            asyncio.get_running_loop().call_soon(give_up, begun, left - 1)
        else:
            begun.cancel()

    async def scene(server: ForkServer) -> None:
        worker = await Child.begin("worker", server.fork)
        others = {*psutil.Process().children()}
        begun = asyncio.create_task(Child.begin("worker", server.fork))
        await forking(server)
        (fork,) = server._forks
        fork.add_done_callback(lambda _: give_up(begun, turns))
        with contextlib.suppress(asyncio.CancelledError):
            await (await begun).end()  # it was there before it was given up
        await until(lambda: {*psutil.Process().children()} == others)
        assert server._awaited == {worker.pid}
        await worker.end()

    play(scene)


def test_what_a_child_leaves_behind_is_reaped() -> None:
    async def scene(server: ForkServer) -> None:
        worker = await Child.begin("worker", server.fork)
        await asyncio.to_thread(leave_an_orphan)
        await until(lambda: len(orphans()) == 1)
        (orphan,) = orphans()
        orphan.kill()
        await until(lambda: not orphan.is_running())
        await worker.end()

    play(scene)


def test_a_whole_appliance_goes_on_without_it(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1)
        with Load(appliance.client) as load:
            for number in (2, 3):
                (server,) = [c for c in appliance.children() if FORK_SERVER_MODULE in words(c)]
                server.kill()
                appliance.drop(release(appliance, number))
                appliance.wait_live("adder", f"{number}.0.0")
        load.assert_flawless()
        assert appliance.log.read_text().count('"fork_server_started"') > 1
