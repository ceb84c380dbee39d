"""The flight page: which requests a worker is executing right now, in memory that outlives it.

Every lane's HELLO carries the descriptor of one sealed page that the worker writes and its peers
read when a lane ends without GOODBYE. So only a request that was being executed is suspected of the
worker's death, whoever sent it. The page is a u64 count, then for each request the number of its
lane (as HELLO gave it) and its request id, u64 each, in the host's byte order: it never leaves it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE: Final = 4096
_COUNT: Final = struct.Struct("=Q")
_ENTRY: Final = struct.Struct("=QQ")
MOST: Final = (SIZE - _COUNT.size) // _ENTRY.size
_F_SEAL_FUTURE_WRITE: Final = 16  # not in Python's fcntl: who maps it later cannot write


class FlightPage:
    """The worker's half: stores into memory per execution, no system call.

    `fd` is for the peers. The kernel keeps the page for them when the process is gone, however it
    ended; the mapping `page` alone is writable.
    """

    def __init__(self) -> None:
        self.fd = os.memfd_create("superbrain-flight", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.truncate(self.fd, SIZE)
        self.page = memoryview(mmap.mmap(self.fd, SIZE)).cast("Q")
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)

    def begin(self, lane: int, request_id: int) -> None:
        """Write down that this request is being executed, and nothing else.

        The entry comes first, then that it counts: in between nothing runs that could end the
        process by itself.
        """
        page = self.page
        page[1] = lane
        page[2] = request_id
        page[0] = 1

    def begin_together(self, requests: Sequence[tuple[int, int]]) -> None:
        """Write down that these are executed together: (lane, request id), at most `MOST`."""
        self.end()
        page = self.page
        for place, (lane, request_id) in enumerate(requests):
            page[1 + 2 * place] = lane
            page[2 + 2 * place] = request_id
        page[0] = len(requests)

    def end(self) -> None:
        """Write down that nothing is being executed."""
        self.page[0] = 0


def executing(page_fd: int | None, lane: int) -> frozenset[int] | None:
    """Give the ids of a lane's requests that were being executed; None when the page cannot tell.

    Args:
        page_fd: descriptor that came with HELLO, if one came.
        lane: the number in that HELLO.
    """
    if page_fd is None:
        return None
    try:
        # Only memory has seals: a pipe, or a file on a slow disk, is not read at all.
        if not fcntl.fcntl(page_fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            return None
        page = os.pread(page_fd, SIZE, 0)
    except OSError:
        return None
    if len(page) < SIZE:
        return None
    count = _COUNT.unpack_from(page)[0]
    if count > MOST:
        return None
    entries = (_ENTRY.unpack_from(page, _COUNT.size + n * _ENTRY.size) for n in range(count))
    return frozenset(request_id for number, request_id in entries if number == lane)
