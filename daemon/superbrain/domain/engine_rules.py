"""The rules about engines that a bundle brings along: each must say of what and for whom it is.

What an entry says of its graph is held against the manifest, so an engine of another graph, of one
that was changed since, or for other bounds is refused before anybody opens it. What it says of GPU
and runtime only a host can judge, and what lies in the file only the runtime and the proof.
"""

from __future__ import annotations

from typing import Final, NoReturn

from superbrain.domain.engine import graph_digest, graph_profiles
from superbrain.domain.errors import shown
from superbrain.domain.graph_rules import check_text
from superbrain.domain.manifest import CarriedEngine, Manifest, refuse
from superbrain.domain.rungs import graph_file

FOLDER: Final = "engines/"
MAX_ENGINES: Final = 256
MAX_FLAGS: Final = 64
MAX_WORKSPACE_MIB: Final = 1 << 24
_MEND: Final = "Take it from a host's cache with `superbrain bundle engines`, which writes this"


def check_engines(manifest: Manifest, paths: frozenset[str]) -> None:
    """Check every entry of `engines`, and that every file under engines/ has one.

    Raises:
        ManifestError: the first rule that is broken.
    """
    if len(manifest.engines) > MAX_ENGINES:
        _refuse(f"expected at most {MAX_ENGINES}, found {len(manifest.engines)}")
    seen: set[tuple[str, str]] = set()
    for index, engine in enumerate(manifest.engines):
        where = f"engines[{index}]"
        _check_engine(where, engine, manifest, paths)
        if (engine.graph, engine.key.digest) in seen:
            _refuse(f"expected every engine once, found this one twice: {where}")
        seen.add((engine.graph, engine.key.digest))
    named = {engine.path for engine in manifest.engines}
    unnamed = sorted(path for path in paths if path.startswith(FOLDER) and path not in named)
    if unnamed:
        _refuse(f"expected an entry for every file under {FOLDER}, found none for {unnamed[0]}")


def _check_engine(
    where: str, engine: CarriedEngine, manifest: Manifest, paths: frozenset[str]
) -> None:
    key, graph = engine.key, manifest.graphs.get(engine.graph)
    if graph is None:
        _refuse(f"expected graph to be one of the bundle, found {shown(engine.graph)}", where)
    if engine.path not in paths or not engine.path.startswith(FOLDER):
        refuse(
            "MANIFEST_FILE_MISSING",
            f"{where}: expected path to name a listed file under {FOLDER}, "
            f"found {shown(engine.path)}",
        )
    if key.rung not in manifest.ladder:
        _refuse(
            f"expected an engine of a rung of the ladder, found one of {shown(key.rung)}", where
        )
    _check_host(where, engine)
    if key.graph != (digest := graph_digest(manifest, graph_file(graph, key.rung))):
        _refuse(
            f"expected an engine of graph {engine.graph!r} as it is in this bundle, "
            f"{digest[:16]}…, found one of {shown(key.graph[:16])}…",
            where,
        )
    if key.profiles != (profiles := graph_profiles(graph)):
        _refuse(
            f"expected an engine for the bounds of graph {engine.graph!r}, {shown(profiles)}, "
            f"found one for {shown(key.profiles)}",
            where,
        )


def _check_host(where: str, engine: CarriedEngine) -> None:
    """What it says of the host is shown to people, and must say something."""
    key = engine.key
    told = {
        "version": key.version,
        "gpu": key.gpu,
        "compute_capability": key.compute_capability,
    }
    for field, text in told.items():
        check_text(f"{where}.key.{field}", text)
        if not text:
            _refuse(f"expected key.{field} of the host that built it, found none", where)
    for text in (engine.driver, engine.cuda, *key.flags):
        check_text(where, text)
    if len(key.flags) > MAX_FLAGS:
        _refuse(f"expected at most {MAX_FLAGS} flags, found {len(key.flags)}", where)
    if not 0 <= key.workspace_mib <= MAX_WORKSPACE_MIB:
        found = shown(key.workspace_mib)
        _refuse(f"expected key.workspace_mib of 0 to {MAX_WORKSPACE_MIB}, found {found}", where)


def _refuse(message: str, field: str = "engines") -> NoReturn:
    refuse("MANIFEST_ENGINE", f"{field}: {message}", _MEND)
