"""Bad days of the inbox: folders made anew, floods of files, other disks, enormous bundles."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from superbrain.bundle.archive import open_bundle
from superbrain.bundle.folder import build
from superbrain.bundle.store import Store
from tests.support.appliance import Appliance
from tests.support.bundles import make_bundle_folder, sign_key, trust_in
from tests.support.load import Load
from tests.support.releases import answer, go_live, release

pytestmark = [pytest.mark.fault, pytest.mark.integration]

FLOOD = 10_000
FLOOD_OF_BUNDLES = 100
MORE_THAN_4_GIB = (4 << 30) + 512
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a tmpfs")


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_an_inbox_that_was_removed_and_made_anew_is_looked_through(tmp_path: Path) -> None:
    """The kernel watches a folder, not a name: no event tells of what comes into the new one."""
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1)
        with Load(appliance.client, clients=1) as load:
            appliance.wait_for(lambda: not list(appliance.inbox.iterdir()), "an empty inbox")
            appliance.inbox.rmdir()
            appliance.inbox.mkdir()
            go_live(appliance, 2)
        load.assert_flawless()


def test_ten_thousand_files_at_once_hide_no_bundle_and_cost_no_answer(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1)
        assert appliance.process is not None
        daemon = appliance.process.pid
        with Load(appliance.client, clients=1) as load:
            for number in range(FLOOD):
                (appliance.inbox / f"stray-{number}.txt").touch()
            for number in range(FLOOD_OF_BUNDLES):
                (appliance.inbox / f"junk-{number}-1.0.0.sbb").write_bytes(b"junk" * 256)
            go_live(appliance, 2)
            appliance.wait_for(
                lambda: len(list(appliance.inbox.glob("junk-*.refused"))) >= FLOOD_OF_BUNDLES,
                "every junk file to be put aside",
            )
        load.assert_flawless()
        assert appliance.process.pid == daemon
        assert len(list(appliance.inbox.glob("stray-*.txt"))) == FLOOD


@needs_root
def test_an_inbox_on_another_disk_is_taken_from(tmp_path: Path) -> None:
    with Appliance(tmp_path, start=False) as appliance, tmpfs(appliance.inbox, "64m"):
        appliance.start()
        go_live(appliance, 1)
        assert answer(appliance) == 1.0
        assert appliance.inbox.stat().st_dev != appliance.root.stat().st_dev
        appliance.wait_for(lambda: not list(appliance.inbox.iterdir()), "an empty inbox")
        appliance.stop()


def test_a_file_deleted_while_it_is_copied_ends_nothing(tmp_path: Path) -> None:
    """Whether the copy was whole by then or not: it serves or it is forgotten, no third way."""
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1)
        with Load(appliance.client, clients=1) as load:
            for number in range(2, 8):
                path = shutil.copy(release(appliance, number), appliance.inbox)
                Path(path).unlink()
            go_live(appliance, 9)
        load.assert_flawless()
        assert list((appliance.root / "state/store/.staging").iterdir()) == []


@needs_root
def test_a_file_beyond_four_gib_is_stored_and_proven_whole(tmp_path: Path) -> None:
    """In memory, and sparse where it can be: what counts is that no length wraps around."""
    with tmpfs(tmp_path / "disk", "10g") as disk:
        author = sign_key(tmp_path)
        folder = make_bundle_folder(disk)
        large = folder / "assets" / "large.bin"
        large.parent.mkdir(exist_ok=True)
        with large.open("wb") as file:
            file.truncate(MORE_THAN_4_GIB)
            file.seek(-1, os.SEEK_END)
            file.write(b"\1")
        built = build(folder, [author.signing], disk)
        store = Store(disk / "store")
        with built.path.open("rb") as file:
            verified = open_bundle(file, trust_in(author))
            stored = store.receive(file, verified)
        assert (stored / "assets" / "large.bin").stat().st_size == MORE_THAN_4_GIB
        assert store.rehash(built.digest) == verified.manifest
