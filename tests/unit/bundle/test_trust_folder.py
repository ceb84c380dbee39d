"""The trust folder: read as it is, refused when somebody else could have written it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from superbrain.bundle.trust_folder import read_trust_folder
from superbrain.domain.errors import TrustUnusable
from tests.support.bundles import KeyPair, make_trust_folder, sign_key
from tests.support.users import folder_for_all, nobody


@pytest.fixture
def author(tmp_path: Path) -> KeyPair:
    return sign_key(tmp_path / "author")


@pytest.fixture
def folder(tmp_path: Path, author: KeyPair) -> Path:
    return make_trust_folder(tmp_path / "trust", author)


def refusal(folder: Path) -> TrustUnusable:
    with pytest.raises(TrustUnusable) as caught:
        read_trust_folder(folder)
    return caught.value


def write_rules(folder: Path, text: str) -> None:
    (folder / "trust.toml").write_text(text)


def test_keys_and_threshold_are_read(tmp_path: Path, author: KeyPair) -> None:
    other = sign_key(tmp_path / "author", "other", "p256")
    trust = read_trust_folder(make_trust_folder(tmp_path / "trust", author, other, threshold=2))
    assert {key.key_id for key in trust.keys} == {author.key_id, other.key_id}
    assert trust.threshold == 2


def test_without_trust_toml_one_signature_is_enough(folder: Path) -> None:
    (folder / "trust.toml").unlink()
    assert read_trust_folder(folder).threshold == 1


def test_revocations_are_read(folder: Path) -> None:
    write_rules(folder, f'revoked_keys = ["{"a" * 64}"]\nrevoked_bundles = ["{"b" * 64}"]')
    trust = read_trust_folder(folder)
    assert trust.revoked_keys == {"a" * 64}
    assert trust.revoked_bundles == {"b" * 64}


def test_one_key_in_two_files_counts_once(folder: Path, author: KeyPair) -> None:
    (folder / "keys" / "copy.pub").write_bytes(author.public.read_bytes())
    (folder / "keys" / "copy.pub").chmod(0o644)
    assert len(read_trust_folder(folder).keys) == 1


def test_other_files_beside_the_keys_are_left_alone(folder: Path) -> None:
    (folder / "keys" / "README").write_text("whose keys these are")
    assert len(read_trust_folder(folder).keys) == 1


def test_an_empty_folder_is_refused_with_the_way_to_a_key(tmp_path: Path) -> None:
    error = refusal(make_trust_folder(tmp_path / "trust"))
    assert error.reason == "TRUST_EMPTY"
    assert str(tmp_path / "trust") in error.message
    assert "superbrain key generate" in error.mend


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").reason == "TRUST_UNREADABLE"


def test_a_threshold_that_the_keys_cannot_meet_is_refused(folder: Path) -> None:
    write_rules(folder, "threshold = 2")
    assert refusal(folder).reason == "TRUST_THRESHOLD"


@pytest.mark.parametrize(
    "text",
    [
        "threshold = 0",
        "threshold = true",
        'threshold = "1"',
        "treshold = 2",
        'revoked_keys = ["author"]',
        "revoked_bundles = 7",
        "this is not TOML",
        "threshold = 1\nthreshold = 2",
    ],
)
def test_malformed_rules_are_refused(folder: Path, text: str) -> None:
    write_rules(folder, text)
    assert refusal(folder).reason == "TRUST_MALFORMED"


@pytest.mark.parametrize("path", [".", "keys", "keys/author.pub", "trust.toml"])
@pytest.mark.parametrize("mode", [0o020, 0o002])
def test_what_others_can_write_is_refused(folder: Path, path: str, mode: int) -> None:
    place = folder / path
    place.chmod(place.stat().st_mode | mode)
    error = refusal(folder)
    assert error.reason == "TRUST_WRITABLE"
    assert "chmod go-w" in error.mend


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("path", [".", "keys", "keys/author.pub", "trust.toml"])
def test_what_belongs_to_somebody_else_is_refused(folder: Path, path: str) -> None:
    os.chown(folder / path, 12345, -1)
    assert refusal(folder).reason == "TRUST_OWNER"


def test_a_key_behind_a_symbolic_link_is_refused(folder: Path, author: KeyPair) -> None:
    (folder / "keys" / "linked.pub").symlink_to(author.public)
    assert refusal(folder).reason == "TRUST_UNREADABLE"


def test_a_fifo_in_place_of_a_key_does_not_hang(folder: Path) -> None:
    os.mkfifo(folder / "keys" / "pipe.pub")
    assert refusal(folder).reason == "TRUST_MALFORMED"


def test_a_file_that_is_no_key_is_refused(folder: Path) -> None:
    (folder / "keys" / "broken.pub").write_text("no key")
    assert refusal(folder).reason == "KEY_UNREADABLE"


@pytest.mark.parametrize(
    "path", [".", "keys", "keys/author.pub", "trust.toml", "revoked", f"revoked/{'ab' * 32}"]
)
def test_what_cannot_be_read_is_said_and_never_taken_for_nothing(
    author: KeyPair, path: str
) -> None:
    with folder_for_all() as above:
        folder = make_trust_folder(above / "trust", author)
        (folder / "revoked").mkdir(mode=0o755)
        (folder / "revoked" / ("ab" * 32)).touch(0o644)
        (folder / path).chmod(0)
        with nobody():
            error = refusal(folder)
        (folder / path).chmod(0o755)
    assert error.reason == "TRUST_UNREADABLE"
    assert "chmod a+rX" in error.mend
    assert str(folder / path) in error.mend


def test_a_folder_of_revocations_behind_a_broken_link_is_refused(folder: Path) -> None:
    (folder / "revoked").symlink_to(folder / "nowhere")
    assert refusal(folder).reason == "TRUST_MALFORMED"
