"""The archive is written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from superbrain.cli.support import command
from superbrain.wire.errors import InvalidArgument
from tests.support.faulty_disk import Fault, failing


@pytest.mark.parametrize(("kind", "number"), [("ENOSPC", 1), ("ENOSPC", 3), ("short", 3)])
def test_a_full_disk_is_told_and_the_next_try_finds_nothing_in_its_way(
    tmp_path: Path, kind: str, number: int
) -> None:
    path = tmp_path / "s.tar.gz"
    with failing() as operations:
        operations.arm(Fault(kind, number))
        with pytest.raises(InvalidArgument, match="No space left on device") as caught:
            command._write(path, b"an archive")
    assert caught.value.mend == "Free some space on that disk, or name another place by --output"
    assert list(tmp_path.iterdir()) == []
    command._write(path, b"an archive")
    assert path.read_bytes() == b"an archive"
