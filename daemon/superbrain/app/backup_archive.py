"""The file of a backup: an uncompressed tar whose last member lists all others with their hashes.

    config/superbrain.toml, trust/…, tcp/…, state/…      what is in it
    BACKUP.json                                          domain.backup.Backup

What was cut short has no last member and is no backup. Nothing is ever extracted by name: the
reader gives the content of the members that the list has, and refuses a file with any other.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Self

import msgspec

from superbrain.bundle.disk import FULL, fsync_folder, not_written
from superbrain.domain.backup import SCHEMA, Backup, HeldFile
from superbrain.domain.errors import StoreError
from superbrain.wire.errors import SuperbrainError

LIST_NAME: Final = "BACKUP.json"
MAX_LIST_BYTES: Final = 256 << 20
CHUNK_BYTES: Final = 1 << 20
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class BackupError(SuperbrainError):
    """A backup cannot be made, read or restored; `code` is stable."""

    def __init__(self, message: str, *, code: str, mend: str = "") -> None:
        super().__init__(message, mend=mend)
        self.code = code


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, never through a link.

    Raises:
        BackupError: it is something else.
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, _READ)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BackupError(
            f"{path}: expected a regular file, found something else",
            code="BACKUP_NOT_REGULAR",
            mend="Remove it: superbrain puts only regular files there",
        )
    return os.fdopen(descriptor, "rb")


def unwritable(place: object, error: OSError) -> BackupError:
    """What a disk that takes no more is to a backup."""
    message, mend = not_written(place, error)
    code = "BACKUP_NO_SPACE" if error.errno in FULL else "BACKUP_UNWRITABLE"
    return BackupError(message, code=code, mend=mend)


class ArchiveWriter:
    """Writes a backup beside its target, for nobody but its owner; `finish` gives it its name."""

    def __init__(self, target: Path) -> None:
        self.files: list[HeldFile] = []
        self._target = target
        self._part = target.with_name(f".{target.name}.part")
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if self._target.exists() or self._target.is_symlink():
            raise BackupError(
                f"expected to make {self._target}, found that it is there already",
                code="BACKUP_EXISTS",
                mend="Choose another name, or move it away",
            )
        with self._writing():
            self._part.unlink(missing_ok=True)
            file = self._stack.enter_context(os.fdopen(os.open(self._part, _NEW, 0o600), "w+b"))
        self._file = file
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # what could not be written is tried once more
            self._stack.close()
        self._part.unlink(missing_ok=True)

    def add(self, name: str, file: BinaryIO, mode: int | None = None) -> HeldFile:
        """Add what can be read from an open file, as long as it is now."""
        found = os.fstat(file.fileno())
        return self._add(name, file, found.st_size, found.st_mode if mode is None else mode)

    def add_bytes(self, name: str, data: bytes, mode: int) -> HeldFile:
        """Add a file with this content."""
        return self._add(name, io.BytesIO(data), len(data), mode)

    def mark(self) -> tuple[int, int]:
        """Where the archive ends now; `rewind` forgets what was added since."""
        return self._tar.offset, len(self.files)

    def rewind(self, mark: tuple[int, int]) -> None:
        """Forget what was added since `mark`."""
        with self._writing():
            self._file.seek(mark[0])
            self._file.truncate()
        self._tar.offset = mark[0]
        del self.files[mark[1] :]

    def finish(self, backup: Backup) -> str:
        """Add the list, bring all to the disk, give it its name; the sha256 of the whole."""
        data = msgspec.json.format(msgspec.json.encode(backup), indent=1)
        with self._writing():
            self._write(LIST_NAME, io.BytesIO(data), len(data), 0o600)
            self._tar.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.seek(0)
            digest = hashlib.file_digest(self._file, "sha256").hexdigest()
            self._name_it()
        fsync_folder(self._target.absolute().parent)
        return digest

    def _name_it(self) -> None:
        """Give the file its name, over no other; not every disk knows links."""
        try:
            os.link(self._part, self._target)
        except FileExistsError:
            raise
        except OSError:
            self._part.rename(self._target)

    def _add(self, name: str, file: BinaryIO, size_bytes: int, mode: int) -> HeldFile:
        permissions = stat.S_IMODE(mode) & 0o777
        digest = self._write(name, file, size_bytes, permissions)
        held = HeldFile(name, size_bytes, digest, permissions)
        self.files.append(held)
        return held

    def _write(self, name: str, file: BinaryIO, size_bytes: int, mode: int) -> str:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size_bytes, mode
        hashed = _Hashed(file, name)
        with self._writing():
            self._tar.addfile(info, hashed)
        return hashed.sha256.hexdigest()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unwritable(self._target, error) from error


class _Hashed(io.RawIOBase):
    """A file that is hashed while it is read; what is wrong with it is no fault of the archive."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._file.read(size)
        except OSError as error:
            raise self._unreadable(error.strerror or str(error)) from error
        if len(data) < size:
            raise self._unreadable("its end, before its size")
        self.sha256.update(data)
        return data

    def _unreadable(self, found: str) -> StoreError:
        return StoreError(
            f"{self._name}: expected to read it, found: {found}",
            reason="STORE_IO",
            mend="Check the disk, and try again",
        )


class ArchiveReader:
    """An open backup: its list, and the content of its members.

    Raises:
        BackupError: it is none, not whole, or of a format that this build does not know.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self) -> None:
        try:
            file = self._stack.enter_context(open_regular(self.path))
            tar = self._stack.enter_context(tarfile.open(fileobj=file, mode="r:"))  # noqa: SIM115
            members = tar.getmembers()
        except OSError as error:
            raise self._wrong(f"it cannot be read: {error.strerror or error}") from error
        except tarfile.TarError as error:
            raise self._wrong(f"it is not whole, or no tar file: {error}") from error
        self._tar = tar
        self._members = {member.name: member for member in members}
        last = members[-1] if members else None
        if last is None or last.name != LIST_NAME or last.size > MAX_LIST_BYTES:
            raise self._wrong(f"it does not end with {LIST_NAME}: it is no backup, or not whole")
        self.backup = self._read_list(last)
        self._check_names(members[:-1])

    def read(self, name: str) -> bytes | None:
        """Give the whole content of a small file; None when it is not in the backup."""
        held = next((file for file in self.backup.files if file.name == name), None)
        return b"".join(self.chunks(held)) if held else None

    def chunks(self, held: HeldFile) -> Iterator[bytes]:
        """Give a file's content, hashed on the way.

        Raises:
            BackupError: at the end, when it is not what the list says; do not use it then.
        """
        content = self._tar.extractfile(self._members[held.name])
        assert content is not None  # noqa: S101 - only regular files are listed
        sha256 = hashlib.sha256()
        try:
            while chunk := content.read(CHUNK_BYTES):
                sha256.update(chunk)
                yield chunk
        except (OSError, tarfile.TarError) as error:
            raise self._wrong(f"{held.name} cannot be read: {error}") from error
        if sha256.hexdigest() != held.sha256:
            raise self._wrong(f"{held.name} is not what was backed up: its sha256 differs")

    def _read_list(self, member: tarfile.TarInfo) -> Backup:
        content = self._tar.extractfile(member) if member.isreg() else None
        data = content.read() if content is not None else b""
        try:
            schema = msgspec.json.decode(data, type=_Schema).schema
            if schema != SCHEMA:
                raise BackupError(
                    f"{self.path}: expected a backup of schema {SCHEMA}, found {schema}",
                    code="BACKUP_SCHEMA",
                    mend="Restore it with the version of superbrain that made it, then upgrade",
                )
            return msgspec.json.decode(data, type=Backup)
        except msgspec.MsgspecError as error:
            raise self._wrong(f"{LIST_NAME} does not fit: {error}") from error

    def _check_names(self, members: list[tarfile.TarInfo]) -> None:
        listed = {file.name: file.size_bytes for file in self.backup.files}
        for member in members:
            if not member.isreg() or listed.pop(member.name, None) != member.size:
                raise self._wrong(f"expected only what {LIST_NAME} lists, found {member.name!r}")
            if not _plain(member.name):
                raise self._wrong(f"expected plain names, found {member.name!r}")
        if listed:
            raise self._wrong(f"expected {min(listed)!r}, found nothing of that name")

    def _wrong(self, found: str) -> BackupError:
        return BackupError(
            f"{self.path} cannot be restored: {found}",
            code="BACKUP_DAMAGED",
            mend="Copy it again, or take an older backup",
        )


class _Schema(msgspec.Struct):
    schema: int


def _plain(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return name == "/".join(parts) and not {"", "/", ".", ".."} & {*parts}
