"""Writing a bundle file: the same manifest, files and keys give the same bytes, all or nothing.

The file is written beside its target under a name that starts with a dot (an inbox ignores it),
brought to the disk, and renamed. Whoever sees the target sees a whole bundle.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from superbrain.bundle import tar
from superbrain.bundle.archive import CHUNK_BYTES, ENVELOPE_NAME, Progress, expected_size
from superbrain.bundle.disk import fsync_folder, storing
from superbrain.domain.errors import RecipeError
from superbrain.domain.manifest import FileEntry, Manifest
from superbrain.domain.manifest_json import encode_manifest, parse_manifest

Sign = Callable[[bytes], bytes]  # a manifest's bytes in, the bytes of MANIFEST.dsse out


def write_bundle(
    target: Path,
    manifest: Manifest,
    files: Mapping[str, Path],
    sign: Sign,
    progress: Progress | None = None,
) -> int:
    """Write and sign a bundle; give its size in bytes.

    Args:
        target: the file to make; an existing one is replaced.
        manifest: what it says; it is checked as a reader would.
        files: for every path that the manifest lists, the file with its content.
        sign: makes the envelope, such as `lambda payload: sign_payload(payload, keys)`.
        progress: called with bytes done and bytes in all.

    Raises:
        ManifestError: no reader would accept this manifest.
        RecipeError: a file is not what the manifest says, perhaps it was changed meanwhile.
        StoreError: the bundle cannot be written.
    """
    payload = encode_manifest(manifest)
    parse_manifest(payload)
    envelope = sign(payload)
    total = expected_size(envelope, manifest)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with storing(partial), partial.open("xb") as out:
            _write_members(out, envelope, manifest.files, files, progress or (lambda *_: None))
            out.flush()
            os.fchmod(out.fileno(), 0o644)
            os.fsync(out.fileno())
            partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    fsync_folder(target.parent)
    return total


def _write_members(
    out: BinaryIO,
    envelope: bytes,
    entries: list[FileEntry],
    files: Mapping[str, Path],
    progress: Progress,
) -> None:
    total = sum(tar.member_bytes(entry.size_bytes) for entry in entries)
    out.write(tar.encode_header(ENVELOPE_NAME, len(envelope)))
    out.write(envelope + bytes(tar.padding_bytes(len(envelope))))
    done = 0
    for entry in entries:
        out.write(tar.encode_header(entry.path, entry.size_bytes))
        for chunk in _checked_chunks(files[entry.path], entry):
            out.write(chunk)
            done += len(chunk)
            progress(done, total)
        out.write(bytes(tar.padding_bytes(entry.size_bytes)))
        done += tar.member_bytes(entry.size_bytes) - entry.size_bytes
    out.write(tar.END)
    progress(total, total)


def _checked_chunks(source: Path, entry: FileEntry) -> Iterator[bytes]:
    sha256, count = hashlib.sha256(), 0
    try:
        with source.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                sha256.update(chunk)
                count += len(chunk)
                yield chunk
    except OSError as error:
        raise _changed(source, "to read it", str(error.strerror)) from error
    if count != entry.size_bytes or sha256.hexdigest() != entry.sha256:
        raise _changed(
            source,
            f"{entry.size_bytes} bytes with sha256 {entry.sha256[:12]}…",
            f"{count} bytes with sha256 {sha256.hexdigest()[:12]}…",
        )


def _changed(source: Path, expected: str, found: str) -> RecipeError:
    return RecipeError(
        f"{source}: expected {expected}, found {found}",
        reason="RECIPE_FILE_CHANGED",
        mend="It was changed while the bundle was built: build again",
    )
