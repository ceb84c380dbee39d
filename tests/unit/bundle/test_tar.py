"""Headers: what Python's and GNU's tar read, and nothing but the canonical form."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbrain.bundle import tar
from superbrain.domain.errors import ArchiveError

LONG = "assets/" + "d" * 60 + "/" + "f" * 80
SIZES = [0, 1, 511, 512, 4 << 30, 8**11 - 1, 8**11, 1 << 40]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("path", ["graphs/main.onnx", LONG])
def test_pythons_tarfile_reads_the_same_header(path: str, size: int) -> None:
    info = tarfile.TarInfo.frombuf(tar.encode_header(path, size), "ascii", "strict")
    assert (info.name, info.size, info.mode, info.uid, info.mtime) == (path, size, 0o644, 0, 0)


@pytest.mark.parametrize("size", SIZES)
def test_the_size_is_read_back(size: int) -> None:
    assert tar.decode_size(tar.encode_header("graphs/x", size)) == size


def test_a_path_longer_than_100_characters_is_split_at_its_last_slash() -> None:
    header = tar.encode_header(LONG, 0)
    assert header[:100].rstrip(b"\0") == b"f" * 80
    assert header[345:500].rstrip(b"\0") == b"assets/" + b"d" * 60


@pytest.mark.parametrize(
    "field", [b"0000000000x\0", b"-0000000001\0", b" 0000000001\0", b"\xff" * 12]
)
def test_a_size_in_another_spelling_is_none(field: bytes) -> None:
    header = bytearray(tar.encode_header("graphs/x", 1))
    header[124:136] = field
    assert tar.decode_size(bytes(header)) is None


def test_a_small_size_in_base_256_is_none() -> None:
    header = bytearray(tar.encode_header("graphs/x", 1))
    header[124:136] = b"\x80" + (1).to_bytes(11, "big")
    assert tar.decode_size(bytes(header)) is None


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.FIFOTYPE, "FIFO"),
        (tarfile.CHRTYPE, "character device"),
        (tarfile.BLKTYPE, "block device"),
        (tarfile.DIRTYPE, "directory"),
        (tarfile.XHDTYPE, "type"),
        (tarfile.GNUTYPE_LONGNAME, "type"),
        (tarfile.GNUTYPE_SPARSE, "type"),
    ],
)
def test_an_entry_that_is_no_regular_file_is_named(kind: bytes, word: str) -> None:
    info = tarfile.TarInfo("graphs/x")
    info.type = kind
    with pytest.raises(ArchiveError, match=word) as caught:
        tar.check_header(info.tobuf(tarfile.USTAR_FORMAT)[:512], "graphs/x", 0)
    assert caught.value.reason == "ARCHIVE_NOT_REGULAR"


@pytest.mark.parametrize(
    ("attribute", "value", "word"),
    [
        ("mode", 0o4755, "mode"),
        ("uid", 1000, "uid"),
        ("gid", 1000, "gid"),
        ("mtime", 1, "mtime"),
        ("uname", "root", "uname"),
        ("gname", "root", "gname"),
        ("linkname", "x", "linkname"),
    ],
)
def test_a_field_that_is_not_canonical_is_named(attribute: str, value: object, word: str) -> None:
    info = tarfile.TarInfo("graphs/x")
    setattr(info, attribute, value)
    with pytest.raises(ArchiveError, match=f"header field {word}") as caught:
        tar.check_header(info.tobuf(tarfile.USTAR_FORMAT)[:512], "graphs/x", 0)
    assert caught.value.reason == "ARCHIVE_HEADER"


def test_another_file_than_the_next_one_is_named() -> None:
    with pytest.raises(ArchiveError, match="graphs/b") as caught:
        tar.check_header(tar.encode_header("graphs/b", 0), "graphs/a", 0)
    assert caught.value.reason == "ARCHIVE_ORDER"


def test_another_size_is_named() -> None:
    with pytest.raises(ArchiveError, match="expected 5 bytes, found 7") as caught:
        tar.check_header(tar.encode_header("graphs/a", 7), "graphs/a", 5)
    assert caught.value.reason == "ARCHIVE_SIZE"


@pytest.mark.parametrize("place", [10, 110, 130, 140, 150, 156, 200, 300, 400, 505])
def test_a_damaged_header_is_called_damaged(place: int) -> None:
    header = bytearray(tar.encode_header("graphs/a", 5))
    header[place : place + 2] = b"XX"
    with pytest.raises(ArchiveError, match="damaged") as caught:
        tar.check_header(bytes(header), "graphs/a", 5)
    assert (caught.value.reason, caught.value.mend) == (
        "ARCHIVE_HEADER",
        "Copy the bundle again, or take another copy",
    )


@pytest.mark.parametrize(
    ("start", "word"),
    [
        (b"\x1f\x8b\x08", "gzip"),
        (b"BZh9", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstandard"),
        (b"PK\x03\x04", "zip"),
        (b"hello", "hello"),
    ],
)
def test_a_file_that_is_no_tar_is_named(start: bytes, word: str) -> None:
    with pytest.raises(ArchiveError, match=word) as caught:
        tar.check_header(start.ljust(512, b"\0"), "graphs/a", 0)
    assert caught.value.reason == "ARCHIVE_NOT_TAR"


@given(st.binary(min_size=512, max_size=512))
def test_any_other_block_is_a_typed_error(block: bytes) -> None:
    tar.decode_size(block)
    with pytest.raises(ArchiveError):
        tar.check_header(block, "graphs/a", 0)


@given(st.sampled_from(SIZES), st.integers(0, 511), st.integers(1, 255))
def test_any_other_byte_in_a_header_is_refused(size: int, place: int, change: int) -> None:
    header = bytearray(tar.encode_header("graphs/a", size))
    header[place] ^= change
    with pytest.raises(ArchiveError):
        tar.check_header(bytes(header), "graphs/a", size)


def test_an_archive_of_these_headers_is_read_by_tarfile() -> None:
    content = b"abc"
    data = tar.encode_header("graphs/x", 3) + content + bytes(tar.padding_bytes(3)) + tar.END
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = archive.extractfile("graphs/x")
        assert member is not None
        assert member.read() == content
