"""What the daemon and its fork server say to each other: an order to fork, and the answer.

They hold the ends of a Unix seqpacket socketpair. The order brings two descriptors: the control
channel of the process to be, and the pipe that takes what it prints.
"""

from __future__ import annotations

import struct
from typing import Final

FORK: Final = b"fork"
REPLY: Final = struct.Struct("=q")
"""The pid of the process; below zero an error number, and there is none."""

NOT_ALONE: Final = 3
"""How a fork server ends that has threads, and would end the same way again."""
