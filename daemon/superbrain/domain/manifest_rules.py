"""The rules of the manifest that JSON types cannot express: names, paths, sizes, limits.

Each check raises `ManifestError` with the code of its kind; the first fault found is reported.
graph_rules.py has the rules about graphs and interface, engine_rules.py those about engines,
golden_rules.py those about goldens, batching_rules.py those about batching.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from superbrain.domain.batching_rules import check_batching
from superbrain.domain.engine_rules import check_engines
from superbrain.domain.errors import shown
from superbrain.domain.golden_rules import check_golden
from superbrain.domain.graph_rules import NAME, check_graphs, check_text
from superbrain.domain.manifest import FileEntry, Manifest, Serving, Targets, refuse
from superbrain.domain.rungs import graph_file, wrong_form

FOLDERS = ("graphs", "code", "assets", "golden", "engines")
MAX_FILE_BYTES = 1 << 40
MAX_SEQUENCE = 1 << 53
MAX_PATH_LENGTH = 155  # what every ustar header can hold, wherever the path is split
MAX_SEGMENT_LENGTH = 100

VERSION = re.compile(
    r"(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){2}(-[0-9A-Za-z.-]{1,32})?(\+[0-9A-Za-z.-]{1,32})?"
)
SEGMENT = re.compile(r"[!-\[\]-~]([ -\[\]-~]*[!-\[\]-~])?")  # printable ASCII without backslash
SHA256 = re.compile(r"[0-9a-f]{64}")
RUNG = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}:[a-z0-9][a-z0-9._-]{0,31}")
VERSION_RANGE = re.compile(r"(>=|<=|==|!=|~=|>|<)\s*[0-9]+(\.[0-9]+){0,3}(\.\*)?")

SERVING_BOUNDS = {
    "instances": (1, 64),
    "queue_size": (1, 65_536),
    "request_timeout_ms": (1, 3_600_000),
    "load_timeout_s": (1, 3_600),
}


def check_manifest(manifest: Manifest) -> None:
    """Check every rule.

    Raises:
        ManifestError: the first rule that is broken.
    """
    _check_identity(manifest)
    _check_dates(manifest)
    paths = _check_files(manifest.files)
    _check_targets(manifest.targets)
    _check_serving(manifest.serving)
    _check_ladder(manifest)
    check_graphs(manifest, paths)
    check_engines(manifest, paths)
    check_golden(manifest, paths)
    check_batching(manifest)


def _check_identity(manifest: Manifest) -> None:
    if not NAME.fullmatch(manifest.name):
        refuse(
            "MANIFEST_NAME",
            f"name: expected 1-64 of a-z 0-9 . _ - that start with a letter or digit, "
            f"found {shown(manifest.name)}",
        )
    if not VERSION.fullmatch(manifest.version):
        refuse(
            "MANIFEST_VERSION",
            f"version: expected MAJOR.MINOR.PATCH such as 1.2.0 or 1.2.0-rc.1, "
            f"found {shown(manifest.version)}",
        )
    if not 1 <= manifest.sequence <= MAX_SEQUENCE:
        refuse(
            "MANIFEST_SEQUENCE",
            f"sequence: expected 1 to 2^53, found {shown(manifest.sequence)}",
            "Start with 1 and add one with every release",
        )
    check_text("description", manifest.description)


def _check_dates(manifest: Manifest) -> None:
    for field in ("created", "expires"):
        date = getattr(manifest, field)
        if date is not None and date.utcoffset() is None:
            refuse(
                "MANIFEST_DATE",
                f"{field}: expected a time with its zone such as 2026-01-31T12:00:00Z, "
                f"found {date.isoformat()}",
            )
    if manifest.expires is not None and manifest.expires <= manifest.created:
        refuse(
            "MANIFEST_DATE",
            f"expires: expected a time after created ({manifest.created.isoformat()}), "
            f"found {manifest.expires.isoformat()}",
        )


# --- files ------------------------------------------------------------------------------------


def _check_files(files: list[FileEntry]) -> frozenset[str]:
    seen: dict[str, str] = {}
    for entry in files:
        check_path(entry.path)
        if entry.path.lower() in seen:
            refuse(
                "MANIFEST_PATH",
                f"files: expected every path once, upper and lower case alike, "
                f"found {shown(seen[entry.path.lower()])} and {shown(entry.path)}",
            )
        seen[entry.path.lower()] = entry.path
        if not 0 <= entry.size_bytes <= MAX_FILE_BYTES:
            refuse(
                "MANIFEST_SIZE",
                f"files: {entry.path}: expected size_bytes of 0 to 2^40, "
                f"found {shown(entry.size_bytes)}",
            )
        if not SHA256.fullmatch(entry.sha256):
            refuse(
                "MANIFEST_SHA256",
                f"files: {entry.path}: expected sha256 as 64 lower-case hex digits, "
                f"found {shown(entry.sha256)}",
            )
    _check_no_file_is_a_folder(seen)
    total = sum(entry.size_bytes for entry in files)
    if total > MAX_FILE_BYTES:
        refuse("MANIFEST_SIZE", f"files: expected at most 2^40 bytes in all, found {total}")
    return frozenset(seen.values())


def check_path(path: str) -> None:
    """Check that a path is safe and plain: relative, inside a known folder, printable ASCII.

    Raises:
        ManifestError: it is not.
    """
    segments = path.split("/")
    if len(segments) < 2 or segments[0] not in FOLDERS:
        refuse(
            "MANIFEST_PATH",
            f"files: expected a path under {', '.join(f'{name}/' for name in FOLDERS)}, "
            f"found {shown(path)}",
        )
    for segment in segments:
        if (
            not SEGMENT.fullmatch(segment)
            or segment.startswith(".")
            or len(segment) > MAX_SEGMENT_LENGTH
        ):
            refuse(
                "MANIFEST_PATH",
                f"files: expected path segments of 1-{MAX_SEGMENT_LENGTH} printable ASCII "
                f"characters, no backslash, no leading dot, found {shown(segment)} "
                f"in {shown(path)}",
            )
    if len(path) > MAX_PATH_LENGTH:
        refuse(
            "MANIFEST_PATH",
            f"files: expected a path of at most {MAX_PATH_LENGTH} characters, "
            f"found {len(path)} in {shown(path)}",
        )
    if "__pycache__" in segments or path.endswith((".pyc", ".pyo")):
        refuse(
            "MANIFEST_PATH",
            f"files: expected source code, found compiled Python {shown(path)}",
            "What runs must be what people can read: leave bytecode out",
        )


def _check_no_file_is_a_folder(paths: Iterable[str]) -> None:
    known = frozenset(paths)
    for path in known:
        segments = path.split("/")
        for count in range(2, len(segments)):
            parent = "/".join(segments[:count])
            if parent in known:
                refuse(
                    "MANIFEST_PATH",
                    f"files: expected a file or a folder, found {shown(parent)} as both",
                )


# --- serving ---------------------------------------------------------------------------------


def _check_serving(serving: Serving) -> None:
    for field, (least, most) in SERVING_BOUNDS.items():
        value = getattr(serving, field)
        if not least <= value <= most:
            refuse(
                "MANIFEST_SERVING",
                f"serving.{field}: expected {least} to {most}, found {shown(value)}",
            )


def _check_targets(targets: Targets) -> None:
    if not 0 <= targets.memory_mb <= 1 << 24:
        refuse(
            "MANIFEST_TARGETS",
            f"targets.memory_mb: expected 0 to {1 << 24}, found {shown(targets.memory_mb)}",
        )
    ranges = targets.onnxruntime.split(",") if targets.onnxruntime else []
    if len(targets.onnxruntime) > 200 or any(
        not VERSION_RANGE.fullmatch(part.strip()) for part in ranges
    ):
        refuse(
            "MANIFEST_TARGETS",
            f"targets.onnxruntime: expected versions such as '>=1.24' or '>=1.24,<2', "
            f"found {shown(targets.onnxruntime)}",
        )


def _check_ladder(manifest: Manifest) -> None:
    ladder = manifest.ladder
    if not 1 <= len(ladder) <= 16 or len(set(ladder)) != len(ladder):
        refuse(
            "MANIFEST_LADDER", f"ladder: expected 1 to 16 different rungs, found {shown(ladder)}"
        )
    for rung in ladder:
        if not RUNG.fullmatch(rung):
            refuse(
                "MANIFEST_LADDER",
                f"ladder: expected RUNTIME:VARIANT such as onnxruntime:cpu, found {shown(rung)}",
            )
    for graph in manifest.graphs.values():
        wrong = [wrong_form(graph_file(graph, rung), rung) for rung in ladder]
        if all(wrong):
            refuse("MANIFEST_LADDER", f"ladder: {wrong[0]}", "Name a rung that loads this form")
