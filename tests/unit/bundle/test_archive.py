"""Reading bundle files: the whole one is taken, every other one is a typed error."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbrain.bundle import tar
from superbrain.bundle.archive import (
    VerifiedBundle,
    check_members,
    copy_members,
    expected_size,
    open_bundle,
    peek,
)
from superbrain.bundle.signing import MAX_ENVELOPE_BYTES
from superbrain.domain.errors import ArchiveError, BundleError, Incomplete, StoreError
from superbrain.domain.manifest import FileEntry
from superbrain.domain.trust import Trust
from tests.support.bundles import KeyPair, make_bundle, sign_key, trust_in


class Sample(msgspec.Struct, frozen=True):
    """A whole bundle in memory."""

    data: bytes
    trust: Trust
    verified: VerifiedBundle

    def member(self, index: int) -> int:
        """Where the header of a listed file begins."""
        before = self.verified.manifest.files[:index]
        start = tar.member_bytes(len(self.verified.envelope))
        return start + sum(tar.member_bytes(entry.size_bytes) for entry in before)


@pytest.fixture(scope="module")
def author(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return sign_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, author: KeyPair) -> Sample:
    data = make_bundle(tmp_path_factory.mktemp("bundle"), author).path.read_bytes()
    trust = trust_in(author)
    return Sample(data, trust, open_bundle(io.BytesIO(data), trust))


def read_all(data: bytes, trust: Trust) -> None:
    file = io.BytesIO(data)
    check_members(file, open_bundle(file, trust))


def refusal(data: bytes, sample: Sample) -> ArchiveError:
    """Check the members as a reader would that believed the envelope before."""
    with pytest.raises(ArchiveError) as caught:
        check_members(io.BytesIO(data), sample.verified)
    return caught.value


def test_a_whole_bundle_is_accepted(sample: Sample) -> None:
    read_all(sample.data, sample.trust)


def test_the_manifest_alone_tells_the_size(sample: Sample) -> None:
    assert expected_size(sample.verified.envelope, sample.verified.manifest) == len(sample.data)
    assert sample.verified.complete


def test_files_over_8_gib_are_counted_exactly(sample: Sample) -> None:
    huge = FileEntry("graphs/huge.data", (8 << 30) + 1, "0" * 64)
    manifest = msgspec.structs.replace(sample.verified.manifest, files=[huge])
    size = expected_size(sample.verified.envelope, manifest)
    assert size == tar.member_bytes(len(sample.verified.envelope)) + 512 + (8 << 30) + 512 + 1024


def test_every_file_is_copied_read_only(sample: Sample, tmp_path: Path) -> None:
    copy_members(io.BytesIO(sample.data), sample.verified, tmp_path)
    for entry in sample.verified.manifest.files:
        status = (tmp_path / entry.path).stat()
        assert (status.st_size, status.st_mode & 0o777) == (entry.size_bytes, 0o444)


def test_progress_ends_with_all_bytes(sample: Sample) -> None:
    seen: list[tuple[int, int]] = []
    check_members(io.BytesIO(sample.data), sample.verified, lambda *pair: seen.append(pair))
    assert seen[-1] == (len(sample.data), len(sample.data))


def test_cut_at_any_block_the_file_is_incomplete(sample: Sample) -> None:
    for size in range(0, len(sample.data), 512):
        with pytest.raises(Incomplete) as caught:
            read_all(sample.data[:size], sample.trust)
        assert caught.value.have_bytes <= size < caught.value.need_bytes <= len(sample.data)


def test_opening_a_file_that_still_grows_tells_how_far_it_is(sample: Sample) -> None:
    opened = open_bundle(io.BytesIO(sample.data[:-2000]), sample.trust)
    assert opened.total_bytes - opened.have_bytes == 2000
    assert not opened.complete


def test_any_flipped_byte_is_refused(sample: Sample) -> None:
    for place in range(0, len(sample.data), 7):
        data = bytearray(sample.data)
        data[place] ^= 0x20
        with pytest.raises(BundleError):
            read_all(bytes(data), sample.trust)


def test_a_byte_after_the_end_is_refused(sample: Sample) -> None:
    with pytest.raises(ArchiveError) as caught:
        open_bundle(io.BytesIO(sample.data + b"\0"), sample.trust)
    assert caught.value.reason == "ARCHIVE_TRAILING"


def test_an_unlisted_file_at_the_end_is_refused(sample: Sample) -> None:
    extra = tar.encode_header("code/pipeline.py", 0)
    data = sample.data[: -len(tar.END)] + extra + tar.END
    with pytest.raises(ArchiveError) as caught:
        read_all(data, sample.trust)
    assert caught.value.reason == "ARCHIVE_TRAILING"


def test_a_file_that_grew_after_it_was_opened_is_refused(sample: Sample) -> None:
    extra = tar.encode_header("code/pipeline.py", 0)
    data = sample.data[: -len(tar.END)] + extra + tar.END
    assert refusal(data, sample).reason == "ARCHIVE_TRAILING"


def test_a_missing_file_is_named(sample: Sample) -> None:
    last = sample.verified.manifest.files[-1]
    data = sample.data[: sample.member(len(sample.verified.manifest.files) - 1)] + tar.END
    error = refusal(data, sample)
    assert error.reason == "ARCHIVE_MISSING"
    assert last.path in error.message


def test_files_in_another_order_are_refused(sample: Sample) -> None:
    first, second, third = (sample.member(index) for index in range(3))
    data = sample.data
    swapped = data[:first] + data[second:third] + data[first:second] + data[third:]
    assert refusal(swapped, sample).reason == "ARCHIVE_ORDER"


def test_a_file_twice_is_refused(sample: Sample) -> None:
    first, second = sample.member(0), sample.member(1)
    data = sample.data[:second] + sample.data[first:second] + sample.data[second:]
    assert refusal(data, sample).reason == "ARCHIVE_ORDER"


def test_changed_content_is_refused_by_its_hash(sample: Sample) -> None:
    data = bytearray(sample.data)
    data[sample.member(0) + 512] ^= 1
    assert refusal(bytes(data), sample).reason == "ARCHIVE_HASH"


def test_bytes_hidden_in_the_padding_are_refused(sample: Sample) -> None:
    data = bytearray(sample.data)
    data[sample.member(1) - 1] = 1
    assert refusal(bytes(data), sample).reason == "ARCHIVE_PADDING"


def test_a_link_in_place_of_a_file_is_refused(sample: Sample) -> None:
    data = bytearray(sample.data)
    data[sample.member(0) + 156] = ord("2")
    assert refusal(bytes(data), sample).reason == "ARCHIVE_NOT_REGULAR"


def test_a_file_rewritten_after_it_was_opened_is_refused(sample: Sample) -> None:
    data = sample.data[: sample.member(0)] + bytes(len(sample.data) - sample.member(0))
    assert refusal(data, sample).reason == "ARCHIVE_MISSING"


def test_the_manifest_of_another_bundle_does_not_fit(
    sample: Sample, author: KeyPair, tmp_path: Path
) -> None:
    other = make_bundle(tmp_path, author, constant=2.0, sequence=2).path.read_bytes()
    with pytest.raises(BundleError):
        read_all(other[: sample.member(0)] + sample.data[sample.member(0) :], sample.trust)


def test_a_manifest_that_is_not_first_is_refused(sample: Sample) -> None:
    with pytest.raises(ArchiveError) as caught:
        peek(io.BytesIO(sample.data[sample.member(0) :]))
    assert caught.value.reason == "ARCHIVE_ORDER"


@pytest.mark.parametrize("start", [b"\x1f\x8b\x08", b"hello", b"PK\x03\x04"])
def test_a_few_bytes_of_something_else_are_refused_at_once(start: bytes) -> None:
    with pytest.raises(ArchiveError) as caught:
        peek(io.BytesIO(start))
    assert caught.value.reason == "ARCHIVE_NOT_TAR"


@pytest.mark.parametrize("size", [0, MAX_ENVELOPE_BYTES + 1, 1 << 40])
def test_an_envelope_of_unreasonable_size_is_refused(size: int) -> None:
    with pytest.raises(ArchiveError) as caught:
        peek(io.BytesIO(tar.encode_header("MANIFEST.dsse", size) + bytes(2048)))
    assert caught.value.reason == "ARCHIVE_ENVELOPE_SIZE"


def test_an_untrusted_bundle_is_refused_before_its_manifest_is_read(
    sample: Sample, tmp_path: Path
) -> None:
    with pytest.raises(BundleError) as caught:
        open_bundle(io.BytesIO(sample.data), trust_in(sign_key(tmp_path)))
    assert caught.value.reason == "SIGNATURE_UNTRUSTED"


def test_a_revoked_bundle_is_refused(sample: Sample) -> None:
    revoked = frozenset({sample.verified.digest})
    with pytest.raises(BundleError) as caught:
        open_bundle(
            io.BytesIO(sample.data), msgspec.structs.replace(sample.trust, revoked_bundles=revoked)
        )
    assert caught.value.reason == "BUNDLE_REVOKED"


@pytest.mark.parametrize(
    "plant",
    [
        lambda path, canary: path.write_text("mine"),
        lambda path, canary: path.symlink_to(canary),
    ],
    ids=["file", "symbolic link"],
)
def test_nothing_that_is_already_there_is_written_through(
    sample: Sample, tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    canary = tmp_path / "canary"
    target = tmp_path / "target"
    planted = target / sample.verified.manifest.files[0].path
    planted.parent.mkdir(parents=True)
    plant(planted, canary)
    with pytest.raises(StoreError):
        copy_members(io.BytesIO(sample.data), sample.verified, target)
    assert not canary.exists()


def test_a_disk_that_fails_while_reading_is_not_the_bundles_fault(sample: Sample) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(StoreError) as caught:
        check_members(Failing(sample.data), sample.verified)
    assert caught.value.reason == "SOURCE_UNREADABLE"


def test_a_full_disk_is_not_the_bundles_fault(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError) as caught:
        copy_members(io.BytesIO(sample.data), sample.verified, tmp_path)
    assert caught.value.reason == "STORE_NO_SPACE"


@given(st.binary(max_size=2000))
def test_arbitrary_bytes_are_a_typed_error(data: bytes) -> None:
    with pytest.raises(BundleError):
        peek(io.BytesIO(data))


@given(st.binary(max_size=1500), st.integers(0, 9000), st.booleans())
def test_any_change_after_the_envelope_is_refused(
    sample: Sample, patch: bytes, place: int, insert: bool
) -> None:
    start = min(sample.member(0) + place, len(sample.data))
    tail = sample.data[start + (0 if insert else len(patch)) :]
    data = sample.data[:start] + patch + tail
    if data != sample.data:
        with pytest.raises(BundleError):
            check_members(io.BytesIO(data), sample.verified)
