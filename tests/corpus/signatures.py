"""Signature and trust: what is refused before anything signed is looked at."""

from __future__ import annotations

from typing import Any

from tests.corpus.cases import case, enter
from tests.corpus.draft import Draft, Json, encoded

SECTION = "signature and trust"
BAD = "ENVELOPE_MALFORMED"


def first(envelope: Json) -> Json:
    signature: Json = envelope["signatures"][0]
    return signature


@case(SECTION, BAD, "1 to 32 signatures")
def no_signatures(draft: Draft) -> None:
    """The list of signatures is empty."""
    draft.envelope = lambda envelope: envelope | {"signatures": []}


@case(SECTION, BAD, "signatures")
def signatures_left_out(draft: Draft) -> None:
    """There is no list of signatures."""
    draft.envelope = lambda envelope: {k: v for k, v in envelope.items() if k != "signatures"}


@case(SECTION, BAD, "signatures of 1 to 1024 bytes")
def empty_signature(draft: Draft) -> None:
    """A signature of no bytes."""
    draft.envelope = lambda envelope: envelope | {"signatures": [first(envelope) | {"sig": ""}]}


@case(SECTION, BAD, "signatures of 1 to 1024 bytes")
def enormous_signature(draft: Draft) -> None:
    """A signature of 2,000 bytes."""
    huge = encoded(bytes(2000))
    draft.envelope = lambda envelope: envelope | {"signatures": [first(envelope) | {"sig": huge}]}


@case(SECTION, "SIGNATURE_UNTRUSTED", "found 1 signatures, 0 of them")
def unknown_key(draft: Draft) -> None:
    """Rightly signed, by nobody this host knows."""
    draft.keys = [draft.stranger]


@case(SECTION, "SIGNATURE_INVALID", "found 1 signatures, 1 of them")
def forged_key_id(draft: Draft) -> None:
    """A stranger's signature in the name of the author."""
    draft.keys = [draft.stranger]
    draft.envelope = lambda envelope: (
        envelope | {"signatures": [first(envelope) | {"keyid": draft.author.key_id}]}
    )


@case(SECTION, BAD, "every key id once")
def one_key_twice(draft: Draft) -> None:
    """The same signature listed twice."""
    draft.envelope = lambda envelope: envelope | {"signatures": [first(envelope)] * 2}


@case(SECTION, BAD, "1 to 32 signatures")
def a_hundred_signatures(draft: Draft) -> None:
    """More signatures than anybody needs."""
    draft.envelope = lambda envelope: envelope | {"signatures": [first(envelope)] * 100}


@case(SECTION, "SIGNATURE_INVALID", "1 of them in the name of a trusted key")
def flipped_payload_bit(draft: Draft) -> None:
    """One bit of what is signed was changed afterwards."""

    def flip(envelope: Json) -> Json:
        text = envelope["payload"]
        other = "A" if text[40] != "A" else "B"
        return envelope | {"payload": text[:40] + other + text[41:]}

    draft.envelope = flip


@case(SECTION, "SIGNATURE_INVALID", "1 of them in the name of a trusted key")
def payload_of_another_bundle(draft: Draft) -> None:
    """The signature of one manifest on another one."""

    def swap(envelope: Json) -> Json:
        import json

        other = draft.manifest | {"version": "9.9.9"}
        return envelope | {"payload": encoded(json.dumps(other).encode())}

    draft.envelope = swap


@case(SECTION, BAD, "payloadType")
def another_payload_type(draft: Draft) -> None:
    """An envelope that signs something else, such as a container image."""
    draft.envelope = lambda envelope: envelope | {"payloadType": "application/vnd.oci.image"}


@case(SECTION, BAD, "unknown field")
def unknown_field_of_the_envelope(draft: Draft) -> None:
    """A field that nobody asked for."""
    draft.envelope = lambda envelope: envelope | {"trust": "me"}


@case(SECTION, BAD, "hex digits")
def key_id_in_capitals(draft: Draft) -> None:
    """A second spelling of a key id."""
    draft.envelope = lambda envelope: (
        envelope | {"signatures": [first(envelope) | {"keyid": first(envelope)["keyid"].upper()}]}
    )


def _text(name: str, says: str, note: str, change: Any) -> None:  # noqa: ANN401
    def bend(draft: Draft) -> None:
        draft.envelope_bytes = change

    enter(SECTION, name, BAD, says, note, bend)


_text("envelope-of-null", "null", "JSON, but no object.", lambda _: b"null")
_text("envelope-of-a-list", "array", "JSON, but no object.", lambda _: b"[]")
_text("envelope-cut-short", "expected", "The JSON ends in the middle.", lambda e: e[: len(e) // 2])
_text("envelope-is-no-text", "expected", "Bytes that are no UTF-8.", lambda _: b"\xff\xfe\xfd")
_text("envelope-with-a-bom", "expected", "A byte order mark first.", lambda e: b"\xef\xbb\xbf" + e)
_text("envelope-with-more-behind", "expected", "Two JSON values.", lambda e: e + b"{}")
_text(
    "envelope-key-twice",
    "twice",
    "payloadType twice, so that two readers may read two things.",
    lambda e: e.replace(b'{"payload"', b'{"payloadType": "x", "payload"', 1),
)
_text(
    "envelope-nested-deeply",
    "expected",
    "A hundred thousand brackets, to overflow a parser.",
    lambda _: b"[" * 100_000 + b"]" * 100_000,
)


@case(SECTION, BAD, "base64")
def payload_is_no_base64(draft: Draft) -> None:
    """The payload has characters that base64 has not."""
    draft.envelope = lambda envelope: envelope | {"payload": "*" + envelope["payload"][1:]}


@case(SECTION, BAD, "base64")
def payload_with_white_space(draft: Draft) -> None:
    """A second spelling of the same payload."""
    draft.envelope = lambda envelope: envelope | {"payload": envelope["payload"][:-4] + " " * 4}


@case(SECTION, BAD, "base64")
def signature_without_padding(draft: Draft) -> None:
    """A second spelling of the same signature."""
    draft.envelope = lambda envelope: (
        envelope | {"signatures": [first(envelope) | {"sig": first(envelope)["sig"].rstrip("=")}]}
    )


@case(SECTION, "ARCHIVE_ENVELOPE_SIZE", "found")
def envelope_beyond_its_limit(draft: Draft) -> None:
    """Two megabytes of envelope."""
    draft.envelope_bytes = lambda envelope: envelope + b" " * (2 << 20)


@case(SECTION, "ARCHIVE_ENVELOPE_SIZE", "found 0")
def envelope_of_no_bytes(draft: Draft) -> None:
    """An empty envelope."""
    draft.envelope_bytes = lambda _: b""


@case(SECTION, "SIGNATURE_INVALID", "1 of them in the name of a trusted key")
def truncated_signature(draft: Draft) -> None:
    """A signature without its last bytes."""
    import base64

    draft.envelope = lambda envelope: (
        envelope
        | {
            "signatures": [
                first(envelope) | {"sig": encoded(base64.b64decode(first(envelope)["sig"])[:-3])}
            ]
        }
    )
