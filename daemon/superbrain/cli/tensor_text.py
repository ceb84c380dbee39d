"""What a tensor holds, on one line: a label, a number, the first of many.

>>> first_values(np.array([0.0112, 0.961, 0.5], "f4"), width=16)
'0.0112, 0.961, …'
>>> first_values(np.array(b"270", object), width=16)
"'270'"
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from superbrain.wire.datatypes import BYTES, Array, datatype_of

_AND_MORE: Final = ", …"


def first_values(array: Array, width: int) -> str:
    """Write the first values of a tensor, as many as fit into `width` characters, at least one.

    Bytes that are no text are told by their number, and a text that is too long is cut.
    """
    if not array.size:
        return "empty"
    spell = _spell_bytes if datatype_of(array) == BYTES else _spell_number
    first, *others = array.reshape(-1)[:width]
    room = width - len(_AND_MORE) if others else width
    text = spell(first, room)
    for other in others:
        longer = f"{text}, {spell(other, room)}"
        if len(longer) > room:
            return text + _AND_MORE
        text = longer
    return text


def _spell_bytes(element: bytes, width: int) -> str:
    try:
        text = repr(element.decode())
    except UnicodeDecodeError:
        return f"{len(element):,} bytes"
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _spell_number(value: np.generic, _width: int) -> str:
    number: Any = value.item()
    return f"{number:.6g}" if isinstance(number, float) else str(number)
