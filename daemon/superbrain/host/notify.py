"""What the daemon tells systemd: ready, status, alive, reloading, stopping (sd_notify(3)).

Without NOTIFY_SOCKET nothing is sent; a manager that does not listen is no reason to fail, so
nothing here raises. Each function returns whether the message went out.
"""

from __future__ import annotations

import os
import socket
import time


def ready(status: str = "") -> bool:
    """The daemon has started, or has finished a reload."""
    return notify("READY=1", *([_status_line(status)] if status else []))


def alive(status: str = "") -> bool:
    """Feed the watchdog, and give `systemctl status` one line; without it the last one stays."""
    return notify("WATCHDOG=1", *([_status_line(status)] if status else []))


class Heartbeat:
    """Feeds the watchdog; the status line goes with it only when the manager has another one.

    To systemd every status is news that it passes on, so the same one again is work for nothing.
    """

    def __init__(self) -> None:
        self._told = ""

    def beat(self, status: str) -> bool:
        """Say that the daemon is alive, and how it does."""
        said = alive(status if status != self._told else "")
        if said:
            self._told = status
        return said


def still_starting(seconds: float) -> bool:
    """Ask for this much more time until `ready`; it counts from now."""
    return notify(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")


def watchdog_s() -> float | None:
    """How often `alive` must be said at least, if this process is watched (WATCHDOG_USEC)."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) else None


def reloading() -> bool:
    """A reload has begun; `ready` ends it."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping(status: str = "") -> bool:
    """The daemon is on its way out."""
    return notify("STOPPING=1", *([_status_line(status)] if status else []))


def notify(*assignments: str) -> bool:
    """Send `NAME=value` lines in one datagram."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # the abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto("\n".join(assignments).encode(errors="replace"), address)
    except OSError:
        return False
    return True


def _status_line(text: str) -> str:
    return "STATUS=" + " ".join(text.split())
