"""`superbraind` on a disk that does as it is told: fails, or is the last thing before a SIGKILL.

    python tests/support/cut_daemon.py ORDERS --root …

While the file ORDERS says `KIND NUMBER` (tests/support/faulty_disk.py has the kinds), the operation
with that number since it was written is struck; with `KIND NUMBER lasting` every one from there on.
Every operation is noted in `ORDERS.done`, one a line. What goes to the runtime folder, such as the
health report, is not counted, so that a number means the same operation whenever it is asked for.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from superbrain.app.main import main
from tests.support.faulty_disk import Fault, Operations, in_place


class Ordered(Operations):
    """Operations that obey a file."""

    def __init__(self, orders: Path) -> None:
        super().__init__(lambda path: "/run/" not in path)
        self._orders = orders
        self._heard = ""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        self._log = os.open(orders.with_suffix(".done"), flags, 0o600)

    def due(self, name: str, path: str) -> str:
        """Listen, count, note, strike."""
        if not self.counts(path):
            return ""
        self._listen()
        os.write(self._log, f"{name} {path}\n".encode())
        return super().due(name, path)

    def _listen(self) -> None:
        said = self._orders.read_text() if self._orders.exists() else ""
        if said == self._heard:
            return
        self._heard = said
        os.ftruncate(self._log, 0)
        kind, number, lasting = (*said.split(), "", "", "")[:3]
        self.arm(Fault(kind, int(number), bool(lasting)) if kind else None)


if __name__ == "__main__":
    with in_place(Ordered(Path(sys.argv[1]))):
        sys.exit(main(sys.argv[2:]))
