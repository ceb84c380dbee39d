"""The keys of the TCP face: its own secret one, and the folder of clients that may connect.

    clients/NAME.pub     the public half of one client's key; NAME is how logs and lists call it

Both are read as files that decide who may do what (host/guarded.py). An empty folder allows nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from superbrain.host.guarded import guarded_files, read_guarded
from superbrain.wire.curve import (
    MAX_CERTIFICATE_BYTES,
    Certificate,
    parse_certificate,
    with_secret,
)
from superbrain.wire.errors import InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path

SUFFIX = ".pub"


def read_server_key(path: Path) -> Certificate:
    """Read the server's own pair.

    Raises:
        NotGuarded: others may read or write it, or it cannot be read.
        InvalidArgument: it is no certificate with a secret key.
    """
    return with_secret(
        _parse(read_guarded(path, MAX_CERTIFICATE_BYTES, secret=True), path), str(path)
    )


def read_clients(folder: Path) -> dict[str, str]:
    """Read who may connect: names by public key.

    Raises:
        NotGuarded: the folder or a file in it is missing, or others may write it.
        InvalidArgument: a file is no certificate, or two of them hold the same key.
    """
    names: dict[str, str] = {}
    for path in guarded_files(folder, "*" + SUFFIX):
        key = _parse(read_guarded(path, MAX_CERTIFICATE_BYTES), path).public
        if key in names:
            raise InvalidArgument(
                f"{path}: expected a key of its own, found that of {names[key]!r}",
                mend=f"Remove one of the two from {folder}",
            )
        names[key] = path.stem
    return names


def _parse(data: bytes, path: Path) -> Certificate:
    return parse_certificate(data.decode("utf-8", "replace"), str(path))
