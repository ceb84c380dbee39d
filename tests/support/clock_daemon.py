"""`superbraind` on a host whose clock stands at a given time.

    python tests/support/clock_daemon.py 1970-01-01T00:00:00+00:00 --root …

Only the clock by which dates are judged; timers and logs go on as they are.
"""

from __future__ import annotations

import datetime as dt
import sys

from superbrain.app.main import main
from superbrain.deploy.host_clock import HostClock


def stand_at(time: dt.datetime) -> None:
    """Have the host's clock stand still."""
    HostClock.__init__.__defaults__ = (lambda: time,)


if __name__ == "__main__":
    stand_at(dt.datetime.fromisoformat(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
