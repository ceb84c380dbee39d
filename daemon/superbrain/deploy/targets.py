"""What a bundle's `targets` ask of the host, held against what the host has.

Only looks: library versions come from installed metadata, nothing is imported.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

import psutil
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from superbrain.domain.errors import TargetMismatch

if TYPE_CHECKING:
    from superbrain.domain.manifest import Manifest

_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")


def check_targets(manifest: Manifest, gives_way_bytes: int = 0) -> None:
    """Make sure that this host is one the bundle was made for.

    Args:
        manifest: of the bundle.
        gives_way_bytes: what would become free for it, of memory that is held now.

    Raises:
        TargetMismatch: too little memory, or a runtime whose version is outside the range.
    """
    _check_memory(manifest, gives_way_bytes)
    _check_onnxruntime(manifest)


def _check_memory(manifest: Manifest, gives_way_bytes: int) -> None:
    needed = manifest.targets.memory_mb * 1_000_000
    available = psutil.virtual_memory().available + gives_way_bytes
    if needed > available:
        raise TargetMismatch(
            f"{manifest.name} {manifest.version} expects {needed / 1e6:.0f} MB of free memory, "
            f"this host has {available / 1e6:.0f} MB",
            reason="TARGET_MEMORY",
            mend="Retire a model, add memory, or lower targets.memory_mb in the bundle",
        )


def _check_onnxruntime(manifest: Manifest) -> None:
    wanted = manifest.targets.onnxruntime
    if not wanted:
        return
    try:
        specifier = SpecifierSet(wanted)
    except InvalidSpecifier:
        raise TargetMismatch(
            f"{manifest.name} {manifest.version}: expected targets.onnxruntime like '>=1.24', "
            f"found {wanted!r}",
            reason="TARGET_RUNTIME",
            mend="Write a version range as pip understands it",
        ) from None
    found = installed_onnxruntime()
    if not found or not specifier.contains(found, prereleases=True):
        raise TargetMismatch(
            f"{manifest.name} {manifest.version} expects onnxruntime {wanted}, "
            f"this host has {found or 'none'}",
            reason="TARGET_RUNTIME",
            mend="Upgrade superbrain on this host, or build the bundle for its runtime",
        )


def installed_onnxruntime() -> str:
    """Give the installed ONNX Runtime's version, empty for none."""
    for name in _DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""
