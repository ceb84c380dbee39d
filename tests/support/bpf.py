"""An interpreter of seccomp programs: what the kernel would answer, one instruction at a time."""

from __future__ import annotations

import errno
import struct
from typing import Final

from superbrain.host.sandbox import filter as seccomp

DATA: Final = struct.Struct("<iIQ6Q")  # struct seccomp_data
MOST_STEPS: Final = 4096


def verdict(program: bytes, processor: int, number: int, *arguments: int) -> int:
    """Run a program on one system call; the error it is answered with, 0 when it is allowed."""
    padded = [argument & (1 << 64) - 1 for argument in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    result = run(program, DATA.pack(number, processor, 0, *padded))
    if result == seccomp.ALLOW:
        return 0
    assert result & 0xFFFF0000 == seccomp.ERROR, hex(result)
    return result & 0xFFFF


def run(program: bytes, data: bytes) -> int:
    """Give what a program returns."""
    steps = list(seccomp.INSTRUCTION.iter_unpack(program))
    at = accumulator = 0
    for _ in range(MOST_STEPS):
        code, if_true, if_false, value = steps[at]
        at += 1
        match code:
            case seccomp.LOAD:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case seccomp.AND:
                accumulator &= value
            case seccomp.RETURN:
                return int(value)
            case _:
                at += if_true if _holds(code, accumulator, value) else if_false
    raise AssertionError("expected a program that ends")


def _holds(code: int, accumulator: int, value: int) -> bool:
    match code:
        case seccomp.JUMP_EQUAL:
            return accumulator == value
        case seccomp.JUMP_GREATER:
            return accumulator > value
        case seccomp.JUMP_AT_LEAST:
            return accumulator >= value
        case seccomp.JUMP_ANY_BIT:
            return bool(accumulator & value)
    raise AssertionError(f"expected an instruction that is used here, found {code:#x}")


EPERM: Final = errno.EPERM
ENOSYS: Final = errno.ENOSYS
