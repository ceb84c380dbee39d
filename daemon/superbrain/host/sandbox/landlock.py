"""Landlock: which files a process can open from now on, whatever its user could.

Rules name places; everything below a place gets the rights that are given, everything else none.
The kernel says which version of the interface it has (`abi`, 0 for none); rights that it does not
know yet are left out, and the filter of system calls holds them instead. Documented in
https://docs.kernel.org/userspace-api/landlock.html.

Handled as well, with nothing granted: TCP (version 4), signals to processes outside and abstract
Unix sockets of others (version 6).
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import stat
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_RULESET: Final = struct.Struct("QQQ")
_RULE: Final = struct.Struct("=Qi")
_TCP: Final = 0b11  # bind, connect
_SCOPES: Final = 0b11  # abstract sockets, signals


class Right(enum.IntFlag):
    """What can be done with files, as the kernel numbers it."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


READ: Final = Right.READ_FILE | Right.READ_DIR
OWN: Final = (
    READ
    | Right.WRITE_FILE
    | Right.TRUNCATE
    | Right.MAKE_REG
    | Right.MAKE_DIR
    | Right.MAKE_SYM
    | Right.REMOVE_FILE
    | Right.REMOVE_DIR
    | Right.REFER
)
DEVICE: Final = Right.READ_FILE | Right.WRITE_FILE | Right.IOCTL_DEV
_OF_FILES: Final = (
    Right.EXECUTE | Right.WRITE_FILE | Right.READ_FILE | Right.TRUNCATE | Right.IOCTL_DEV
)
_SINCE: Final = {2: Right.REFER, 3: Right.TRUNCATE, 5: Right.IOCTL_DEV}
_TCP_SINCE: Final = 4
_SCOPES_SINCE: Final = 6


class Grant(NamedTuple):
    """A place, and what may be done there and below it."""

    path: Path
    rights: Right


def abi() -> int:
    """Give the version of the kernel's Landlock; 0 when it has none or it is switched off."""
    return max(0, _call(_CREATE_RULESET, None, 0, _VERSION))


def handled(version: int) -> Right:
    """Give every right that a version can withhold."""
    rights = Right(0)
    for right in Right:
        rights |= right
    for since, right in _SINCE.items():
        if version < since:
            rights &= ~right
    return rights


def ruleset(version: int) -> bytes:
    """Write the attributes of a set of rules that withholds all that a version can."""
    tcp = _TCP if version >= _TCP_SINCE else 0
    scopes = _SCOPES if version >= _SCOPES_SINCE else 0
    whole = _RULESET.pack(handled(version), tcp, scopes)
    size = 8 if version < _TCP_SINCE else 16 if version < _SCOPES_SINCE else 24
    return whole[:size]


def restrict(grants: Iterable[Grant]) -> int:
    """Restrict the calling thread and all that it starts, for good; the version that did it.

    Places that do not exist are left out. Descriptors of granted places below /proc stay open: the
    kernel makes such an inode anew when nobody holds it, and a rule would not be about the new one.

    Raises:
        OSError: the kernel refused; nothing is restricted.
    """
    version = abi()
    if not version:
        return 0
    attributes = ruleset(version)
    rules = _checked(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for grant in grants:
            _add(rules, grant, handled(version))
        _checked(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)
    return version


def _add(rules: int, grant: Grant, known: Right) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        place = os.open(grant.path, os.O_PATH | os.O_CLOEXEC)
        rights = grant.rights & known
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _OF_FILES
        try:
            _checked(_ADD_RULE, rules, _PATH_BENEATH, _RULE.pack(rights, place), 0)
        finally:
            if not grant.path.is_relative_to("/proc"):
                os.close(place)


def _checked(number: int, *arguments: object) -> int:
    result = _call(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    whole = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return int(libc.syscall(ctypes.c_long(number), *whole))
