"""Writing one golden case into an author's folder, where `bundle build` will find it.

    golden/CASE/request/NAME.*                      what a caller sends, the file as it was given
    golden/CASE/response/NAME.*                     what came back
    golden/CASE/graphs/GRAPH/inputs/NAME.npy        what went into a graph
    golden/CASE/graphs/GRAPH/outputs/NAME.npy       what came out of it

What an earlier recording left in a folder is replaced, so that no stale tensor stays behind.
"""

from __future__ import annotations

import shutil
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from superbrain.bundle.disk import whole_or_nothing
from superbrain.bundle.tensors import Array, write_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from superbrain.domain.manifest import GraphTensor, InterfaceTensor


class Recorded(NamedTuple):
    """One tensor that was written: its case, the part of the case, its name and content."""

    case: str
    part: str
    tensor: str
    array: Array


class GoldenWriter:
    """Writes the parts of one case below `folder`/golden/`case`."""

    def __init__(self, folder: Path, case: str) -> None:
        self._case = case
        self._place = folder / "golden" / case

    def keep_request(
        self,
        tensors: Sequence[InterfaceTensor],
        files: Mapping[str, Path],
        arrays: Mapping[str, Array],
    ) -> list[Recorded]:
        """Keep the request's files as they are: a JPEG stays a JPEG."""
        found: list[Recorded] = []
        for tensor in tensors:
            source = files[tensor.name]
            target = self._place / "request" / f"{tensor.name}{source.suffix or '.bin'}"
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.resolve() != target.resolve():
                _forget(target.parent, PurePosixPath(tensor.name).name)
                shutil.copyfile(source, target)
            found.append(Recorded(self._case, "request", tensor.name, arrays[tensor.name]))
        return found

    def write(
        self,
        part: str,
        tensors: Sequence[InterfaceTensor] | Sequence[GraphTensor],
        arrays: Mapping[str, Array],
    ) -> list[Recorded]:
        """Write one part, such as `response` or `graphs/det/inputs`; nothing else stays in it.

        Raises:
            TensorFileError: an array is not what its tensor declares.
            StoreError: it cannot be written; nothing of this part is left.
        """
        folder = self._place / part
        shutil.rmtree(folder, ignore_errors=True)
        found: list[Recorded] = []
        with whole_or_nothing(folder):
            folder.mkdir(parents=True)
            for tensor in tensors:
                array = arrays[tensor.name]
                write_tensor(folder, tensor, array)
                found.append(Recorded(self._case, part, tensor.name, array))
        return found


def _forget(folder: Path, name: str) -> None:
    """Remove other files of the same tensor: one tensor, one file."""
    for path in folder.iterdir():
        if path.is_file() and path.stem == name:
            path.unlink()
