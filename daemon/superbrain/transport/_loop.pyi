# What `daemon/loop` offers; its twins are said there.

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar, final

import numpy as np

from superbrain.wire.lane import Data, LaneFrame

_A = TypeVar("_A")
REVISION: int

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Memory: TypeAlias = tuple[
    Callable[[bool], bool],
    Callable[[], None],
    Callable[[], object],
    tuple[memoryview, ...],
    tuple[memoryview, ...],
    Callable[[], dict[str, Array]],
]
Usual: TypeAlias = tuple[
    object,
    object,
    bytes,
    list[memoryview] | None,
    tuple[memoryview | None, ...] | None,
    Memory | None,
]
Answer: TypeAlias = tuple[bool, Any, int, int]
Left: TypeAlias = tuple[LaneFrame, int, Answer]

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
    def unpack(self, tensors: list[memoryview], /) -> dict[str, Array] | None: ...

@final
class Express:
    header: bytes | None
    def __new__(
        cls,
        page: memoryview,
        figures: object,
        clock: object,
        answer: Callable[[dict[str, Array]], object],
        /,
    ) -> Express: ...
    def spell(
        self,
        epoll_fd: int,
        lanes: Mapping[int, tuple[Reader, int, Mapping[bytes, Usual]]],
        forms: Mapping[bytes, Usual],
        limits: tuple[int, int, int, int, int, int, int],
        /,
    ) -> tuple[
        int,
        bool,
        list[tuple[int, int]],
        tuple[int, Exception | tuple[Left | None, list[LaneFrame], int]] | None,
        list[tuple[int, tuple[bytes, ...], int]],
        bool,
    ]: ...
    def run(
        self,
        frame: LaneFrame,
        fd: int,
        lane: int,
        arrived_ns: int,
        now_ns: int,
        form: Usual,
        name: bytes,
        /,
    ) -> int | tuple[bytes, int] | Answer | None: ...

@final
class Relay:
    def __new__(
        cls,
        peers: Mapping[int, tuple[object, object, object]],
        lanes: Mapping[int, tuple[Reader, Mapping[int, object], object, object]],
        ways: Mapping[bytes, tuple[int, int, str, object, tuple[object, ...]]],
        numbers: Iterator[int],
        request_type: type,
        asked: bytes,
        answered: bytes,
        /,
    ) -> Relay: ...
    def turns(
        self, epoll_fd: int, timeout_ms: int, most: int, /
    ) -> tuple[
        list[tuple[int, int]],
        tuple[int, bytes | Exception | list[LaneFrame]] | None,
        list[tuple[int, tuple[bytes, ...], int]],
    ]: ...

@final
class Shortcut:
    good: bool
    def __new__(
        cls, parts: tuple[Any, ...], fd: int, moment_ns: int, crowded_ns: int, /
    ) -> Shortcut: ...
    def ask(self, connection: object, inputs: object, timeout_s: float, /) -> object: ...

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
) -> tuple[dict[str, Array], _A] | tuple[list[memoryview], int | None, list[LaneFrame]] | None: ...
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
