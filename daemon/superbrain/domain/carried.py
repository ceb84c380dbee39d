"""Engines that a bundle brings along: which one fits a host, and who is to blame when one fails.

A carried engine is tried where every part of its key is what the host would build with, and nowhere
else. One that does not fit, does not load or does not prove is set aside for the whole of its
deployment, and its rung is built here instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superbrain.domain.engine import EngineKey
    from superbrain.domain.manifest import CarriedEngine, Manifest

UNFIT: Final = "CarriedEngineUnfit"
#: What an engine is made of, in the order in which a sentence names what differs.
_PARTS: Final = {
    "gpu": "GPU",
    "compute_capability": "compute capability",
    "version": "version",
    "flags": "flags",
    "workspace_mib": "workspace of MiB",
    "profiles": "bounds",
    "graph": "graph",
}
#: What speaks against the rung here, or against the host: another engine would do no better.
_NOT_OF_THE_ENGINE: Final = frozenset(
    {
        "RungUnavailable",
        "NotInstalled",
        "NoDevice",
        "DeviceUnfit",
        "PrecisionMissing",
        "DeviceError",
        "SPAWN_FAILED",
        "SANDBOX_UNAVAILABLE",
    }
)


def carried_for(manifest: Manifest, rung: str) -> tuple[CarriedEngine, ...]:
    """Give the engines of one rung that a bundle brings along, for whatever hosts."""
    return tuple(one for one in manifest.engines if one.key.rung == rung)


def fitting(carried: Sequence[CarriedEngine], graph: str, key: EngineKey) -> CarriedEngine | None:
    """Give the engine of a graph that is the very one which this host would build, if any."""
    return next((one for one in carried if one.graph == graph and one.key == key), None)


def misfit(carried: Sequence[CarriedEngine], graph: str, key: EngineKey) -> str:
    """Say in a sentence why none of the engines of `graph` fits; empty where it brings none.

    The one that comes nearest is spoken of.
    """
    mine = [one for one in carried if one.graph == graph]
    if not mine:
        return ""
    nearest = min(mine, key=lambda one: len(_differences(one.key, key)))
    differing = _differences(nearest.key, key)
    others = f", and {len(mine) - 1} that fit no better" if len(mine) > 1 else ""
    return (
        f"graph {graph!r}: expected an engine of {key.runtime} for {_listed(key, differing)}, "
        f"found one in the bundle for {_listed(nearest.key, differing)}{others}"
    )


def blames_engine(code: str) -> bool:
    """Tell whether what failed with this code may do so because of the engine that was loaded."""
    return code not in _NOT_OF_THE_ENGINE


def _differences(one: EngineKey, other: EngineKey) -> list[str]:
    return [part for part in _PARTS if getattr(one, part) != getattr(other, part)]


def _listed(key: EngineKey, parts: Sequence[str]) -> str:
    return ", ".join(f"{_PARTS[part]} {_spelled(getattr(key, part))}" for part in parts)


def _spelled(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
