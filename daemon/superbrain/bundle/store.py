"""The store: this host's own copy of every bundle it works with, named by digest.

    ROOT/bundles/DIGEST/     MANIFEST.dsse and the bundle's files, read-only
    ROOT/.staging/           copies under way; whatever a crash leaves here is swept at the start

A bundle enters by being copied into staging, checked while it is copied, brought to the disk and
renamed: a folder under `bundles/` is always whole. The digest is the sha256 of the manifest, which
holds the sha256 of every file, so the store can check itself (`rehash`) without any key.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import stat
from pathlib import Path
from typing import BinaryIO

from superbrain.bundle.archive import (
    CHUNK_BYTES,
    ENVELOPE_NAME,
    Progress,
    VerifiedBundle,
    copy_members,
)
from superbrain.bundle.disk import (
    fsync_folder,
    make_folder,
    new_file,
    remove,
    remove_tree,
    rename,
    storing,
)
from superbrain.bundle.signing import MAX_ENVELOPE_BYTES, read_envelope, verify_envelope
from superbrain.domain.errors import BundleError, StoreError, shown
from superbrain.domain.manifest import FileEntry, Manifest
from superbrain.domain.manifest_json import parse_manifest
from superbrain.domain.trust import Trust, bundle_digest

RESERVE_BYTES = 64 << 20  # left free for journal, health file and logs
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Store:
    """The bundles of this host. Only one process may write to it."""

    def __init__(self, root: Path, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        self._bundles = root / "bundles"
        self._staging = root / ".staging"
        self._reserve_bytes = reserve_bytes
        self._leftovers: set[Path] = set()
        with storing(root):
            make_folder(self._bundles)
            make_folder(self._staging)

    def receive(
        self, file: BinaryIO, verified: VerifiedBundle, progress: Progress | None = None
    ) -> Path:
        """Copy a verified bundle into the store; give its folder.

        A bundle that is already there and intact is left as it is; a damaged one is replaced.

        Raises:
            Incomplete, ArchiveError: the file is not what its manifest says; nothing is kept.
            StoreError: not enough room, or the copy could not be written.
        """
        final = self.path(verified.digest)
        if final.exists() and self._intact(verified.digest):
            fsync_folder(self._bundles)  # whoever brought it here may have been cut short
            return final
        self._check_room(verified.total_bytes)
        staged = self._staging / f"{verified.digest}-{secrets.token_hex(4)}"
        try:
            with storing(staged):
                make_folder(staged)
            with new_file(staged / ENVELOPE_NAME) as file_there:
                file_there.write(verified.envelope)
            copy_members(file, verified, staged, progress)
            self.remove(verified.digest)
            with storing(final):
                rename(staged, final)
            fsync_folder(self._bundles)
        finally:
            self._sweep_later(staged)
        return final

    def path(self, digest: str) -> Path:
        """Give the folder that holds this bundle, or would.

        Raises:
            StoreError: `digest` is not a sha256.
        """
        if not _DIGEST.fullmatch(digest):
            raise StoreError(
                f"store: expected a digest of 64 lower-case hex digits, found {shown(digest)}",
                reason="STORE_DIGEST",
            )
        return self._bundles / digest

    def manifest(self, digest: str) -> Manifest:
        """Read a stored bundle's manifest; it is the one that the digest names.

        Raises:
            StoreError: missing, or damaged.
        """
        return stored_manifest(self.path(digest), digest)

    def verify(self, digest: str, trust: Trust) -> tuple[str, ...]:
        """Check a stored bundle's signatures again, by the trust that counts now; give the signers.

        Raises:
            SignatureRefused: too few trusted keys vouch for it, or it has been revoked.
            StoreError: its envelope is missing or unreadable.
        """
        path = self.path(digest) / ENVELOPE_NAME
        try:
            envelope = path.read_bytes()
        except OSError as error:
            raise _damaged(path, "a readable envelope", str(error.strerror)) from error
        signers = verify_envelope(envelope, trust).signers
        trust.check_not_revoked(digest)
        return signers

    def rehash(self, digest: str, progress: Progress | None = None) -> Manifest:
        """Check every byte of a stored bundle, and that nothing was added.

        Raises:
            StoreError: something is missing, changed or extra; the sentence names it.
        """
        folder = self.path(digest)
        manifest = stored_manifest(folder, digest)
        _check_no_extra(folder, manifest)
        total = sum(entry.size_bytes for entry in manifest.files)
        done = 0
        for entry in manifest.files:
            _check_file(folder / entry.path, entry)
            done += entry.size_bytes
            if progress is not None:
                progress(done, total)
        return manifest

    def digests(self) -> tuple[str, ...]:
        """List the digests of all stored bundles, sorted."""
        with storing(self._bundles):
            names = (entry.name for entry in self._bundles.iterdir() if entry.is_dir())
            return tuple(sorted(name for name in names if _DIGEST.fullmatch(name)))

    def remove(self, digest: str) -> None:
        """Remove a bundle; it is gone at once even if deleting its files is cut short.

        Raises:
            StoreError: it cannot be removed.
        """
        doomed = self._staging / f"{digest}-{secrets.token_hex(4)}-removed"
        folder = self.path(digest)
        with storing(folder):
            try:
                rename(folder, doomed)
            except FileNotFoundError:
                return
        try:
            fsync_folder(self._bundles)
        finally:
            self._sweep_later(doomed)

    def sweep_staging(self) -> int:
        """Delete what interrupted copies left behind; give how many. Call it at the start only.

        Raises:
            StoreError: something cannot be removed; everything else has been.
        """
        with storing(self._staging):
            found = list(self._staging.iterdir())
        self._leftovers |= set(found)
        self.sweep_leftovers()
        if self._leftovers:
            stuck = min(self._leftovers)
            msg = f"{stuck}: expected to remove it, found that it cannot be"
            raise StoreError(msg, reason="STORE_IO", mend="Check the disk and its permissions")
        return len(found)

    def sweep_leftovers(self) -> None:
        """Try again to remove what a disk that failed would not let go of."""
        for path in tuple(self._leftovers):
            self._leftovers.discard(path)
            self._sweep_later(path)

    def _sweep_later(self, path: Path) -> None:
        """Remove what is in staging and not needed any more, now or when the disk is mended."""
        try:
            if path.is_dir() and not path.is_symlink():
                remove_tree(path)
            else:
                remove(path)
        except FileNotFoundError:
            return
        except OSError:
            self._leftovers.add(path)

    def free_bytes(self) -> int:
        """Give the free space on the store's disk."""
        with storing(self._bundles):
            return shutil.disk_usage(self._bundles).free

    def _intact(self, digest: str) -> bool:
        try:
            self.rehash(digest)
        except StoreError:
            return False
        return True

    def _check_room(self, size_bytes: int) -> None:
        free, need = self.free_bytes(), size_bytes + self._reserve_bytes
        if free < need:
            raise StoreError(
                f"store: expected {need} bytes free ({size_bytes} for the bundle and "
                f"{self._reserve_bytes} in reserve), found {free}",
                reason="STORE_NO_SPACE",
                mend=f"Free {need - free} bytes on the disk of {self._bundles.parent}",
            )


def stored_manifest(folder: Path, digest: str) -> Manifest:
    """Read the manifest from a bundle's folder in the store and check it against its digest.

    Raises:
        StoreError: missing, or not the manifest that the digest names.
    """
    try:
        with (folder / ENVELOPE_NAME).open("rb") as file:
            payload = read_envelope(file.read(MAX_ENVELOPE_BYTES + 1)).payload
        if bundle_digest(payload) == digest:
            return parse_manifest(payload)
    except FileNotFoundError as error:
        raise _damaged(folder, "a stored bundle", "none", "STORE_MISSING") from error
    except OSError as error:
        raise _damaged(folder, "a readable manifest", str(error.strerror)) from error
    except BundleError as error:
        raise _damaged(folder, "its signed manifest", error.message) from error
    raise _damaged(folder, f"the manifest with sha256 {digest}", "another one")


def _check_no_extra(folder: Path, manifest: Manifest) -> None:
    listed = {ENVELOPE_NAME, *(entry.path for entry in manifest.files)}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent) / name
            if path.is_symlink() or (
                not path.is_dir() and path.relative_to(folder).as_posix() not in listed
            ):
                raise _damaged(path, "nothing but the bundle's own files", "an extra one")


def _check_file(path: Path, entry: FileEntry) -> None:
    sha256 = hashlib.sha256()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb", buffering=0) as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size_bytes:
                raise _damaged(path, f"a file of {entry.size_bytes} bytes", f"{found.st_size}")
            while chunk := file.read(CHUNK_BYTES):
                sha256.update(chunk)
    except OSError as error:
        raise _damaged(path, "to read it", str(error.strerror)) from error
    if sha256.hexdigest() != entry.sha256:
        raise _damaged(path, f"sha256 {entry.sha256}", sha256.hexdigest())


def _damaged(path: Path, expected: str, found: str, reason: str = "STORE_DAMAGED") -> StoreError:
    return StoreError(
        f"{path}: expected {expected}, found {found}",
        reason=reason,
        mend="Drop the bundle file into the inbox again",
    )
