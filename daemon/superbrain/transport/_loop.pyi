# What `daemon/loop` offers; its twins are said there.

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, final

import numpy as np

from superbrain.wire.lane import Data, LaneFrame

_A = TypeVar("_A")
REVISION: int

Usual: TypeAlias = tuple[
    object, object, bytes, list[memoryview] | None, Sequence[memoryview | None] | None
]

@final
class Reader:
    ended: bool
    crowded: bool
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
    def look(
        self, fd: int, takes_descriptors: bool, moment_ns: int, crowded_ns: int, /
    ) -> list[LaneFrame]: ...

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
    def turn(
        self,
        reader: Reader,
        fd: int,
        takes_descriptors: bool,
        lane: int,
        forms: Mapping[bytes, Usual],
        shared_forms: Mapping[bytes, Usual],
        answers: bool,
        /,
    ) -> (
        list[LaneFrame]
        | tuple[LaneFrame, int, int | tuple[bytes, int] | tuple[bool, Any, int, int]]
    ): ...
    def run(
        self,
        frame: LaneFrame,
        fd: int,
        lane: int,
        now_ns: int,
        form: Usual,
        name: bytes,
        /,
    ) -> int | tuple[bytes, int] | tuple[bool, Any, int, int] | None: ...

def ask(
    reader: Reader,
    fd: int,
    packing: Packing,
    inputs: object,
    header: bytes,
    number: int,
    deadline_ns: int,
    answers: dict[bytes, _A],
    moment_ns: int,
    crowded_ns: int,
    /,
) -> (
    tuple[dict[str, np.ndarray[Any, np.dtype[Any]]], _A]
    | tuple[list[memoryview], int | None, list[LaneFrame]]
    | None
): ...
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
