"""Writing bundles: deterministic, whole or not at all."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from superbrain.bundle.archive_writer import write_bundle
from superbrain.bundle.folder import read_folder
from superbrain.bundle.keys import KeyKind
from superbrain.bundle.signing import sign_payload
from superbrain.domain.errors import ManifestError, RecipeError, StoreError
from superbrain.domain.manifest import Manifest
from tests.support.bundles import build_bundle, make_bundle, make_bundle_folder, sign_key


def write(folder: Path, manifest: Manifest, target: Path) -> int:
    files = {entry.path: folder / entry.path for entry in manifest.files}
    key = sign_key(folder.parent / "keys").signing
    return write_bundle(target, manifest, files, lambda payload: sign_payload(payload, [key]))


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_building_twice_gives_identical_bytes(tmp_path: Path, kind: KeyKind) -> None:
    key = sign_key(tmp_path, kind=kind)
    first = make_bundle(tmp_path / "first", key)
    second = make_bundle(tmp_path / "second", key)
    assert first.path.read_bytes() == second.path.read_bytes()


def test_an_existing_bundle_is_replaced(tmp_path: Path) -> None:
    key = sign_key(tmp_path)
    folder = make_bundle_folder(tmp_path)
    (tmp_path / "adder-1.0.0.sbb").write_text("old")
    built = build_bundle(folder, key)
    assert built.path.stat().st_size == built.size_bytes


def test_nothing_but_the_bundle_is_left_behind(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    built = make_bundle(tmp_path, sign_key(tmp_path), target=target)
    assert list(target.iterdir()) == [built.path]


def test_a_file_changed_while_building_leaves_no_bundle(tmp_path: Path) -> None:
    folder = make_bundle_folder(tmp_path)
    manifest = read_folder(folder)
    (folder / "graphs/main.onnx").write_bytes(b"changed")
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(RecipeError) as caught:
        write(folder, manifest, target / "x.sbb")
    assert caught.value.reason == "RECIPE_FILE_CHANGED"
    assert list(target.iterdir()) == []


def test_a_manifest_that_no_reader_accepts_is_not_written(tmp_path: Path) -> None:
    folder = make_bundle_folder(tmp_path)
    manifest = msgspec.structs.replace(read_folder(folder), name="Not A Name")
    with pytest.raises(ManifestError):
        write(folder, manifest, tmp_path / "x.sbb")
    assert not (tmp_path / "x.sbb").exists()


def test_a_target_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = make_bundle_folder(tmp_path)
    with pytest.raises(StoreError, match="nowhere"):
        write(folder, read_folder(folder), tmp_path / "nowhere" / "x.sbb")


def test_progress_ends_with_all_bytes(tmp_path: Path) -> None:
    folder = make_bundle_folder(tmp_path)
    manifest = read_folder(folder)
    files = {entry.path: folder / entry.path for entry in manifest.files}
    key = sign_key(tmp_path).signing
    seen: list[tuple[int, int]] = []
    write_bundle(
        tmp_path / "x.sbb",
        manifest,
        files,
        lambda payload: sign_payload(payload, [key]),
        lambda *pair: seen.append(pair),
    )
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
def test_gnu_tar_makes_the_same_bytes_from_the_same_files(tmp_path: Path) -> None:
    assets = tmp_path / "adder-1.0.0" / "assets" / ("d" * 60)
    assets.mkdir(parents=True)
    (assets / ("f" * 80)).write_text("a path longer than a hundred characters")
    built = make_bundle(tmp_path, sign_key(tmp_path))
    files = tmp_path / "files"
    files.mkdir()
    subprocess.run(["tar", "-xf", built.path, "-C", files], check=True)
    listed = subprocess.run(["tar", "-tf", built.path], check=True, capture_output=True, text=True)
    options = "--format=ustar -b1 --owner=0 --group=0 --numeric-owner --mode=0644 --mtime=@0"
    again = subprocess.run(
        ["tar", "-cf", "-", *options.split(), *listed.stdout.split()],
        cwd=files,
        check=True,
        capture_output=True,
    )
    assert again.stdout == built.path.read_bytes()
