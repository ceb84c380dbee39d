"""Engines in an author's folder: taken from a host's cache, and told apart by their records.

    engines/NAME/engine        the engine as a builder has made it
    engines/NAME/record.json   what it is: its key, size and sha256, and the host that built it

These are entries of an engine cache as they are, so `state/engines` of a host of the right kind is
where they come from. Nothing about them is typed by hand: the record says which graph, precision,
runtime and GPU an engine is for, and becomes its entry in the manifest.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from superbrain.bundle.disk import remove_tree, storing
from superbrain.bundle.engine_cache import ENGINE, RECORD, copy_hashed, is_intact, read_record
from superbrain.domain.engine import EngineRecord, graph_digest
from superbrain.domain.engine_rules import FOLDER
from superbrain.domain.errors import RecipeError
from superbrain.domain.manifest import CarriedEngine
from superbrain.domain.rungs import graph_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superbrain.domain.manifest import Manifest

_NAME_DIGITS = 12
_TAKE = "Take engines from a host's cache: superbrain bundle engines FOLDER --from DIR"


class Taken(NamedTuple):
    """What was found in a cache: the engines taken from it, and how many fit nothing here."""

    engines: list[CarriedEngine]
    passed_over: int


def is_record(path: str) -> bool:
    """Tell whether a path of an author's folder is an engine's record, which no bundle needs."""
    return path.startswith(FOLDER) and path.endswith(f"/{RECORD}")


def find_engines(folder: Path, manifest: Manifest) -> list[CarriedEngine]:
    """Give the manifest's entries for the engines that lie in an author's folder.

    Raises:
        RecipeError: a file under engines/ has no record, is not what its record says, or is an
            engine of no graph and rung of this bundle.
    """
    found: list[CarriedEngine] = []
    for entry in manifest.files:
        if entry.path.startswith(FOLDER):
            found += _engine(folder, entry.path, manifest)
    return found


def take_engines(folder: Path, cache: Path, manifest: Manifest) -> Taken:
    """Copy the engines of this bundle's graphs from a cache into an author's folder.

    Raises:
        RecipeError: the cache cannot be read, or an engine in it is damaged.
        StoreError: an engine cannot be copied.
    """
    taken: list[CarriedEngine] = []
    passed_over = 0
    for entry in _entries(cache):
        record = read_record(entry)
        graphs = _graphs_of(record, manifest) if record is not None else []
        if record is None or not graphs:
            passed_over += 1
            continue
        name = f"{graphs[0]}-{record.key.precision}-{record.key.digest[:_NAME_DIGITS]}"
        _copy(entry, folder / FOLDER / name, record)
        _hand_over(folder, folder / FOLDER, folder / FOLDER / name)
        taken += _carried(f"{FOLDER}{name}/{ENGINE}", graphs, record)
    return Taken(taken, passed_over)


def _engine(folder: Path, path: str, manifest: Manifest) -> list[CarriedEngine]:
    file = folder / path
    record = read_record(file.parent) if file.name == ENGINE else None
    if record is None:
        raise RecipeError(
            f"{file}: expected {FOLDER}NAME/{ENGINE} with its {RECORD} beside it, found neither",
            reason="RECIPE_ENGINE",
            mend=_TAKE,
        )
    if not is_intact(file, record):
        raise _damaged(file)
    graphs = _graphs_of(record, manifest)
    if not graphs:
        raise RecipeError(
            f"{file}: expected an engine of a graph of this bundle, as it is now, on a rung of its "
            f"ladder ({', '.join(manifest.ladder)}), found one of another graph on "
            f"{record.key.rung}",
            reason="RECIPE_ENGINE",
            mend=f"Remove {file.parent}, and take the engine anew where the graph has changed",
        )
    return _carried(path, graphs, record)


def _carried(path: str, graphs: list[str], record: EngineRecord) -> list[CarriedEngine]:
    host = record.host
    return [CarriedEngine(graph, path, record.key, host.driver, host.cuda) for graph in graphs]


def _graphs_of(record: EngineRecord, manifest: Manifest) -> list[str]:
    """Give the graphs whose engine on one of the bundle's rungs this is."""
    rung = record.key.rung
    if rung not in manifest.ladder:
        return []
    return [
        name
        for name, graph in manifest.graphs.items()
        if graph_digest(manifest, graph_file(graph, rung)) == record.key.graph
    ]


def _entries(cache: Path) -> Iterator[Path]:
    try:
        found = sorted(path for path in cache.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise RecipeError(
            f"{cache}: expected the engine cache of a host, found: {error.strerror}",
            reason="RECIPE_ENGINE",
            mend="It is state/engines of a host, readable by root; a copy of it will do",
        ) from error
    yield from (path for path in found if path.is_dir())


def _copy(entry: Path, target: Path, record: EngineRecord) -> None:
    """Copy an entry of a cache, whole or not at all."""
    unfinished = target.with_name(f".{target.name}.part")
    with storing(target):
        for stale in (unfinished, target):
            if stale.exists():
                remove_tree(stale)
    size, sha256 = copy_hashed(entry / ENGINE, unfinished / ENGINE)
    if (size, sha256) != (record.size_bytes, record.sha256):
        with storing(unfinished):
            remove_tree(unfinished)
        raise _damaged(entry / ENGINE)
    with storing(target):
        (unfinished / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record)))
        unfinished.rename(target)


def _hand_over(owner: Path, *folders: Path) -> None:
    """Give what root has put into an author's folder to whom that folder belongs."""
    if os.geteuid() != 0:
        return
    with storing(owner):
        found = owner.stat()
        for folder in folders:
            for path in (folder, *folder.iterdir()):
                os.chown(path, found.st_uid, found.st_gid, follow_symlinks=False)


def _damaged(file: Path) -> RecipeError:
    return RecipeError(
        f"{file}: expected the engine that its {RECORD} describes, found other bytes",
        reason="RECIPE_ENGINE",
        mend=_TAKE,
    )
