"""Rules of files: what each version of the kernel can withhold, and that it does."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from superbrain.host.sandbox import landlock, places
from superbrain.host.sandbox.landlock import OWN, READ, Grant, Right


@pytest.mark.parametrize(
    ("version", "highest", "size"),
    [
        (1, Right.MAKE_SYM, 8),
        (2, Right.REFER, 8),
        (3, Right.TRUNCATE, 8),
        (4, Right.TRUNCATE, 16),
        (5, Right.IOCTL_DEV, 16),
        (6, Right.IOCTL_DEV, 24),
        (9, Right.IOCTL_DEV, 24),
    ],
)
def test_a_version_is_asked_for_what_it_knows_and_no_more(
    version: int, highest: Right, size: int
) -> None:
    handled = landlock.handled(version)
    assert handled == 2 * highest - 1
    assert len(landlock.ruleset(version)) == size


def test_programs_and_special_files_are_granted_nowhere(tmp_path: Path) -> None:
    never = Right.EXECUTE | Right.MAKE_SOCK | Right.MAKE_FIFO | Right.MAKE_CHAR | Right.MAKE_BLOCK
    for gpu in (False, True):
        assert not any(grant.rights & never for grant in places.grants(tmp_path, tmp_path, gpu=gpu))


def test_only_scratch_and_dev_null_are_writable(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    granted = places.grants(tmp_path / "bundle", scratch, gpu=False)
    writable = {grant.path for grant in granted if grant.rights & Right.WRITE_FILE}
    assert writable == {scratch, Path("/dev/null")}


def test_no_place_is_so_wide_that_it_holds_everything(tmp_path: Path) -> None:
    wide = {Path(name) for name in ("/", "/usr", "/etc", "/var", "/run", "/tmp", "/home", "/proc")}
    assert not wide & {grant.path for grant in places.grants(tmp_path, None, gpu=True)}


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="forking warns where threads may run")
def test_the_kernel_withholds_what_is_not_granted(tmp_path: Path) -> None:
    if not landlock.abi():
        pytest.skip("this kernel has no Landlock")
    mine, other = tmp_path / "mine", tmp_path / "other"
    for folder in (mine, other):
        folder.mkdir()
        (folder / "file").write_text("x")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _no_new_privileges()
            landlock.restrict([Grant(mine, OWN), Grant(Path("/nowhere"), READ)])
            (mine / "new").write_text((mine / "file").read_text())
            (mine / "new").unlink()
            status = _refusals(other)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _no_new_privileges() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)


def _refusals(other: Path) -> int:
    """How many of these were not refused, times ten."""
    worked = 0
    for attempt in (
        (other / "file").read_bytes,
        lambda: (other / "file").write_text("y"),
        (other / "file").unlink,
        (other / "new").mkdir,
        lambda: list(other.iterdir()),
    ):
        try:
            attempt()
        except PermissionError:
            continue
        worked += 10
    return worked
