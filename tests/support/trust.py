"""Trust updates with real keys, for every test.

>>> data = make_update(2, [b, c], signed_by=[a, b, c], threshold=2)
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from superbrain.bundle.signing import TRUST_UPDATE, sign_payload
from superbrain.domain.trust_update import TrustUpdate, UpdateKey, encode_update
from tests.support.bundles import KeyPair

CREATED = dt.datetime(2025, 3, 1, tzinfo=dt.UTC)


def key_of(pair: KeyPair) -> UpdateKey:
    """A key as an update names it."""
    return UpdateKey(pair.key_id, pair.trusted.pem.decode(), pair.public.stem)


def update_of(sequence: int, keys: Sequence[KeyPair], **changes: Any) -> TrustUpdate:  # noqa: ANN401
    """An update that is not signed yet."""
    named = [key_of(pair) for pair in keys]
    plain = TrustUpdate(sequence=sequence, created=CREATED, keys=named, threshold=1)
    return msgspec.structs.replace(plain, **changes)


def make_update(
    sequence: int,
    keys: Sequence[KeyPair],
    *,
    signed_by: Sequence[KeyPair],
    **changes: Any,  # noqa: ANN401 - fields of TrustUpdate
) -> bytes:
    """A signed update."""
    payload = encode_update(update_of(sequence, keys, **changes))
    return sign_payload(payload, [pair.signing for pair in signed_by], TRUST_UPDATE)


def put(folder: Path, name: str, data: bytes) -> Path:
    """Put a file into a folder in one step, as `mv` does."""
    beside = folder / f".{name}"
    beside.write_bytes(data)
    return beside.rename(folder / name)
