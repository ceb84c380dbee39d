"""Files and archive: rightly signed, but not the archive that the manifest describes."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable

from superbrain.bundle import tar
from tests.corpus.cases import case, enter
from tests.corpus.draft import Draft, Member

SECTION = "files and archive"
NOT_REGULAR = "ARCHIVE_NOT_REGULAR"


def members(
    name: str, codes: str, says: str, note: str, change: Callable[[list[Member]], list[Member]]
) -> None:
    """Enter a case that bends the members."""

    def bend(draft: Draft) -> None:
        draft.members = change

    enter(SECTION, name, codes, says, note, bend)


def whole(name: str, codes: str, says: str, note: str, change: Callable[[bytes], bytes]) -> None:
    """Enter a case that bends the bytes of the file."""

    def bend(draft: Draft) -> None:
        draft.whole = change

    enter(SECTION, name, codes, says, note, bend)


def each(change: Callable[[Member], object]) -> Callable[[list[Member]], list[Member]]:
    """Change the first member behind the envelope."""

    def changed(found: list[Member]) -> list[Member]:
        change(found[1])
        return found

    return changed


KINDS = {
    b"1": "hard-link",
    b"2": "symbolic-link",
    b"3": "character-device",
    b"4": "block-device",
    b"5": "folder",
    b"6": "fifo",
    b"7": "contiguous-file",
    b"x": "pax-header",
    b"g": "pax-global-header",
    b"L": "gnu-long-name",
    b"K": "gnu-long-link",
    b"S": "gnu-sparse",
    b"V": "gnu-volume",
    b"\0": "old-regular-file",
    b"Z": "unknown-kind",
}
for kind, label in KINDS.items():
    members(
        f"member-{label}",
        f"{NOT_REGULAR} ARCHIVE_HEADER ARCHIVE_SIZE",
        "expected",
        f"A member of type {kind!r}.",
        each(lambda member, kind=kind: member.kind(kind, b"../../../etc/passwd")),  # type: ignore[misc]
    )


@case(SECTION, f"{NOT_REGULAR} ARCHIVE_ORDER ARCHIVE_TRAILING", "expected")
def link_and_a_write_through_it(draft: Draft) -> None:
    """A link to a folder outside, then a file that would be written through it."""

    def bend(found: list[Member]) -> list[Member]:
        link = Member("graphs", b"")
        link.kind(b"2", b"/tmp")
        return [found[0], link, *found[1:]]

    draft.members = bend


members(
    "member-setuid",
    "ARCHIVE_HEADER",
    "mode",
    "A file that would run as its owner.",
    each(lambda member: member.field(100, b"0004755\0")),
)
members(
    "member-owner",
    "ARCHIVE_HEADER",
    "expected",
    "A file of somebody else.",
    each(lambda member: member.field(108, b"0001750\0")),
)
members(
    "member-time",
    "ARCHIVE_HEADER",
    "expected",
    "A file with a time: two bundles of the same content would differ.",
    each(lambda member: member.field(136, b"14700000000\0")),
)
members(
    "member-user-name",
    "ARCHIVE_HEADER",
    "expected",
    "A file with the name of a user.",
    each(lambda member: member.field(265, b"root\0")),
)
members(
    "member-size-negative",
    "ARCHIVE_SIZE ARCHIVE_HEADER",
    "expected",
    "A size below none.",
    each(lambda member: member.field(124, b"\xff" * 12)),
)
members(
    "member-size-of-a-terabyte",
    "ARCHIVE_SIZE ARCHIVE_HEADER",
    "expected",
    "A size that would skip the rest of the file.",
    each(lambda member: member.field(124, b"\x80" + (1 << 40).to_bytes(11, "big"))),
)
members(
    "member-size-not-octal",
    "ARCHIVE_SIZE ARCHIVE_HEADER",
    "expected",
    "A size that is no number.",
    each(lambda member: member.field(124, b"99999999999\0")),
)
members(
    "member-name-above",
    "ARCHIVE_ORDER ARCHIVE_HEADER",
    "expected",
    "A name that leads out of the folder.",
    each(lambda member: member.field(0, b"../../evil\0")),
)
members(
    "member-name-absolute",
    "ARCHIVE_ORDER ARCHIVE_HEADER",
    "expected",
    "A name that begins at the root.",
    each(lambda member: member.field(0, b"/etc/cron.d/evil\0")),
)
members(
    "member-prefix",
    "ARCHIVE_ORDER ARCHIVE_HEADER",
    "expected",
    "A second part of the name, in a field of its own.",
    each(lambda member: member.field(345, b"../../..")),
)


def _bad_checksum(member: Member) -> None:
    member.header = member.header[:148] + b"000000\0 " + member.header[156:]


def _bad_magic(member: Member) -> None:
    member.field(257, b"ustar  \0")


members("member-checksum", "ARCHIVE_HEADER", "expected", "A wrong checksum.", each(_bad_checksum))
members("member-gnu-magic", "ARCHIVE_HEADER", "expected", "Another kind of tar.", each(_bad_magic))
members(
    "member-hidden-behind-its-header",
    "ARCHIVE_HEADER",
    "expected",
    "Bytes in the unused end of a header.",
    each(lambda member: member.field(500, b"hidden")),
)


def _hide(member: Member) -> None:
    member.padding = b"x" * len(member.padding) or b""


members("member-padding", "ARCHIVE_PADDING", "expected", "Bytes behind a file.", each(_hide))
members(
    "member-missing",
    "ARCHIVE_ORDER ARCHIVE_MISSING INCOMPLETE",
    "expected",
    "A listed file that is not there.",
    lambda found: [found[0], *found[2:], Member("golden/zzz", b"0" * len(found[1].data))],
)
members(
    "member-twice",
    "ARCHIVE_ORDER ARCHIVE_TRAILING",
    "expected",
    "The same member again: which one counts?",
    lambda found: [*found, found[1]],
)
members(
    "member-unlisted",
    "ARCHIVE_TRAILING ARCHIVE_ORDER",
    "expected",
    "A file that nobody signed for.",
    lambda found: [*found, Member("code/pipeline.py", b"import os")],
)
members(
    "member-unlisted-first",
    "ARCHIVE_NOT_TAR ARCHIVE_ORDER ARCHIVE_HEADER ARCHIVE_TRAILING",
    "expected",
    "A file before the envelope.",
    lambda found: [Member("README", b"hello"), *found],
)
members(
    "members-in-another-order",
    "ARCHIVE_ORDER",
    "expected",
    "The right files, elsewhere.",
    lambda found: [found[0], *reversed(found[1:])],
)


def _other_content(member: Member) -> None:
    member.data = member.data[:-1] + bytes((member.data[-1] ^ 1,))


members("member-wrong-hash", "ARCHIVE_HASH", "sha256", "One bit of a file.", each(_other_content))


@case(SECTION, "ARCHIVE_SIZE", "expected")
def member_longer_than_listed(draft: Draft) -> None:
    """A file of more bytes than were signed for."""

    def longer(found: list[Member]) -> list[Member]:
        last = found[-1]
        found[-1] = Member(last.path, last.data + bytes(1))
        return found

    draft.members = longer


@case(SECTION, "ARCHIVE_SIZE", "expected")
def member_shorter_than_listed(draft: Draft) -> None:
    """A file of fewer bytes than were signed for."""

    def shorter(found: list[Member]) -> list[Member]:
        last = found[-1]
        found[-1] = Member(last.path, last.data[:-1])
        return found

    draft.members = shorter


def _zip(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("MANIFEST.dsse", data[:100])
    return buffer.getvalue()


whole("file-gzip", "ARCHIVE_NOT_TAR", "gzip", "The bundle, packed once more.", gzip.compress)
whole("file-zip", "ARCHIVE_NOT_TAR", "zip", "Another archive.", _zip)
whole("file-xz", "ARCHIVE_NOT_TAR", "xz", "Another packing.", lambda data: b"\xfd7zXZ\0" + data)
whole("file-text", "ARCHIVE_NOT_TAR", "expected", "A text.", lambda _: b"hello, world\n" * 100)
whole("file-zeros", "ARCHIVE_NOT_TAR ARCHIVE_ORDER", "expected", "Zeros.", lambda _: bytes(20_480))
whole("file-elf", "ARCHIVE_NOT_TAR", "expected", "A program.", lambda _: b"\x7fELF" + bytes(9000))
whole(
    "file-with-more-behind",
    "ARCHIVE_TRAILING",
    "expected exactly",
    "Something behind the end.",
    lambda data: data + b"#!/bin/sh\n",
)
whole(
    "file-with-zeros-behind",
    "ARCHIVE_TRAILING",
    "expected exactly",
    "Padding to ten kilobytes, as tar itself would write it.",
    lambda data: data + bytes(10_240 - len(data) % 10_240),
)
whole(
    "file-with-another-bundle-behind",
    "ARCHIVE_TRAILING",
    "expected exactly",
    "Two bundles in one file.",
    lambda data: data + data,
)
whole(
    "file-end-marker-written-over",
    "ARCHIVE_TRAILING ARCHIVE_PADDING ARCHIVE_HEADER ARCHIVE_ORDER",
    "expected",
    "Bytes where the end should be.",
    lambda data: data[: -len(tar.END)] + b"x" * len(tar.END),
)
