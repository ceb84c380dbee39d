"""Frames as the buffers that are sent: small ones by the compiled loop, where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superbrain.transport import compiled
from superbrain.wire import lane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superbrain.wire.lane import Data


def encode_frame(
    kind: int,
    header: Data,
    tensors: Sequence[Data],
    request_id: int,
    deadline_ns: int = 0,
    priority: int = 0,
) -> list[Data]:
    """Give the buffers of one frame, as `wire.lane.encode` does, if in other pieces."""
    module = compiled.loop()
    if module is not None:
        joined: bytes | None = module.encode(
            kind, priority, request_id, deadline_ns, header, tensors
        )
        if joined is not None:
            return [joined]
    return lane.encode(
        kind, header, tensors, request_id=request_id, deadline_ns=deadline_ns, priority=priority
    )
