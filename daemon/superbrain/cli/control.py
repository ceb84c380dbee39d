"""The operator's end of the control socket: one question, one answer, in finite time.

client = ControlClient("ipc:///run/superbrain/control.sock")
report = client.ask(GetHealth(), HealthReply).health

ControlError
├── NotRunning        nobody listens on the socket
├── NotPermitted      this user may not use it
├── NoAnswer          somebody listens, but did not answer in time
├── WrongAnswer       the answer is none that this version knows
└── Refused           the daemon said no, and why
"""

from __future__ import annotations

import argparse
import errno
import grp
import os
import socket
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import zmq

from superbrain.cli.numbers import seconds
from superbrain.domain.operations import AnyOperation, AnyReply, Refusal, Reply
from superbrain.wire.errors import SuperbrainError
from superbrain.wire.messages import UNREADABLE

DEFAULT_ENDPOINT: Final = "ipc:///run/superbrain/control.sock"
DEFAULT_TIMEOUT_S: Final = 10.0

_ReplyT = TypeVar("_ReplyT", bound=Reply)


class ControlError(SuperbrainError):
    """The daemon could not be asked, or did not do what it was asked."""


class NotRunning(ControlError):
    """Nobody listens on the control socket."""


class NotPermitted(ControlError):
    """This user may not connect to the control socket."""


class NoAnswer(ControlError):
    """No answer came in time."""


class WrongAnswer(ControlError):
    """What came back is no answer to the question."""


class Refused(ControlError):
    """The daemon refused; nothing changed."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message, mend=refusal.mend)
        self.code = refusal.code


class ControlClient:
    """Asks the daemon behind `endpoint`; every question waits at most `timeout_s` seconds."""

    def __init__(self, endpoint: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.endpoint = endpoint
        self.timeout_s = timeout_s

    def ask(self, operation: AnyOperation, expected: type[_ReplyT]) -> _ReplyT:
        """Send `operation` and return its answer.

        Raises:
            ControlError: one of the branches above.
        """
        _require_listener(self.endpoint)
        answer = self._decoded(self._exchange(msgspec.json.encode(operation)))
        if isinstance(answer, Refusal):
            raise Refused(answer)
        if not isinstance(answer, expected):
            found = type(answer).__name__
            raise WrongAnswer(f"expected a {expected.__name__} from superbraind, got a {found}")
        return answer

    def _exchange(self, question: bytes) -> bytes:
        """One REQ socket per question: a late answer can never meet the next question."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        with context.socket(zmq.REQ) as channel:
            channel.linger = 0
            channel.sndtimeo = channel.rcvtimeo = int(self.timeout_s * 1000)
            try:
                channel.connect(self.endpoint)
                channel.send(question)
                return channel.recv()
            except zmq.Again as error:
                raise NoAnswer(
                    f"superbraind did not answer on {self.endpoint} within {self.timeout_s:g} s",
                    mend="see what it does: systemctl status superbraind, or its terminal",
                ) from error
            except zmq.ZMQError as error:
                raise ControlError(
                    f"{self.endpoint!r} cannot be used as control endpoint: {error.strerror}",
                    mend=f"expected something like {DEFAULT_ENDPOINT}",
                ) from error

    def _decoded(self, answer: bytes) -> AnyReply:
        try:
            reply: AnyReply = msgspec.json.decode(answer, type=AnyReply)
        except UNREADABLE as error:
            raise WrongAnswer(
                f"the answer from {self.endpoint} is none that this version knows: {error}",
                mend="use the 'superbrain' command of the version that runs as daemon",
            ) from error
        return reply


def add_control_options(
    parser: argparse.ArgumentParser, *, timeout_s: float = DEFAULT_TIMEOUT_S
) -> None:
    """Add `--control` and `--timeout`, which `control_client` reads."""
    default = os.environ.get("SUPERBRAIN_CONTROL") or DEFAULT_ENDPOINT
    parser.add_argument(
        "--control",
        metavar="ENDPOINT",
        default=default,
        help="the daemon's control socket (SUPERBRAIN_CONTROL; now %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds(86_400),
        default=timeout_s,
        help="how long to wait for an answer (%(default)g)",
    )


def control_client(args: argparse.Namespace) -> ControlClient:
    """The client that the command line asks for."""
    return ControlClient(args.control, args.timeout)


def _require_listener(endpoint: str) -> None:
    """Say at once why an ipc endpoint cannot be reached; ZeroMQ would wait for it in silence."""
    if not endpoint.startswith("ipc://"):
        return
    path = endpoint.removeprefix("ipc://")
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            probe.connect(address)
    except PermissionError as error:
        raise NotPermitted(
            f"this user may not use the control socket {path}", mend=_who_may(Path(path))
        ) from error
    except TimeoutError:
        return  # busy, but there: the question's own timeout decides
    except OSError as error:
        if error.errno == errno.EAGAIN:
            return
        raise NotRunning(
            f"superbraind is not running: nobody listens on {path}",
            mend="start it: systemctl start superbraind, or superbraind --root DIR. If it runs, "
            "say where: --control or SUPERBRAIN_CONTROL=ipc://DIR/run/control.sock",
        ) from error


def _who_may(path: Path) -> str:
    for place in (path, path.parent):
        try:
            group = grp.getgrgid(place.stat().st_gid).gr_name
        except (OSError, KeyError):
            continue
        return f"run it with sudo, or as a member of the group {group!r}"
    return "run it with sudo"
