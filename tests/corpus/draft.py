"""A bundle in pieces, each of which a case may bend before they are put together.

Put together unbent it is a good bundle, byte for byte what the project's own writer makes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from superbrain.bundle import tar
from superbrain.bundle.archive import ENVELOPE_NAME
from superbrain.bundle.folder import read_folder
from superbrain.bundle.keys import SigningKey
from superbrain.bundle.signing import sign_payload
from superbrain.domain.manifest_json import encode_manifest
from tests.support.bundles import make_bundle_folder

Json = dict[str, Any]
CANARY = "canary"


class Member:
    """A member of the archive: its header, its content and the padding behind it."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.header = tar.encode_header(path, len(data))
        self.data = data
        self.padding = bytes(tar.padding_bytes(len(data)))

    def field(self, start: int, content: bytes) -> None:
        """Write into the header, whose checksum is made right again."""
        block = bytearray(self.header)
        block[start : start + len(content)] = content
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        self.header = bytes(block)

    def kind(self, kind: bytes, link: bytes = b"") -> None:
        """Make it a link, device or extension; its content stays, and with it the length."""
        self.field(156, kind)
        self.field(157, link)

    def pack(self) -> bytes:
        return self.header + self.data + self.padding


class Draft:
    """The pieces: `manifest` as JSON, `files` by path, `keys` that sign; what is bent afterwards.

    Attributes:
        payload: bends the bytes that are signed.
        envelope: bends the signed envelope, as JSON.
        envelope_bytes: bends its bytes.
        members: bends the members of the archive.
        whole: bends the bytes of the file.
    """

    def __init__(self, folder: Path, author: SigningKey, stranger: SigningKey, name: str) -> None:
        source = make_bundle_folder(folder, name=name, version="2.0.0", sequence=2)
        manifest = read_folder(source)
        self.name = name
        self.author = author
        self.stranger = stranger
        self.manifest: Json = json.loads(encode_manifest(manifest))
        self.files = {entry.path: (source / entry.path).read_bytes() for entry in manifest.files}
        self.keys = [author]
        self.payload: Callable[[bytes], bytes] = _same
        self.envelope: Callable[[Json], Any] = _same
        self.envelope_bytes: Callable[[bytes], bytes] = _same
        self.members: Callable[[list[Member]], list[Member]] = _same
        self.whole: Callable[[bytes], bytes] = _same

    # --- bending ------------------------------------------------------------------------------

    def put(self, *keys: str | int, value: object) -> None:
        """Set one place of the manifest."""
        place: Any = self.manifest
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    def drop(self, *keys: str | int) -> None:
        """Leave one place of the manifest out."""
        place: Any = self.manifest
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    def add(self, path: str, data: bytes) -> None:
        """Add a file, listed as it is."""
        self.files[path] = data
        self.list(path, data)

    def list(self, path: str, data: bytes) -> None:
        """List a file in the manifest, in the order of paths."""
        sha256 = hashlib.sha256(data).hexdigest()
        entries = [entry for entry in self.manifest["files"] if entry["path"] != path]
        entries.append({"path": path, "size_bytes": len(data), "sha256": sha256})
        self.manifest["files"] = sorted(entries, key=lambda entry: entry["path"])

    def replace(self, path: str, data: bytes) -> None:
        """Give a file other content, listed as it is then."""
        self.add(path, data)

    # --- putting together -----------------------------------------------------------------------

    def signed(self) -> bytes:
        """Make the envelope."""
        payload = self.payload(json.dumps(self.manifest).encode())
        envelope = self.envelope(json.loads(sign_payload(payload, self.keys)))
        return self.envelope_bytes(json.dumps(envelope, sort_keys=True).encode())

    def pack(self) -> bytes:
        """Make the file."""
        listed = [entry["path"] for entry in self.manifest.get("files", [])]
        order = [path for path in dict.fromkeys(listed) if path in self.files]
        members = [Member(path, self.files[path]) for path in order]
        members = self.members([Member(ENVELOPE_NAME, self.signed()), *members])
        return self.whole(b"".join(member.pack() for member in members) + tar.END)


def _same(value: Any) -> Any:  # noqa: ANN401
    return value


def encoded(data: bytes) -> str:
    """Base64, as an envelope has it."""
    return base64.b64encode(data).decode()


def sloppy(manifest: Json) -> bytes:
    """JSON as careless programs write it."""
    return msgspec.json.encode(manifest)
