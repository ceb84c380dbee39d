"""The files of an opened bundle, read as what was signed or not at all.

Every file is looked up in the manifest first and hashed after it was read, so neither a path that
leaves the bundle nor a byte that changed on disk gets through.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from superbrain.domain.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from superbrain.domain.manifest import Manifest

_MEND = "Install the bundle again; its copy on this host was damaged or changed by hand"


class BundleFiles:
    """The files that `manifest` lists, below the folder `root`."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self._entries = {entry.path: entry for entry in manifest.files}

    def __contains__(self, path: object) -> bool:
        """Tell whether the manifest lists a file of this path."""
        return path in self._entries

    def below(self, folder: str) -> list[str]:
        """Paths of all files in `folder`, which ends with a slash."""
        return sorted(path for path in self._entries if path.startswith(folder))

    def read(self, path: str) -> bytes:
        """Give the bytes of one listed file.

        Raises:
            KeyError: the manifest lists no such file.
            StoreError: the file is gone or is not what was signed.
        """
        entry = self._entries[path]
        try:
            data = (self.root / path).read_bytes()
        except OSError as error:
            raise StoreError(
                f"{path}: expected to read the bundle's file, found {error}",
                reason="STORE_DAMAGED",
                mend=_MEND,
            ) from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != entry.sha256:
            raise StoreError(
                f"{path}: expected sha256 {entry.sha256}, found {digest} ({len(data)} bytes)",
                reason="STORE_DAMAGED",
                mend=_MEND,
            )
        return data
