"""Reading a bundle file: from untrusted bytes to a verified manifest to verified files.

The order is fixed by what each step returns. `peek` gives the envelope, `open_bundle` verifies it
and says how long the file must be, and only with its `VerifiedBundle` can files be read, by
`check_members` or `copy_members`. Nothing but the envelope is looked at before the signature is
verified, and no byte is believed before its sha256 is.

The archive has one valid form for each manifest (see tar.py): members in the manifest's order,
two zero blocks, nothing after. A file that is too short raises `Incomplete`, since it may still be
growing; a file that is anything else but right raises `ArchiveError`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from superbrain.bundle import tar
from superbrain.bundle.disk import fsync_folder, new_file
from superbrain.bundle.signing import MAX_ENVELOPE_BYTES, verify_envelope
from superbrain.domain.errors import ArchiveError, Incomplete, StoreError
from superbrain.domain.manifest import FileEntry, Manifest
from superbrain.domain.manifest_json import parse_manifest
from superbrain.domain.trust import Trust, bundle_digest

ENVELOPE_NAME = "MANIFEST.dsse"
CHUNK_BYTES = 1 << 20
_SIZE_OFFSET = 124  # up to here the first header is the same in every bundle

Progress = Callable[[int, int], None]  # bytes done, bytes in all
Sink = Callable[[bytes], object]


class VerifiedBundle(msgspec.Struct, frozen=True):
    """What a verified signature vouches for, and how much of the file is there.

    `signers` are the ids of the trusted keys that signed; `have_bytes` is the file's size when it
    was opened, `total_bytes` the one it must have.
    """

    manifest: Manifest
    digest: str
    envelope: bytes
    signers: tuple[str, ...]
    total_bytes: int
    have_bytes: int

    @property
    def complete(self) -> bool:
        """True when the file has its full length; its content is still to be checked."""
        return self.have_bytes == self.total_bytes


def expected_size(envelope: bytes, manifest: Manifest) -> int:
    """Give the exact size of the bundle file, which the manifest alone decides."""
    sizes = (len(envelope), *(entry.size_bytes for entry in manifest.files))
    return sum(tar.member_bytes(size) for size in sizes) + len(tar.END)


def peek(file: BinaryIO) -> bytes:
    """Read the envelope, the first member, without judging it.

    Raises:
        Incomplete: the file ends before the envelope does.
        ArchiveError: it does not begin like a bundle.
        StoreError: it cannot be read.
    """
    have = _size_of(file)
    block = _read(file, 0, tar.BLOCK)
    start = tar.encode_header(ENVELOPE_NAME, 0)
    if not start[:_SIZE_OFFSET].startswith(block[:_SIZE_OFFSET]):
        raise tar.explain(block.ljust(tar.BLOCK, b"\0"), start, ENVELOPE_NAME)
    if len(block) < tar.BLOCK:
        raise _incomplete(have, tar.member_bytes(1) + len(tar.END))
    size = tar.decode_size(block) or 0
    tar.check_header(block, ENVELOPE_NAME, size)
    if not 1 <= size <= MAX_ENVELOPE_BYTES:
        raise ArchiveError(
            f"archive: {ENVELOPE_NAME}: expected 1 to {MAX_ENVELOPE_BYTES} bytes, found {size}",
            reason="ARCHIVE_ENVELOPE_SIZE",
        )
    body = _read(file, tar.BLOCK, size + tar.padding_bytes(size))
    if len(body) < size + tar.padding_bytes(size):
        raise _incomplete(have, tar.member_bytes(size) + len(tar.END))
    _check_zero(body[size:], ENVELOPE_NAME)
    return body[:size]


def open_bundle(file: BinaryIO, trust: Trust) -> VerifiedBundle:
    """Verify who signed the bundle and read its manifest; the files are not looked at yet.

    Raises:
        Incomplete: the envelope is not there yet. A file that is only missing members is no
            error here: compare `have_bytes` with `total_bytes`.
        SignatureRefused, ManifestError, ArchiveError: the bundle is refused.
        StoreError: the file cannot be read.
    """
    envelope = peek(file)
    signed = verify_envelope(envelope, trust)
    digest = bundle_digest(signed.payload)
    trust.check_not_revoked(digest)
    manifest = parse_manifest(signed.payload)
    total, have = expected_size(envelope, manifest), _size_of(file)
    if have > total:
        raise ArchiveError(
            f"archive: expected exactly {total} bytes, found {have}",
            reason="ARCHIVE_TRAILING",
            mend="Nothing may follow the listed files: build the bundle again",
        )
    return VerifiedBundle(manifest, digest, envelope, signed.signers, total, have)


def check_members(
    file: BinaryIO, verified: VerifiedBundle, progress: Progress | None = None
) -> None:
    """Check every byte of the bundle and write nothing.

    Raises:
        Incomplete, ArchiveError, StoreError: as `copy_members`.
    """
    _stream(file, verified, lambda _: contextlib.nullcontext(len), progress)


def copy_members(
    file: BinaryIO, verified: VerifiedBundle, target: Path, progress: Progress | None = None
) -> None:
    """Copy all files of the bundle into the empty folder `target`, checking them on the way.

    Files become read-only and are on the disk (fsync) when this returns. After an error `target`
    holds files that nobody vouches for: remove it.

    Raises:
        Incomplete: the file ends too early.
        ArchiveError: a header, a size, a hash or the order is not what the manifest says.
        StoreError: the file cannot be read, or the copy not written.
    """
    _stream(file, verified, lambda entry: _file_sink(target / entry.path), progress)
    for folder, _, _ in os.walk(target):
        fsync_folder(Path(folder))


# --- streaming --------------------------------------------------------------------------------


def _stream(
    file: BinaryIO,
    verified: VerifiedBundle,
    open_sink: Callable[[FileEntry], contextlib.AbstractContextManager[Sink]],
    progress: Progress | None,
) -> None:
    reader = _Reader(file, tar.member_bytes(len(verified.envelope)), verified, progress)
    for entry in verified.manifest.files:
        reader.check_header(entry)
        with open_sink(entry) as sink:
            reader.copy(entry, sink)
        _check_zero(reader.take(tar.padding_bytes(entry.size_bytes)), entry.path)
    reader.check_end()


class _Reader:
    """Walks through the members once, from front to back, and counts."""

    def __init__(
        self, file: BinaryIO, position: int, verified: VerifiedBundle, progress: Progress | None
    ) -> None:
        self._file = file
        self._position = position
        self._total = verified.total_bytes
        self._progress = progress or (lambda _done, _total: None)

    def take(self, count: int) -> bytes:
        data = _read(self._file, self._position, count) if count else b""
        self._position += len(data)
        if len(data) < count:
            raise _incomplete(self._position, self._total)
        self._progress(self._position, self._total)
        return data

    def check_header(self, entry: FileEntry) -> None:
        block = self.take(tar.BLOCK)
        if not any(block):
            raise ArchiveError(
                f"archive: expected {entry.path}, found the end of the archive",
                reason="ARCHIVE_MISSING",
                mend="Every file that the manifest lists must be there: build the bundle again",
            )
        tar.check_header(block, entry.path, entry.size_bytes)

    def copy(self, entry: FileEntry, sink: Sink) -> None:
        sha256, left = hashlib.sha256(), entry.size_bytes
        while left:
            chunk = self.take(min(left, CHUNK_BYTES))
            sha256.update(chunk)
            sink(chunk)
            left -= len(chunk)
        if sha256.hexdigest() != entry.sha256:
            raise ArchiveError(
                f"archive: {entry.path}: expected sha256 {entry.sha256}, "
                f"found {sha256.hexdigest()}",
                reason="ARCHIVE_HASH",
                mend="The file was damaged or changed: copy the bundle again from its author",
            )

    def check_end(self) -> None:
        if any(self.take(len(tar.END))) or _read(self._file, self._position, 1):
            raise ArchiveError(
                "archive: expected two zero blocks after the last file and then nothing, "
                "found more",
                reason="ARCHIVE_TRAILING",
                mend="Nothing may follow the listed files: build the bundle again",
            )


@contextlib.contextmanager
def _file_sink(path: Path) -> Iterator[Sink]:
    with new_file(path) as file:
        yield file.write


def _read(file: BinaryIO, position: int, count: int) -> bytes:
    """Read up to `count` bytes; fewer only at the end of the file."""
    try:
        file.seek(position)
        parts: list[bytes] = []
        while count > 0 and (part := file.read(count)):
            parts.append(part)
            count -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
    except OSError as error:
        raise _source_unreadable(error) from error


def _size_of(file: BinaryIO) -> int:
    try:
        return file.seek(0, os.SEEK_END)
    except OSError as error:
        raise _source_unreadable(error) from error


def _check_zero(padding: bytes, path: str) -> None:
    if any(padding):
        raise ArchiveError(
            f"archive: {path}: expected zeros up to the next block, found other bytes",
            reason="ARCHIVE_PADDING",
        )


def _incomplete(have: int, need: int) -> Incomplete:
    return Incomplete(
        f"archive: expected {need} bytes or more, found the end after {have}",
        have_bytes=have,
        need_bytes=need,
    )


def _source_unreadable(error: OSError) -> StoreError:
    return StoreError(
        f"bundle file: expected to read it, found: {error.strerror or error}",
        reason="SOURCE_UNREADABLE",
        mend="Check the disk or network share that it lies on",
    )
