"""The listening end of a lane: bound first, and open to nobody until it listens."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path


def bind_lane(path: str) -> socket.socket:
    """Bind a lane for whoever may write there: the owner and its group.

    Raises:
        OSError: the path cannot be bound.
    """
    with suppress(FileNotFoundError):
        Path(path).unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o117)
    try:
        listener.bind(path)
    finally:
        os.umask(umask)
    listener.setblocking(False)
    return listener
