"""One tar header, byte for byte: the only kind that a bundle may contain.

A bundle uses the smallest part of POSIX ustar: regular files, mode 0644, owner 0, time 0. With
all that fixed, path and size determine all 512 bytes, so a header is checked by building the one
that must stand there and comparing. Sizes of 8 GiB and more use the base-256 form that GNU tar and
others read.
Source: https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html (ustar interchange).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from superbrain.domain.errors import ArchiveError, shown

BLOCK = 512
END = bytes(2 * BLOCK)
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12s")
_OCTAL_LIMIT = 8**11
_NO_CHECKSUM = b" " * 8
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a directory",
    b"6": "a FIFO",
}
_FOREIGN = {
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstandard file",
    b"PK\x03\x04": "a zip file",
}


class _Fields(NamedTuple):
    name: bytes
    mode: bytes
    uid: bytes
    gid: bytes
    size: bytes
    mtime: bytes
    checksum: bytes
    kind: bytes
    linkname: bytes
    magic: bytes
    version: bytes
    uname: bytes
    gname: bytes
    devmajor: bytes
    devminor: bytes
    prefix: bytes
    padding: bytes


def encode_header(path: str, size_bytes: int) -> bytes:
    """Give the 512 bytes that stand before a file of this path and size."""
    prefix, name = _split(path)
    fields = _Fields(
        name=name,
        mode=b"0000644\0",
        uid=b"0000000\0",
        gid=b"0000000\0",
        size=_encode_size(size_bytes),
        mtime=b"00000000000\0",
        checksum=_NO_CHECKSUM,
        kind=b"0",
        linkname=b"",
        magic=b"ustar\0",
        version=b"00",
        uname=b"",
        gname=b"",
        devmajor=b"0000000\0",
        devminor=b"0000000\0",
        prefix=prefix,
        padding=b"",
    )
    checksum = b"%06o\0 " % sum(_HEADER.pack(*fields))
    return _HEADER.pack(*fields._replace(checksum=checksum))


def padding_bytes(size_bytes: int) -> int:
    """Give the number of zero bytes that fill a file's last block."""
    return -size_bytes % BLOCK


def member_bytes(size_bytes: int) -> int:
    """Give the space that a file takes in the archive: header, content, padding."""
    return BLOCK + size_bytes + padding_bytes(size_bytes)


def check_header(block: bytes, path: str, size_bytes: int) -> None:
    """Check that `block` is the header of this path and size and nothing else.

    Raises:
        ArchiveError: it differs; the sentence names the first field that does, or says that it is
            damaged.
    """
    expected = encode_header(path, size_bytes)
    if block != expected:
        raise explain(block, expected, path)


def decode_size(block: bytes) -> int | None:
    """Give the size that a header announces; None when it is no canonical size."""
    field = _Fields(*_HEADER.unpack(block)).size
    if field[0] == 0x80:
        size = int.from_bytes(field[1:], "big")
    elif field[:11].isdigit():
        try:
            size = int(field[:11], 8)
        except ValueError:
            return None
    else:
        return None
    return size if _encode_size(size) == field else None


def explain(block: bytes, expected: bytes, path: str) -> ArchiveError:
    """Say what is wrong with a header that is not the expected one."""
    found, wanted = _Fields(*_HEADER.unpack(block)), _Fields(*_HEADER.unpack(expected))
    for start, kind in _FOREIGN.items():
        if block.startswith(start):
            return _error("ARCHIVE_NOT_TAR", path, "an uncompressed tar file", kind)
    if found.magic != wanted.magic and found.name != wanted.name:
        begin = shown(block[:24].rstrip(b"\0"))
        return _error("ARCHIVE_NOT_TAR", path, "a bundle, which begins with it", f"{begin} …")
    if found.kind not in _KINDS and not _adds_up(block, found.checksum):
        return _damaged(path)
    if found.kind != wanted.kind:
        kind = _KINDS.get(found.kind, f"an entry of type {shown(found.kind)}")
        return _error("ARCHIVE_NOT_REGULAR", path, "a regular file", kind)
    if (found.name, found.prefix) != (wanted.name, wanted.prefix):
        other = path_of(found.prefix + b"/" + found.name if found.prefix[0] else found.name)
        return _error("ARCHIVE_ORDER", path, "this file next, as the manifest lists it", other)
    if found.size != wanted.size:
        sizes = (decode_size(block), decode_size(expected))
        return _error("ARCHIVE_SIZE", path, f"{sizes[1]} bytes", f"{sizes[0] or shown(found.size)}")
    for field in _Fields._fields:
        if getattr(found, field) != getattr(wanted, field) and field != "checksum":
            return _error(
                "ARCHIVE_HEADER",
                path,
                f"header field {field} = {shown(getattr(wanted, field))}",
                shown(getattr(found, field)),
            )
    return _error(
        "ARCHIVE_HEADER", path, f"checksum {shown(wanted.checksum)}", shown(found.checksum)
    )


def _adds_up(block: bytes, checksum: bytes) -> bool:
    """Whether a header is as somebody wrote it, be it another one."""
    bare = _HEADER.pack(*_Fields(*_HEADER.unpack(block))._replace(checksum=_NO_CHECKSUM))
    try:
        return int(checksum.strip(b" \0"), 8) == sum(bare)
    except ValueError:
        return False


def _damaged(path: str) -> ArchiveError:
    return ArchiveError(
        f"archive: {path}: expected an intact header before it, found a damaged one: its bytes do "
        f"not add up to its checksum",
        reason="ARCHIVE_HEADER",
        mend="Copy the bundle again, or take another copy",
    )


def path_of(name: bytes) -> str:
    """Give the path in a header for a sentence."""
    return shown(name.rstrip(b"\0").replace(b"\0", b"").decode("ascii", "backslashreplace"))


def _error(reason: str, path: str, expected: str, found: str) -> ArchiveError:
    return ArchiveError(
        f"archive: {path}: expected {expected}, found {found}",
        reason=reason,
        mend="Build the bundle with `superbrain bundle build`",
    )


def _split(path: str) -> tuple[bytes, bytes]:
    raw = path.encode("ascii")
    if len(raw) <= 100:
        return b"", raw
    prefix, _, name = raw.rpartition(b"/")
    if not prefix or len(prefix) > 155 or not 1 <= len(name) <= 100:
        raise ArchiveError(
            f"archive: expected a path that a tar header can hold, found {shown(path)}",
            reason="ARCHIVE_HEADER",
        )
    return prefix, name


def _encode_size(size_bytes: int) -> bytes:
    if size_bytes < _OCTAL_LIMIT:
        return b"%011o\0" % size_bytes
    return b"\x80" + size_bytes.to_bytes(11, "big")
