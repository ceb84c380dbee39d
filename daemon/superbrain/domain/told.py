"""What a child may tell: numbers that are numbers, sentences that a person can read.

A bundle's code runs in the process that tells the daemon how it goes, so no more is believed of a
message than its form allows. `msgspec` refuses what breaks these bounds while it decodes.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from superbrain.wire.sentences import sentence

# How often. What is added up of them stays far below 64 bits.
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
# How long: finite, and not NaN. Two clocks that are read one after the other may give less than 0.
Nanoseconds = Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)]
Span = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]  # seconds or milliseconds
# What we name ourselves: libraries, precisions, levels.
Name = Annotated[str, msgspec.Meta(max_length=1024)]


def shorten(told: msgspec.Struct, *fields: str) -> None:
    """Make sentences of fields of a structure that was just made or decoded, frozen or not."""
    for field in fields:
        text = getattr(told, field)
        if (short := sentence(text)) is not text:
            msgspec.structs.force_setattr(told, field, short)
