r"""What never goes into a support bundle, wherever it stands.

Nothing secret is collected on purpose: no key files, no payloads, no environment. This is the net
below: every text is looked through for private keys, for values that are named like secrets, and
for secrets that this host is known to have.

>>> Redactor([]).text('API_TOKEN=abc123 threads=4')
'API_TOKEN=[left out] threads=4'
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from superbrain.wire.curve import MAX_CERTIFICATE_BYTES

LEFT_OUT: Final = "[left out]"
SHORTEST: Final = 6  # a shorter value would be found in everything
# Every repetition is bounded: a text may be one word of megabytes.
_NAME: Final = (
    r"(?:passw(?:or)?d|passphrase|secret|token|api[-_]?key|credential|authorization)[\w-]{0,64}"
)
_SECRET_NAME: Final = re.compile(rf"[\w.-]*{_NAME}", re.IGNORECASE)
_PEM: Final = re.compile(
    r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY[A-Z ]*)-----.*?(?:-----END \1-----|\Z)", re.DOTALL
)
_ASSIGNED: Final = re.compile(
    rf"""(?ix) ({_NAME} \\?["']? \s{{0,8}} [=:] \s{{0,8}} (?:(?:basic|bearer)\s{{1,8}})? )
    ( \\?"(?:[^"\\]|\\[^"])*\\?" | '[^']*' | [^\s"',;}}\]]+ )"""
)
_USER: Final = re.compile(r"(?<=://)[^/\s:@\"']+:[^/\s@\"']+(?=@)")
_ENVIRONMENT: Final = re.compile(
    r"(?m)^(\s*(?:Environment|SetCredential|SetCredentialEncrypted)\s*=)(?:.*\\\n)*.*$"
)
_NUMBER: Final = re.compile(r"-?[0-9.eE+-]+|true|false|null")
_SECRET_LINE: Final = re.compile(r'secret-key\s*=\s*"([^"]+)"')


class Redactor:
    """Takes secrets out of texts; `known` are some that this host is known to have."""

    def __init__(self, known: Iterable[str]) -> None:
        plain = {value for value in known if len(value) >= SHORTEST}
        spelled = {json.dumps(value)[1:-1] for value in plain}
        self._known = sorted(plain | spelled, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Give the text without what is secret in it."""
        for value in self._known:
            text = text.replace(value, LEFT_OUT)
        text = _PEM.sub(LEFT_OUT, text)
        text = _USER.sub(LEFT_OUT, text)
        return _ASSIGNED.sub(_without_value, text)

    def unit(self, text: str) -> str:
        """The same of a unit file, whose environment and credentials go as a whole."""
        return self.text(_ENVIRONMENT.sub(rf"\1{LEFT_OUT}", text))

    def values(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """The same of a configuration: where a secret lies may be told, what it is may not."""
        return {
            key: LEFT_OUT if _is_secret(key, value) else self._value(value)
            for key, value in found.items()
        }

    def _value(self, value: object) -> object:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if isinstance(value, dict):
            return self.values(value)
        return value


def known_secrets(environment: Mapping[str, str], key_file: Path) -> list[str]:
    """Secrets in this process's environment, by their names, and the TCP server's own key."""
    found = [value for name, value in environment.items() if _SECRET_NAME.fullmatch(name)]
    try:
        with key_file.open(encoding="utf-8") as file:
            found += _SECRET_LINE.findall(file.read(MAX_CERTIFICATE_BYTES))
    except (OSError, UnicodeDecodeError):
        return found  # who cannot read it cannot give it away
    return found


def _without_value(match: re.Match[str]) -> str:
    name, value = match[1], match[2]
    bare = value.strip("\\\"'")
    if not bare or bare.startswith(("/", "[left")):
        return match[0]  # where it lies, which helps; or gone already
    if name.rstrip(" :=\t").endswith(('"', "'")) and _NUMBER.fullmatch(bare):
        return match[0]  # a figure in JSON: max_tokens
    quote = re.match(r"\\?[\"']", value)
    mark = quote[0] if quote else ""
    return f"{name}{mark}{LEFT_OUT}{mark}"


def _is_secret(key: str, value: object) -> bool:
    named = _SECRET_NAME.fullmatch(key.rpartition(".")[2]) is not None
    return named and bool(value) and not (isinstance(value, str) and value.startswith("/"))
