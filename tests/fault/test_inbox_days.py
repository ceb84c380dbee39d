"""Bad days of the inbox: folders made anew, floods of files, other disks, enormous bundles."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from superbrain.bundle.archive import open_bundle
from superbrain.bundle.folder import build
from superbrain.bundle.store import Store
from superbrain.deploy.inbox_notes import MAX_LISTED
from tests.support.appliance import LOOK_AGAIN_S, Appliance
from tests.support.bundles import make_bundle_folder, sign_key, trust_in
from tests.support.load import Load
from tests.support.releases import answer, go_live, release

pytestmark = [pytest.mark.fault, pytest.mark.integration]

FLOOD = 10_000
FLOOD_OF_BUNDLES = 100
FLOOD_OF_UPDATES = 1000
FLOOD_OF_NOTES = 300
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


def test_a_flood_of_updates_and_of_notes_costs_neither_memory_nor_reports(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1)
        assert appliance.process is not None
        daemon = psutil.Process(appliance.process.pid)
        before = daemon.memory_info().rss
        beside = appliance.root / "many"
        beside.mkdir()
        for number in range(FLOOD_OF_UPDATES):  # sparse: together they take no disk
            with (beside / f"{number}.sbt").open("wb") as file:
                file.truncate(400_000)
        for number in range(FLOOD_OF_NOTES):
            (beside / f"{number}.sbb.refused").touch()
            (beside / f"{number}.sbb.refused.txt").write_bytes(b"x\n\n" + b"\x01" * 65_000)
        for path in list(beside.iterdir()):
            path.rename(appliance.inbox / path.name)
        report = appliance.root / "run" / "health.json"
        most, largest, latest_s = before, 0, 0.0
        while list(appliance.inbox.glob("*.sbt")):
            most = max(most, daemon.memory_info().rss)
            found = report.stat()
            largest = max(largest, found.st_size)
            latest_s = max(latest_s, time.time() - found.st_mtime)
            time.sleep(LOOK_AGAIN_S)
        more = FLOOD_OF_UPDATES + FLOOD_OF_NOTES - MAX_LISTED
        appliance.wait_for(
            lambda: appliance.health().inbox_more == {"refused": more}, "all to be counted"
        )
        assert most - before < 100 << 20
        assert largest < 1 << 20
        assert latest_s < 5.0
        go_live(appliance, 2)


def test_files_with_a_time_of_the_future_are_taken_or_refused_like_any_other(
    tmp_path: Path,
) -> None:
    future = time.time() + 3600
    with Appliance(tmp_path) as appliance:
        for number in (1, 2):
            path = release(appliance, number)
            data = bytearray(path.read_bytes())
            data[-1500] ^= number - 1  # the second is damaged
            beside = appliance.inbox / f".{path.name}"
            beside.write_bytes(data)
            os.utime(beside, (future, future))
            beside.rename(appliance.inbox / path.name)
            if number == 1:  # else the second would take its turn
                appliance.wait_live("adder", "1.0.0")
        appliance.wait_ended("adder", "2.0.0", "REJECTED")
        left = {"adder-2.0.0.sbb.refused", "adder-2.0.0.sbb.refused.txt"}
        appliance.wait_for(
            lambda: {path.name for path in appliance.inbox.iterdir()} == left, "what was refused"
        )


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
