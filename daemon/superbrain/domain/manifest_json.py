"""The manifest as strict JSON: the only way from bytes to a `Manifest`, and back.

Unknown fields, duplicate keys, NaN and sizes beyond reason are refused, because what is not
understood cannot be trusted.

>>> parse_manifest(b'{"schema": 1, "schema": 1}')
Traceback (most recent call last):
superbrain.domain.errors.ManifestError: manifest: expected every key once, found 'schema' twice
"""

from __future__ import annotations

import msgspec

from superbrain.domain.errors import shown
from superbrain.domain.manifest import Manifest, refuse
from superbrain.domain.manifest_rules import check_manifest
from superbrain.domain.strict_json import DuplicateKey, NotJson, strict_loads

MAX_MANIFEST_BYTES = 1 << 20
SCHEMA = 1


def encode_manifest(manifest: Manifest) -> bytes:
    """Give the manifest's one canonical JSON: keys sorted, no white space, defaults left out."""
    return msgspec.json.encode(manifest, order="sorted")


def parse_manifest(payload: bytes) -> Manifest:
    """Read the signed payload of a bundle and check all that can be checked without its files.

    Raises:
        ManifestError: with a reason code for each kind of fault, see docs/bundle-format.md.
    """
    manifest = _decode(payload)
    check_manifest(manifest)
    return manifest


def _decode(payload: bytes) -> Manifest:
    if len(payload) > MAX_MANIFEST_BYTES:
        refuse(
            "MANIFEST_TOO_BIG",
            f"expected at most {MAX_MANIFEST_BYTES} bytes, found {len(payload)}",
            "Keep large lists in a file under assets/",
        )
    _check_json(payload)
    try:
        return msgspec.json.decode(payload, type=Manifest)
    except msgspec.ValidationError as error:
        unknown = "unknown field" in str(error)
        refuse(
            "MANIFEST_UNKNOWN_FIELD" if unknown else "MANIFEST_TYPE",
            str(error)[:300],
            "docs/bundle-format.md lists every field and its type",
        )
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        refuse("MANIFEST_NOT_JSON", str(error)[:300])


def _check_json(payload: bytes) -> None:
    try:
        found = strict_loads(payload)
    except NotJson as error:
        twice = isinstance(error, DuplicateKey)
        refuse(
            "MANIFEST_DUPLICATE_KEY" if twice else "MANIFEST_NOT_JSON",
            str(error),
            "Build it with `superbrain bundle build`",
        )
    schema = found.get("schema", SCHEMA) if isinstance(found, dict) else SCHEMA
    if type(schema) is not int or schema != SCHEMA:
        refuse(
            "MANIFEST_SCHEMA",
            f"expected schema {SCHEMA}, found {shown(schema)}",
            "Update superbrain on this host, or build the bundle with a matching release",
        )
