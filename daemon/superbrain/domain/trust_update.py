"""A trust update: whom hosts shall believe from now on, as strict JSON that is signed.

Updates are numbered 1, 2, 3 … and each is a whole statement: it replaces all that the one before
said. It counts when a threshold of the keys *before* it and a threshold of its own keys have signed
it, so nobody is let in whom those inside did not let in, and nobody locks everybody out by mistake:
the new keys are known to work. Updates are taken one after the other without gaps, because number
5 is signed by the keys of number 4, which only a host that has seen number 4 can know.

docs/trust.md shows one; docs/decisions/0012-trust-updates.md tells why it is so.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from typing import NoReturn, TypeVar

import msgspec

from superbrain.domain.errors import UpdateRefused, shown
from superbrain.domain.graph_rules import NAME
from superbrain.domain.strict_json import NotJson, strict_loads
from superbrain.domain.trust import PublicKey, Trust

SCHEMA = 1
MAX_UPDATE_BYTES = 1 << 18
MAX_SEQUENCE = 1_000_000
MAX_KEYS = 32
MAX_REVOKED = 2_000
MAX_TEXT = 500
HEX = re.compile(r"[0-9a-f]{64}")


class _Json(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of the update's parts."""


class UpdateKey(_Json, frozen=True):
    """A key of the new set; `not_before` and `not_after` bound new installs on its word."""

    id: str
    pem: str
    who: str = ""
    not_before: dt.datetime | None = None
    not_after: dt.datetime | None = None


class RevokedBundle(_Json, frozen=True):
    """A bundle that may not be installed any more; with `stop` it may not go on serving either."""

    digest: str
    stop: bool = False
    why: str = ""


class TrustUpdate(_Json, frozen=True):
    """All that is signed. `expires` bounds only its own import, as the newest of a chain."""

    sequence: int
    created: dt.datetime
    keys: list[UpdateKey]
    threshold: int
    schema: int = SCHEMA
    expires: dt.datetime | None = None
    revoked_keys: list[str] = []
    revoked_bundles: list[RevokedBundle] = []
    security_floors: dict[str, int] = {}
    note: str = ""

    def trust(self) -> Trust:
        """What it says, as the trust that counts once it is accepted."""
        return Trust(
            keys=tuple(self._key(key) for key in self.keys),
            threshold=self.threshold,
            revoked_keys=frozenset(self.revoked_keys),
            revoked_bundles=frozenset(item.digest for item in self.revoked_bundles),
            stopped_bundles=frozenset(item.digest for item in self.revoked_bundles if item.stop),
            security_floors=dict(self.security_floors),
        )

    def _key(self, key: UpdateKey) -> PublicKey:
        source = f"trust update {self.sequence}"
        return PublicKey(key.id, key.pem.encode(), source, key.who, key.not_before, key.not_after)


def encode_update(update: TrustUpdate) -> bytes:
    """Give the update's one canonical JSON: keys sorted, no white space, defaults left out.

    Raises:
        UpdateRefused: it breaks a rule.
    """
    check_update(update)
    return msgspec.json.encode(
        msgspec.to_builtins(update) | {"schema": update.schema}, order="sorted"
    )


def parse_update(payload: bytes) -> TrustUpdate:
    """Read the signed payload of an update and check all that can be checked without keys.

    Raises:
        UpdateRefused: with the field, what was expected and what was found.
    """
    if len(payload) > MAX_UPDATE_BYTES:
        malformed(f"expected at most {MAX_UPDATE_BYTES} bytes, found {len(payload)}")
    try:
        found = strict_loads(payload)
        schema = found.get("schema") if isinstance(found, dict) else None
        if type(schema) is not int or schema != SCHEMA:
            malformed(f"schema: expected {SCHEMA}, found {shown(schema)}")
        update = msgspec.json.decode(payload, type=TrustUpdate)
    except NotJson as error:
        malformed(str(error))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        malformed(str(error)[:300])
    check_update(update)
    return update


def check_update(update: TrustUpdate) -> None:
    """Check the rules that JSON types cannot express.

    Raises:
        UpdateRefused: one is broken.
    """
    _check_range("sequence", update.sequence, 1, MAX_SEQUENCE)
    _check_range("the number of keys", len(update.keys), 1, MAX_KEYS)
    _check_range("threshold", update.threshold, 1, len(update.keys))
    _check_dates(update)
    _check_hex("keys: ids", [key.id for key in update.keys])
    _check_hex("revoked_keys", update.revoked_keys)
    _check_hex("revoked_bundles", [item.digest for item in update.revoked_bundles])
    both = {key.id for key in update.keys}.intersection(update.revoked_keys)
    if both:
        malformed(f"keys: expected none that is revoked too, found {min(both)[:12]}… in both")
    for name, floor in update.security_floors.items():
        if not NAME.fullmatch(name):
            malformed(f"security_floors: expected names of models, found {shown(name)}")
        _check_range(f"security_floors.{name}", floor, 1, 1 << 53)
    texts = [update.note, *(key.who for key in update.keys)]
    for text in (*texts, *(item.why for item in update.revoked_bundles)):
        if len(text) > MAX_TEXT or not text.isprintable():
            malformed(f"expected printable text of at most {MAX_TEXT} characters, {shown(text)}")


def _check_range(what: str, found: int, low: int, high: int) -> None:
    if not low <= found <= high:
        malformed(f"{what}: expected {low} to {high}, found {found}")


def _check_hex(what: str, found: list[str]) -> None:
    _check_range(f"{what}: how many", len(found), 0, MAX_REVOKED)
    for text in found:
        if not HEX.fullmatch(text):
            malformed(f"{what}: expected 64 lower-case hex digits, found {shown(text)}")
    if len(set(found)) != len(found):
        malformed(f"{what}: expected each once, found one twice")


def _check_dates(update: TrustUpdate) -> None:
    dates = {"created": update.created, "expires": update.expires}
    for key in update.keys:
        name = f"keys {key.id[:12]}"
        dates |= {f"{name}.not_before": key.not_before, f"{name}.not_after": key.not_after}
        _check_order(f"{name}: not_after", key.not_before, key.not_after)
    for what, at in dates.items():
        if at is not None and at.tzinfo is None:
            malformed(f"{what}: expected a time with its zone, found {at.isoformat()}")
    _check_order("expires", update.created, update.expires)


def _check_order(what: str, first: dt.datetime | None, then: dt.datetime | None) -> None:
    if first is None or then is None or None in (first.tzinfo, then.tzinfo):
        return
    if then <= first:
        malformed(f"{what}: expected a time after {first.isoformat()}, found {then.isoformat()}")


def malformed(found: str) -> NoReturn:
    """Refuse an update for what is written in it."""
    raise UpdateRefused(
        f"trust update: {found}",
        reason="UPDATE_MALFORMED",
        mend="Make it with `superbrain trust create`",
    )


class Standing(msgspec.Struct, frozen=True):
    """Where a host stands: the newest update that counts, and what it says.

    `sequence` 0 is the trust folder itself, before any update.
    """

    trust: Trust
    sequence: int = 0
    digest: str = ""
    created: dt.datetime | None = None


def check_position(standing: Standing, sequence: int, digest: str) -> None:
    """Refuse an update that is not ahead: an old one replayed, or a second one of a number.

    Raises:
        UpdateRefused: it is not.
    """
    if sequence == standing.sequence and digest != standing.digest:
        raise UpdateRefused(
            f"trust update {sequence}: expected {standing.digest[:12]}, which counts on this host, "
            f"found {digest[:12]} under the same number",
            reason="UPDATE_SEQUENCE_REUSED",
            mend="Give it the next number, and have it signed by the keys that count now",
        )
    if sequence < standing.sequence:
        raise UpdateRefused(
            f"trust update {sequence}: expected number {standing.sequence + 1} or above, because "
            f"{standing.sequence} counts already: this one is old",
            reason="UPDATE_SEQUENCE_OLD",
            mend="Nothing needs to be done, unless you meant to drop a newer one",
        )


T = TypeVar("T")


def in_line(sequence: int, waiting: Iterable[tuple[int, T]]) -> list[tuple[int, list[T]]]:
    """Give what follows `sequence` without a gap, by number; several may claim one number.

    >>> in_line(1, [(4, "d"), (2, "b"), (3, "c"), (3, "x"), (6, "f")])
    [(2, ['b']), (3, ['c', 'x']), (4, ['d'])]
    """
    by_number: dict[int, list[T]] = {}
    for number, item in waiting:
        by_number.setdefault(number, []).append(item)
    following: list[tuple[int, list[T]]] = []
    while (number := sequence + 1 + len(following)) in by_number:
        following.append((number, by_number[number]))
    return following
