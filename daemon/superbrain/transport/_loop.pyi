# What `daemon/loop` offers; its twins are said there.

from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np

from superbrain.wire.lane import Data, LaneFrame

REVISION: int

@final
class Reader:
    ended: bool
    def __new__(
        cls,
        max_body_bytes: int,
        make_room: Callable[[int], memoryview],
        error: type[Exception],
        descriptors: list[int],
        /,
    ) -> Reader: ...
    @property
    def between_frames(self) -> bool: ...
    def receive(self, fd: int, takes_descriptors: bool, /) -> list[LaneFrame]: ...

@final
class Packing:
    def __new__(
        cls,
        array_type: type,
        layouts: tuple[tuple[str, np.dtype[Any], tuple[int, ...], str, int], ...],
        /,
    ) -> Packing: ...
    def pack(self, arrays: object, /) -> list[memoryview] | None: ...
    def unpack(
        self, tensors: list[memoryview], /
    ) -> dict[str, np.ndarray[Any, np.dtype[Any]]] | None: ...

@final
class Express:
    header: bytes | None
    def __new__(
        cls,
        page: memoryview,
        figures: object,
        answer: Callable[[dict[str, np.ndarray[Any, np.dtype[Any]]]], object],
        /,
    ) -> Express: ...
    def run(
        self,
        frame: LaneFrame,
        fd: int,
        lane: int,
        now_ns: int,
        forms: Mapping[bytes, tuple[object, object, bytes]],
        shared_header: bytes,
        name: bytes,
        /,
    ) -> int | tuple[bytes, int] | tuple[bool, Any, int, int] | None: ...

def encode(
    kind: int,
    priority: int,
    request_id: int,
    deadline_ns: int,
    header: Data,
    tensors: list[Data],
    /,
) -> bytes | None: ...
def send(
    fd: int,
    kind: int,
    priority: int,
    request_id: int,
    deadline_ns: int,
    header: Data,
    tensors: list[Data],
    /,
) -> int | None: ...
