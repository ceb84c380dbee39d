"""The files that a manifest lists: their paths, sizes and hashes."""

from __future__ import annotations

from tests.corpus.cases import case, enter
from tests.corpus.draft import Draft
from tests.corpus.manifests import SECTION, TYPE, put

__all__ = ["SECTION"]

PATHS = {
    "above": "../evil.onnx",
    "above-deep": "graphs/../../evil.onnx",
    "absolute": "/etc/passwd",
    "backslash": "graphs\\evil.onnx",
    "nul": "graphs/a\0b.onnx",
    "control": "graphs/a\nb.onnx",
    "empty": "",
    "dot": "./graphs/a.onnx",
    "double-slash": "graphs//a.onnx",
    "at-the-end-a-slash": "graphs/",
    "hidden": "graphs/.git/config",
    "other-folder": "bin/evil",
    "unicode": "graphs/\u0430.onnx",
    "fullwidth-dots": "graphs/\uff0e\uff0e/a.onnx",
    "too-long": "graphs/" + "a/" * 80 + "a",
    "long-segment": "graphs/" + "a" * 120,
    "space-at-the-end": "graphs/a.onnx ",
    "bytecode": "code/pipeline.pyc",
    "pycache": "code/__pycache__/pipeline.cpython-311.pyc",
    "the-envelope-itself": "MANIFEST.dsse",
}
for label, path in PATHS.items():

    def listed(draft: Draft, path: str = path) -> None:
        draft.manifest["files"].append({"path": path, "size_bytes": 3, "sha256": "0" * 64})

    enter(SECTION, f"path-{label}", "MANIFEST_PATH", "expected", f"Lists {path[:40]!r}.", listed)


@case(SECTION, "MANIFEST_PATH", "found")
def path_twice(draft: Draft) -> None:
    """One path with two contents."""
    draft.manifest["files"].append(draft.manifest["files"][0] | {"sha256": "0" * 64})


@case(SECTION, "MANIFEST_PATH", "expected")
def path_twice_in_other_capitals(draft: Draft) -> None:
    """Two paths that are one on some file systems."""
    draft.manifest["files"].append(
        draft.manifest["files"][0] | {"path": "golden/ONE/request/x.npy"}
    )
    draft.manifest["files"].append(
        draft.manifest["files"][0] | {"path": "golden/one/Request/x.npy"}
    )


@case(SECTION, "MANIFEST_PATH", "as both")
def path_is_file_and_folder(draft: Draft) -> None:
    """A file that another file lies in."""
    entry = draft.manifest["files"][0]
    draft.manifest["files"].append(entry | {"path": "graphs/main.onnx/inner"})


for label, size in {"negative": -1, "huge": 1 << 62}.items():
    put(
        f"size-{label}",
        "MANIFEST_SIZE",
        "expected",
        "A size that no file has.",
        "files",
        0,
        "size_bytes",
        value=size,
    )
put("size-fractional", TYPE, "size", "Half a byte.", "files", 0, "size_bytes", value=7.5)
put("size-infinite", TYPE, "size", "1e999 bytes.", "files", 0, "size_bytes", value="1e999")
put("hash-short", "MANIFEST_SHA256", "sha256", "Half a hash.", "files", 0, "sha256", value="ab")
put(
    "hash-in-capitals",
    "MANIFEST_SHA256",
    "sha256",
    "A second spelling of a hash.",
    "files",
    0,
    "sha256",
    value="AB" * 32,
)


@case(SECTION, "MANIFEST_SIZE", "expected")
def sizes_that_add_up_to_more_than_there_is(draft: Draft) -> None:
    """Each file may be that large, all of them together may not."""
    for entry in draft.manifest["files"]:
        entry["size_bytes"] = 1 << 40
