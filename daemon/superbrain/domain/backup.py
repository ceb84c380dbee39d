"""What a backup of a host holds, and what only ever rises on a host.

A host never installs an older release than it had, and never believes again in what was revoked.
Going back to an older backup would undo that in silence; `lowered` names everything that would be.

>>> lowered(Held(floors={"ocr": 7}), Held(floors={"ocr": 5}))
['ocr: releases from number 5 on would be taken again, 7 is the lowest now']
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import msgspec

SCHEMA = 1


class HeldFile(msgspec.Struct, frozen=True):
    """One file of a backup: its name in there, its content and its permissions."""

    name: str
    size_bytes: int
    sha256: str
    mode: int


class Held(msgspec.Struct, frozen=True):
    """What must not get lower.

    `floors`: the highest sequence accepted of each model; `updates`: the newest trust update by
    anchor; `revoked`: key ids and digests revoked on this host; `keys`: the ids of the keys in the
    trust folder; `time_floor`: the latest time that the host has reason to believe in.
    """

    floors: dict[str, int] = {}
    updates: dict[str, int] = {}
    revoked: list[str] = []
    keys: list[str] = []
    time_floor: dt.datetime | None = None

    @property
    def anything(self) -> bool:
        """Whether this host has ever accepted something."""
        return bool(self.floors or self.updates)


class Backup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """BACKUP.json: from which host, when and by what; `models` are the versions that served."""

    schema: int
    made_at: dt.datetime
    host: str
    superbrain: str
    journal_schema: int
    with_bundles: bool
    with_secrets: bool
    held: Held
    models: dict[str, str]
    files: list[HeldFile]

    @property
    def size_bytes(self) -> int:
        """The content of all files together."""
        return sum(file.size_bytes for file in self.files)

    @property
    def bundles(self) -> int:
        """How many bundles are in it."""
        return sum(file.name.endswith("/MANIFEST.dsse") for file in self.files)


def lowered(here: Held, there: Held) -> list[str]:
    """Say what would be lower with `there` in the place of `here`; empty: nothing.

    The time floor is not among it: a restore keeps the later one.
    """
    return [*_floors(here, there), *_trust(here, there)]


def _floors(here: Held, there: Held) -> Iterator[str]:
    for name, floor in sorted(here.floors.items()):
        then = there.floors.get(name, 0)
        if then < floor:
            yield (
                f"{name}: releases from number {then} on would be taken again, "
                f"{floor} is the lowest now"
            )


def _trust(here: Held, there: Held) -> Iterator[str]:
    for anchor, number in sorted(here.updates.items()):
        then = there.updates.get(anchor, 0)
        if then < number:
            yield f"trust: update {then} would count again, {number} counts now"
    for digest in sorted({*here.revoked} - {*there.revoked}):
        yield f"trust: {digest[:12]}… is revoked on this host and would not be any more"
    if here.anything:
        for key in sorted({*there.keys} - {*here.keys}):
            yield f"trust: the key {key[:12]}… would be believed, and is not now"
