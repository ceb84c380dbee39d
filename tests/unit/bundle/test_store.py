"""The store: whole bundles only, found damaged when they are, swept clean after a crash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from superbrain.bundle.archive import VerifiedBundle
from superbrain.bundle.folder import BuiltBundle
from superbrain.bundle.store import Store, stored_manifest
from superbrain.domain.errors import BundleError, Incomplete, StoreError
from tests.support.bundles import KeyPair, make_bundle, sign_key, verified


@pytest.fixture
def author(tmp_path: Path) -> KeyPair:
    return sign_key(tmp_path)


@pytest.fixture
def built(tmp_path: Path, author: KeyPair) -> BuiltBundle:
    return make_bundle(tmp_path, author)


@pytest.fixture
def bundle(built: BuiltBundle, author: KeyPair) -> VerifiedBundle:
    return verified(built, author)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def receive(store: Store, built: BuiltBundle, bundle: VerifiedBundle) -> Path:
    with built.path.open("rb") as file:
        return store.receive(file, bundle)


def left_in_staging(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "store" / ".staging").iterdir()]


def test_a_received_bundle_is_listed_and_whole(
    store: Store, built: BuiltBundle, bundle: VerifiedBundle
) -> None:
    assert receive(store, built, bundle) == store.path(built.digest)
    assert store.digests() == (built.digest,)
    assert store.rehash(built.digest) == bundle.manifest


def test_its_manifest_can_be_read_by_its_digest(
    store: Store, built: BuiltBundle, bundle: VerifiedBundle
) -> None:
    folder = receive(store, built, bundle)
    assert store.manifest(built.digest) == bundle.manifest
    assert stored_manifest(folder, built.digest) == bundle.manifest


def test_receiving_it_again_leaves_the_copy_as_it_is(
    store: Store, built: BuiltBundle, bundle: VerifiedBundle
) -> None:
    folder = receive(store, built, bundle)
    inode = folder.stat().st_ino
    assert receive(store, built, bundle).stat().st_ino == inode


def test_receiving_it_again_replaces_a_damaged_copy(
    store: Store, built: BuiltBundle, bundle: VerifiedBundle, tmp_path: Path
) -> None:
    folder = receive(store, built, bundle)
    (folder / "graphs/main.onnx").unlink()
    receive(store, built, bundle)
    assert store.rehash(built.digest) == bundle.manifest
    assert left_in_staging(tmp_path) == []


def test_a_file_cut_short_leaves_nothing_behind(
    store: Store, built: BuiltBundle, bundle: VerifiedBundle, tmp_path: Path
) -> None:
    built.path.write_bytes(built.path.read_bytes()[:-600])
    with pytest.raises(Incomplete):
        receive(store, built, bundle)
    assert (store.digests(), left_in_staging(tmp_path)) == ((), [])


def test_a_file_changed_during_the_copy_leaves_nothing_behind(
    store: Store, built: BuiltBundle, bundle: VerifiedBundle, tmp_path: Path
) -> None:
    data = bytearray(built.path.read_bytes())
    data[-1100] ^= 1
    built.path.write_bytes(data)
    with pytest.raises(BundleError):
        receive(store, built, bundle)
    assert (store.digests(), left_in_staging(tmp_path)) == ((), [])


def test_a_disk_too_small_is_refused_up_front_with_figures(
    store: Store, built: BuiltBundle, bundle: VerifiedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "free_bytes", lambda: 1)
    with pytest.raises(StoreError, match=f"{bundle.total_bytes} for the bundle") as caught:
        receive(store, built, bundle)
    assert caught.value.reason == "STORE_NO_SPACE"


def _rewrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a file is gone": lambda folder: (folder / "graphs/main.onnx").unlink(),
    "a file is shorter": lambda folder: _rewrite(folder / "graphs/main.onnx", b"x"),
    "a file is a link": lambda folder: _replace_by_link(folder / "graphs/main.onnx"),
    "a bit is flipped": lambda folder: _flip(folder / "graphs/main.onnx"),
    "a file is added": lambda folder: (folder / "code.py").write_text("x"),
    "a link is added": lambda folder: (folder / "golden/more").symlink_to("/etc"),
    "the manifest is gone": lambda folder: (folder / "MANIFEST.dsse").unlink(),
    "the manifest is changed": lambda folder: _flip(folder / "MANIFEST.dsse"),
    "the manifest is no envelope": lambda folder: _rewrite(folder / "MANIFEST.dsse", b"{}"),
}


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    _rewrite(path, bytes(data))


def _replace_by_link(path: Path) -> None:
    path.rename(path.parent.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent.parent / "elsewhere")


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_rehash_finds_every_damage(
    store: Store, built: BuiltBundle, bundle: VerifiedBundle, damage: Callable[[Path], object]
) -> None:
    damage(receive(store, built, bundle))
    with pytest.raises(StoreError) as caught:
        store.rehash(built.digest)
    assert caught.value.reason in {"STORE_DAMAGED", "STORE_MISSING"}


def test_rehash_of_an_unknown_bundle_says_that_it_is_missing(store: Store) -> None:
    with pytest.raises(StoreError) as caught:
        store.rehash("0" * 64)
    assert caught.value.reason == "STORE_MISSING"


@pytest.mark.parametrize("digest", ["", "../../etc", "A" * 64, "0" * 63])
def test_what_is_no_digest_never_becomes_a_path(store: Store, digest: str) -> None:
    for action in (store.path, store.remove, store.rehash, store.manifest):
        with pytest.raises(StoreError) as caught:
            action(digest)
        assert caught.value.reason == "STORE_DIGEST"


def test_a_removed_bundle_is_gone(
    store: Store, built: BuiltBundle, bundle: VerifiedBundle, tmp_path: Path
) -> None:
    receive(store, built, bundle)
    store.remove(built.digest)
    assert (store.digests(), left_in_staging(tmp_path)) == ((), [])


def test_removing_what_is_not_there_is_no_error(store: Store) -> None:
    store.remove("0" * 64)


def test_sweeping_removes_what_a_crash_left_behind(store: Store, tmp_path: Path) -> None:
    leftover = tmp_path / "store" / ".staging" / "half"
    leftover.mkdir()
    (leftover / "file").write_text("x")
    assert store.sweep_staging() == 1
    assert left_in_staging(tmp_path) == []


def test_a_store_survives_being_opened_again(
    store: Store, built: BuiltBundle, bundle: VerifiedBundle, tmp_path: Path
) -> None:
    receive(store, built, bundle)
    assert Store(tmp_path / "store").digests() == (built.digest,)


def test_free_bytes_are_those_of_its_disk(store: Store) -> None:
    assert store.free_bytes() > 0
