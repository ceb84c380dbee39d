"""A worker's data loop: lanes in, executor, lanes out.

Single-threaded. Between two executions everything readable is admitted. A request counts as
accepted when its execution starts. Who stands by says GOODBYE, executes what has come as far as
that is done within `_FINISH_NS`, and answers nothing of the rest: the peer sends it again to the
next worker. So hardly a request waits longer for a swap than for those before it in any case.

The lane is bound before the sandbox closes and belongs to this process for as long as it lives. Who
connects while it stands by is hung up on.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

import msgspec

from superbrain.domain.batching import window
from superbrain.serve import child
from superbrain.serve.executor import Admitted, Executor
from superbrain.serve.regions import RegionBudget
from superbrain.serve.worker_lane import SHARING, WorkerLane
from superbrain.transport.brief_wait import CROWDED_NS, MOMENT_NS, BriefWait
from superbrain.transport.lane_socket import LaneSocket
from superbrain.wire import lane

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from superbrain.serve.execution import Outcome
    from superbrain.serve.executor import Spell
    from superbrain.serve.figures import WorkerFigures
    from superbrain.serve.served import ServedModel
    from superbrain.serve.stage_clock import StageClock
    from superbrain.serve.worker_lane import UsualLane
    from superbrain.serve.worker_records import WorkerRecords
    from superbrain.transport.flight import FlightPage

_MAX_LANES = 256
_KEPT_LANES = 16  # of those for who runs as the service does: the gateway, above all
_UCRED = struct.Struct("3i")
_REQUESTS = frozenset({lane.REQUEST, lane.FORWARD, lane.ALONE})
_LANE_ERRORS = (lane.LaneError, MemoryError)
_BACKLOG = 128
_FLUSH_PATIENCE_S = 0.5
# So long a worker that is to stand by still executes what waits.
_FINISH_NS = 100_000_000
# What a peer may leave unread before it is given up; one answer more may be added to it.
_MAX_UNREAD_BYTES = 64 << 20


class LaneLoop:
    """Serves one model on one bound lane, from `serve` to `stand_by`, as often as asked."""

    def __init__(
        self,
        wake_fd: int,
        on_wake: Callable[[], None],
        figures: WorkerFigures,
        listener: socket.socket,
        flight: FlightPage,
        records: WorkerRecords | None = None,
    ) -> None:
        self._epoll = select.epoll()
        self._epoll.register(wake_fd, select.EPOLLIN)
        self._wake_fd = wake_fd
        self._wait = BriefWait(self._epoll)
        self._on_wake = on_wake
        self._figures = figures
        self._listener = listener
        self._listening = False
        self._serving = False
        self._execution_ns = 0
        self._hello = lane.Hello("", "", 0, 0)
        self._lane_numbers = count(1)
        self._lanes: dict[int, WorkerLane] = {}
        self._usual: dict[int, UsualLane] = {}  # those on which nothing waits to be sent
        self._records = records
        picks = records.picks if records is not None else None
        self._executor = Executor(figures, self._answer, self._post, flight, picks)
        self._arrived: list[Admitted] = []
        self._answered: list[WorkerLane] = []
        self._region_budget = RegionBudget.of_this_process()
        self._spare_fd = os.open(os.devnull, os.O_RDONLY)

    @property
    def serving(self) -> bool:
        """Whether the lane is open."""
        return self._serving

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return self._executor.waiting

    def serve(self, model: ServedModel, deployment_id: int, execution_ms: float) -> None:
        """Listen on the lane.

        Args:
            model: what to serve.
            deployment_id: to greet with.
            execution_ms: how long one request takes, as proven; decides the window.

        Raises:
            OSError: the kernel does not let it listen.
        """
        self._execution_ns = int(execution_ms * 1_000_000)
        pays = window(execution_ms, model.batching.max_size)
        self._hello = lane.Hello(model.name, model.version, deployment_id, pays)
        self._executor.serve(model)
        if self._records is not None:
            self._records.serve(model.name, model.version)
        if not self._listening:
            self._listener.listen(_BACKLOG)
            self._epoll.register(self._listener.fileno(), select.EPOLLIN)
            self._listening = True
        self._serving = True

    def stand_by(self) -> None:
        """Say GOODBYE, finish what has come as far as there is time, and end every lane."""
        if not self._serving:
            return
        self._serving = False
        goodbye = lane.encode(lane.GOODBYE)
        for link in self._lanes.values():
            link.send(goodbye)
        self._finish()
        self._flush(list(self._lanes.values()))
        for link in list(self._lanes.values()):
            self._close(link)

    def _finish(self) -> None:
        """Execute and answer what has come, and what comes from peers that know of no GOODBYE yet.

        What would not be done in time is left.
        """
        until_ns = time.monotonic_ns() + _FINISH_NS - self._execution_ns
        while True:
            for link in list(self._lanes.values()):
                self._take_in(link)
            arrived, self._arrived = self._arrived, []
            for request in arrived:
                self._executor.admit(request)
            if not self._executor.waiting or time.monotonic_ns() >= until_ns:
                break
            self._executor.work(holds=False)
            self._deliver()
        self._executor.clear()
        self._deliver()
        self._figures.queued = 0

    def turn(self) -> None:
        """One turn: wait if there is nothing to do, take in what came, execute, answer."""
        self._take_all([fd for fd, _ in self._ready()])
        if self._arrived:
            arrived, self._arrived = self._arrived, []
            self._executor.take(arrived)
        elif self._figures.queued:
            self._executor.work()
        self._deliver()
        self._figures.queued = self._executor.waiting

    def _deliver(self) -> None:
        """Send the answers that there are, and tell of them."""
        for link in self._answered:
            link.deliver()
            if not link.ended:
                link.watch(self._epoll)
            self._mind(link)
        self._answered.clear()
        if self._records is not None:
            self._records.finish()

    def _ready(self) -> Sequence[tuple[int, int]]:
        """Wait until there is something to do; what is usual is done already."""
        if self._figures.queued:
            return self._epoll.poll(self._executor.idle_s())
        wait = self._wait
        while True:
            looks = wait.brief
            spell = self._executor.spell(
                self._epoll.fileno(), self._usual, MOMENT_NS if looks else 0, CROWDED_NS
            )
            if spell is None:
                return wait.poll()
            if spell.came:
                self._take_over(spell)
                return spell.ready
            if looks:
                wait.looked(crowded=spell.crowded)
            wait.poll()

    def _take_over(self, spell: Spell) -> None:
        """Go on where a spell ended."""
        for fd, answers, sent in spell.unsent:
            link = self._lanes[fd]
            link.keep(answers, sent)
            link.watch(self._epoll)
            self._mind(link)
        if spell.found is None:
            return
        fd, found = spell.found
        link = self._lanes[fd]
        if isinstance(found, Exception):
            if not isinstance(found, _LANE_ERRORS):
                raise found
            self._refuse(link, found)
            return
        link.note_end()
        left, frames, arrived_ns = found
        if left is not None:
            self._executor.conclude(link, left, arrived_ns)
        self._take_frames(link, frames, arrived_ns)

    def _mind(self, link: WorkerLane) -> None:
        """Keep what the compiled loop knows of a lane."""
        usual = link.usual
        if usual is not None:
            self._usual[link.fd] = usual
        else:
            self._usual.pop(link.fd, None)

    def _take_all(self, ready: Sequence[int]) -> None:
        if self._wake_fd in ready:  # first: after StandBy nothing more is read
            os.eventfd_read(self._wake_fd)
            self._on_wake()
        for fd in ready:
            if fd == self._listener.fileno():
                self._accept(self._listener)
            elif (link := self._lanes.get(fd)) is not None:
                self._take_in(link)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # out of descriptors: give up the spare one to turn the peer away
            child.log("lane_refused", error=str(error))
            os.close(self._spare_fd)
            with suppress(OSError):
                listener.accept()[0].close()
            self._spare_fd = os.open(os.devnull, os.O_RDONLY)
            return
        if not self._serving:
            sock.close()
            return
        most = _MAX_LANES if _peer_uid(sock) == os.getuid() else _MAX_LANES - _KEPT_LANES
        if len(self._lanes) >= most:
            child.log("lane_refused", error=f"expected at most {most} lanes")
            sock.close()
            return
        link = WorkerLane(sock, next(self._lane_numbers), self._region_budget)
        self._lanes[link.fd] = link
        hello = msgspec.json.encode(msgspec.structs.replace(self._hello, lane=link.number))
        link.send_descriptor(lane.encode(lane.HELLO, hello)[0], self._executor.flight.fd)
        link.watch(self._epoll)
        self._mind(link)

    def _take_in(self, link: WorkerLane) -> None:
        try:
            frames = link.receive()
        except _LANE_ERRORS as error:
            self._refuse(link, error)
            return
        self._take_frames(link, frames, time.monotonic_ns())

    def _refuse(self, link: WorkerLane, error: Exception) -> None:
        """End a lane on which came what is no frame."""
        child.log("lane_closed", error=str(error))
        self._close(link)

    def _take_frames(
        self, link: WorkerLane, frames: Sequence[lane.LaneFrame], arrived_ns: int
    ) -> None:
        for frame in frames:
            if frame.kind in _REQUESTS:
                self._arrived.append(Admitted(link, frame, arrived_ns))
            elif frame.kind in SHARING:
                self._share(link, frame)
            else:
                child.log("lane_closed", error=f"expected a request frame, found kind {frame.kind}")
                self._close(link)
        link.close_unasked()
        if link.ended or link.broken:
            self._close(link)
            return
        if link.pending_bytes:
            link.flush()
            link.watch(self._epoll)
        self._mind(link)

    def _share(self, link: WorkerLane, frame: lane.LaneFrame) -> None:
        if not self._overdue(link):
            link.share(frame)

    def _answer(
        self, request: Admitted, outcome: Outcome, now_ns: int, clock: StageClock | None
    ) -> None:
        link = request.link
        direct = request.frame.kind == lane.REQUEST
        arrived_ns = request.arrived_ns
        self._figures.finished(outcome.error, arrived_ns, now_ns, clock, direct=direct)
        if self._records is not None:
            self._records.answered(request, outcome, now_ns, clock)
        if outcome.sent:
            link.keep(outcome.encode(), outcome.sent)
            link.watch(self._epoll)
            self._mind(link)
        elif not self._overdue(link) and link.post(outcome.encode()):
            self._answered.append(link)

    def _post(self, link: WorkerLane, frame: bytes) -> None:
        if not self._overdue(link) and link.post((frame,)):
            self._answered.append(link)

    def _overdue(self, link: WorkerLane) -> bool:
        """Give up a peer that leaves too much unread; whether it is given up."""
        if link.pending_bytes <= _MAX_UNREAD_BYTES:
            return link.ended
        child.log("lane_closed", error="the peer sends requests and reads no answers")
        self._close(link)
        return True

    def _close(self, link: WorkerLane) -> None:
        if self._lanes.get(link.fd) is link:  # else its number is somebody else's already
            del self._lanes[link.fd]
            self._usual.pop(link.fd, None)
        link.close()

    def _flush(self, links: list[LaneSocket]) -> None:
        """Deliver what waits to be sent, for a bounded time."""
        end_s = time.monotonic() + _FLUSH_PATIENCE_S
        poll = select.poll()
        behind = {link.fd: link for link in links if link.pending_bytes}
        for fd in behind:
            poll.register(fd, select.POLLOUT)
        while behind and (left_s := end_s - time.monotonic()) > 0:
            for fd, _ in poll.poll(left_s * 1000):
                behind[fd].flush()
                if not behind[fd].pending_bytes:
                    del behind[fd]
                    poll.unregister(fd)


def _peer_uid(sock: socket.socket) -> int:
    """Whose process is at the other end of a Unix socket."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(credentials)[1])
