"""CURVE keys as text: what a key is, and the files that hold a pair or its public half.

A key is 32 bytes written as 40 characters of Z85. A file is a certificate as czmq's `zcert` and
pyzmq's `zmq.auth` write and read it:

    curve
        public-key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
        secret-key = "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6"

The public half is the same without `secret-key`. This module does no I/O.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from superbrain.wire.errors import InvalidArgument

KEY_CHARACTERS: Final = 40
MAX_CERTIFICATE_BYTES: Final = 1 << 14
_KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_LINE = re.compile(r"\s+(public-key|secret-key)\s*=\s*\"([^\"]*)\"\s*")
_MAKE_ONE = "Make a pair with: superbrain access generate NAME"


class Certificate(NamedTuple):
    """A public key and, in the file that its owner keeps, the secret one."""

    public: str
    secret: str = ""


def is_key(text: str) -> bool:
    """Whether this is a key: 40 characters of Z85."""
    return _KEY.fullmatch(text) is not None


def parse_certificate(text: str, source: str) -> Certificate:
    """Read a certificate's text; `source` names it in errors.

    Raises:
        InvalidArgument: it has no public key, or what it has is none.
    """
    matches = filter(None, map(_LINE.fullmatch, text.splitlines()))
    found = {str(match[1]): str(match[2]) for match in matches}
    certificate = Certificate(found.get("public-key", ""), found.get("secret-key", ""))
    if not is_key(certificate.public):
        raise InvalidArgument(
            f"{source}: expected a CURVE certificate with a public key of {KEY_CHARACTERS} "
            "characters, found none",
            mend=_MAKE_ONE,
        )
    if certificate.secret and not is_key(certificate.secret):
        raise InvalidArgument(
            f"{source}: expected a secret key of {KEY_CHARACTERS} characters, found another text",
            mend=_MAKE_ONE,
        )
    return certificate


def with_secret(certificate: Certificate, source: str) -> Certificate:
    """Give a certificate that has a secret key.

    Raises:
        InvalidArgument: it is a public half.
    """
    if certificate.secret:
        return certificate
    raise InvalidArgument(
        f"{source}: expected a certificate with its secret key, found the public half alone",
        mend="Name the file NAME.key, not NAME.pub",
    )


def certificate_text(certificate: Certificate, title: str) -> str:
    """Write a certificate; `title` goes into its first line, a comment."""
    lines = [f"#   {title}", "curve", f'    public-key = "{certificate.public}"']
    if certificate.secret:
        lines.append(f'    secret-key = "{certificate.secret}"')
    return "\n".join(lines) + "\n"
