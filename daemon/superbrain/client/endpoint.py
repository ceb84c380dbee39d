"""Where the gateway is, and why it is not there: endpoints, and a look before the first connect.

ZeroMQ connects in the background and stays silent when nobody listens. So before the first
connection of a process the path is tried once with a plain socket, whose error says at once what
is wrong: no socket file, nobody behind it, no permission. The gateway sees a peer that hangs up
before it has spoken.
"""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
from pathlib import Path
from typing import NamedTuple

from superbrain.transport.stream_socket import of_the_kernel
from superbrain.wire.curve import Certificate, parse_certificate, with_secret
from superbrain.wire.errors import InvalidArgument, Unavailable

DEFAULT_ENDPOINT = "ipc:///run/superbrain/infer.sock"
ENDPOINT_VARIABLE = "SUPERBRAIN_ENDPOINT"
TCP_PROBE_S = 1.0

_IS_IT_RUNNING = (
    "Is the daemon running? Try: systemctl status superbraind "
    f"(or set {ENDPOINT_VARIABLE} to where it listens)"
)
_LOG_IN_AGAIN = "Add the user to the group {0} (usermod -aG {0} USER) and log in again"
_NO_GROUP_MAY = "Only its owner may: set [serve] group on the host"


class CurveKeys(NamedTuple):
    """Keys for a gateway behind TCP, each 40 characters of Z85 (`zmq.curve_keypair()`).

    `server` is the gateway's public key; `public` and `secret` are this program's own pair, whose
    public half the gateway must list.
    """

    server: str
    public: str
    secret: str

    @classmethod
    def load(cls, server: str | os.PathLike[str], own: str | os.PathLike[str]) -> CurveKeys:
        """Read them from certificates, as `superbrain access generate` makes them.

        Args:
            server: the gateway's public half, such as `server.pub`.
            own: this program's own pair, such as `camera.key`.

        Raises:
            InvalidArgument: a file cannot be read, or is no such certificate.
        """
        pair = with_secret(_certificate(own), os.fspath(own))
        return cls(_certificate(server).public, pair.public, pair.secret)


def _certificate(path: str | os.PathLike[str]) -> Certificate:
    source = os.fspath(path)
    try:
        text = Path(source).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"expected to read a CURVE certificate from {source}, found: {error}"
        raise InvalidArgument(msg) from error
    return parse_certificate(text, source)


def choose_endpoint(endpoint: str | None) -> str:
    """Give `endpoint`, else the environment's `SUPERBRAIN_ENDPOINT`, else the host's own socket.

    Raises:
        InvalidArgument: it is neither `ipc://PATH` nor `tcp://HOST:PORT`.
    """
    chosen = endpoint or os.environ.get(ENDPOINT_VARIABLE) or DEFAULT_ENDPOINT
    kind, _, address = chosen.partition("://")
    if (kind == "ipc" and address) or (kind == "tcp" and _is_host_and_port(address)):
        return chosen
    msg = f"expected an endpoint like {DEFAULT_ENDPOINT} or tcp://HOST:PORT, found {chosen!r}"
    raise InvalidArgument(msg, mend=f"Look at the argument endpoint and at {ENDPOINT_VARIABLE}")


def probe(endpoint: str) -> None:
    """Return when somebody listens at `endpoint`, which `choose_endpoint` has approved.

    A TCP host that does not answer holds this up for `TCP_PROBE_S` seconds; a path never does.

    Raises:
        Unavailable: nobody listens there, or this user may not connect.
    """
    kind, _, address = endpoint.partition("://")
    try:
        if kind == "ipc":
            _probe_path(unix_address(endpoint))
        else:
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), TCP_PROBE_S).close()
    except PermissionError as error:
        group = _group_of(address)
        who = f", which is for members of the group {group}" if group else ""
        msg = f"the user with id {os.geteuid()} may not connect to {endpoint}{who}"
        mend = _LOG_IN_AGAIN.format(group) if group else _NO_GROUP_MAY
        raise Unavailable(msg, mend=mend) from error
    except OSError as error:
        if kind == "ipc" and not of_the_kernel(error):
            raise
        reason = error.strerror or str(error)
        msg = f"no superbrain gateway answers at {endpoint} ({reason})"
        raise Unavailable(msg, mend=_IS_IT_RUNNING) from error


def unix_address(endpoint: str) -> str:
    """Give what a Unix socket connects to for an `ipc://` endpoint; `@` begins an abstract name."""
    path = endpoint.removeprefix("ipc://")
    return "\0" + path[1:] if path.startswith("@") else path


def _probe_path(name: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as plain:
        plain.setblocking(False)
        status = plain.connect_ex(name)
    if status not in {0, errno.EAGAIN}:  # EAGAIN: somebody listens and has a long line of callers
        raise OSError(status, os.strerror(status))


def _group_of(path: str) -> str:
    """Name the group that may use a socket, or enter its folder; empty when that is nobody's."""
    for place, needed in ((path, stat.S_IWGRP), (os.path.dirname(path), stat.S_IXGRP)):  # noqa: PTH120
        try:
            found = os.stat(place)  # noqa: PTH116
        except OSError:
            continue
        if found.st_mode & needed:
            try:
                return grp.getgrgid(found.st_gid).gr_name
            except KeyError:
                return str(found.st_gid)
    return ""


def _is_host_and_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 1 << 16
