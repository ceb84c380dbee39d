"""What `superbrain trust show` shows: whom a host believes now, since when, and by whose word."""

from __future__ import annotations

import datetime as dt
from typing import Literal

import msgspec


class KeyFacts(msgspec.Struct, frozen=True):
    """A key that is trusted, or was until it was revoked here; `source` is its file or update."""

    key_id: str
    who: str = ""
    source: str = ""
    state: Literal["valid", "revoked", "not valid now"] = "valid"
    not_before: dt.datetime | None = None
    not_after: dt.datetime | None = None


class RevocationFacts(msgspec.Struct, frozen=True):
    """A revoked key or bundle; `by` is "this host" or the newest update; `bundle` its name."""

    digest: str
    by: str
    stop: bool = False
    bundle: str = ""


class UpdateFacts(msgspec.Struct, frozen=True):
    """A trust update that counts, or counted until the next one."""

    sequence: int
    created: dt.datetime
    digest: str
    threshold: int
    keys: int
    signers: list[str]
    note: str = ""


class TrustFacts(msgspec.Struct, frozen=True):
    """Everything about trust on one host; `fault` is why nothing new is accepted, if so.

    `sequence` is the newest update that counts, 0 for the trust folder itself.
    """

    folder: str
    sequence: int
    threshold: int
    keys: list[KeyFacts]
    revoked: list[RevocationFacts]
    security_floors: dict[str, int]
    updates: list[UpdateFacts]
    clock: dt.datetime
    time_floor: dt.datetime | None = None
    fault: str = ""
    mend: str = ""
