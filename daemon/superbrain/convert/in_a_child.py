"""One order to a child and its reply, each one structure of MessagePack.

The child is `python -I -m MODULE`: it reads the order from standard input, writes the reply to
standard output, and whatever libraries print to standard error.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final, TypeVar

import msgspec

LIMIT_S: Final = 3600
R = TypeVar("R", bound=msgspec.Struct)


class ChildEnded(Exception):
    """It ended without a reply; says how, with its last words."""


def ask_child(module: str, order: msgspec.Struct, reply: type[R]) -> R:
    """Give the child's reply to an order.

    Raises:
        ChildEnded: there is none.
    """
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-m", module],
            input=msgspec.msgpack.encode(order),
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ChildEnded(f"was still at it after {LIMIT_S} s, and was ended") from error
    if child.returncode:
        said = child.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise ChildEnded(f"ended with status {child.returncode}: {' '.join(said)}")
    return msgspec.msgpack.decode(child.stdout, type=reply)
