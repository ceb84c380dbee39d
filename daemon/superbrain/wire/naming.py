"""The id in a header, apart from what requests that are alike have in common.

Through the gateway each request bears an id of its own. Without it the headers of a program's
requests are the same byte for byte, so what they say need be worked out only once.
"""

from __future__ import annotations

import re
from typing import Final

_KEY: Final = b'"id"'
_ID: Final = re.compile(rb'"id": ?"([^"\\]+)"')
# How msgspec ends an InferResponse without an id.
_BARE_END: Final = b'"id":""}'
_CUT: Final = len(b'"}')


def without_id(header: bytes) -> tuple[bytes, bytes]:
    """Give a request's header with an empty id, and the id as it stands there between its quotes.

    The header as it is and no id where it has none, or where it is not plain to see which it is.
    """
    found = _ID.search(header)
    if found is None or header.count(_KEY) != 1:
        return header, b""
    first, end = found.span(1)
    return header[:first] + header[end:], found[1]


def with_id(header: bytes, name: bytes) -> bytes:
    """Give a response's header, which was made without an id, with this one from `without_id`."""
    if not name:
        return header
    assert header.endswith(_BARE_END)  # noqa: S101 - `InferResponse` ends so, and a test says it
    return b'%b%b"}' % (header[:-_CUT], name)
