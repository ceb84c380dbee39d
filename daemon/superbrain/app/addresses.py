"""IP addresses with a port, as the configuration has them: `127.0.0.1:9464`, `tcp://[::]:5555`."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

HTTP_ADDRESS: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})")
TCP_ADDRESS: Final = re.compile(f"tcp://{HTTP_ADDRESS.pattern}")


def address(found: re.Match[str] | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Give the IP address of a match, if it and its port are some."""
    try:
        good = found is not None and 0 < int(found[3]) < 1 << 16
        return ipaddress.ip_address(found[1] or found[2]) if found and good else None
    except ValueError:
        return None
