"""The author's side: a folder with bundle.toml becomes one signed bundle file.

    bundle.toml                         what the bundle is; the fields of the manifest without
                                        files and golden cases, which are found in the folder
    graphs/ code/ assets/               taken as they are
    golden/CASE/request/NAME.*          what a caller sends
    golden/CASE/response/NAME.*         what must come back
    golden/CASE/graphs/GRAPH/inputs/NAME.npy, …/outputs/NAME.npy     optional, for one graph
    engines/NAME/engine, …/record.json  optional: engines of a host's cache; what they are is read
                                        from the record, which is left out

Left out everywhere: names that start with a dot or with README, `__pycache__`, compiled Python.
The same folder and keys give the same bytes: `created` comes from bundle.toml, not from a clock.
"""

from __future__ import annotations

import datetime as dt
import difflib
import hashlib
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from superbrain.bundle.archive import CHUNK_BYTES, Progress
from superbrain.bundle.archive_writer import write_bundle
from superbrain.bundle.engine_folder import find_engines, is_record
from superbrain.bundle.golden_folder import check_golden_files, find_cases
from superbrain.bundle.keys import SigningKey
from superbrain.bundle.signing import sign_payload
from superbrain.domain.engine_rules import FOLDER as ENGINES_FOLDER
from superbrain.domain.errors import RecipeError, shown
from superbrain.domain.manifest import (
    FileEntry,
    Golden,
    Graph,
    Interface,
    Manifest,
    Record,
    Select,
    Serving,
    Targets,
    Tolerance,
)
from superbrain.domain.manifest_json import encode_manifest, parse_manifest
from superbrain.domain.manifest_rules import FOLDERS
from superbrain.domain.trust import bundle_digest

RECIPE_NAME = "bundle.toml"
SUFFIX = ".sbb"
MAX_RECIPE_BYTES = 1 << 20


class RecipeGolden(Record, frozen=True):
    """The part of `golden` that an author writes; the cases are found in the folder."""

    tolerances: dict[str, Tolerance]
    graph_tolerances: dict[str, dict[str, Tolerance]] = msgspec.field(default_factory=dict)
    precision_tolerances: dict[str, dict[str, Tolerance]] = msgspec.field(default_factory=dict)


class Recipe(Record, frozen=True):
    """What bundle.toml may hold."""

    schema: Literal[1]
    name: str
    version: str
    sequence: int
    created: dt.datetime
    graphs: dict[str, Graph]
    interface: Interface
    golden: RecipeGolden
    ladder: list[str] = msgspec.field(default_factory=lambda: ["onnxruntime:cpu"])
    select: Select = "first"
    description: str = ""
    expires: dt.datetime | None = None
    targets: Targets = Targets()
    serving: Serving = Serving()


class BuiltBundle(msgspec.Struct, frozen=True):
    """The result of a build."""

    path: Path
    digest: str
    manifest: Manifest
    size_bytes: int
    signers: tuple[str, ...]


def read_recipe(folder: Path) -> Recipe:
    """Read bundle.toml.

    Raises:
        RecipeError: missing, not TOML, an unknown key or a value of the wrong type.
    """
    path = folder / RECIPE_NAME
    try:
        with path.open("rb") as file:
            text = file.read(MAX_RECIPE_BYTES).decode("utf-8")
        return msgspec.convert(tomllib.loads(text), Recipe)
    except OSError as error:
        raise RecipeError(
            f"{path}: expected to read it, found: {error.strerror}",
            reason="RECIPE_MISSING",
            mend="Name the folder that holds it, or make one: superbrain bundle init MODEL.onnx",
        ) from error
    except msgspec.ValidationError as error:
        raise RecipeError(
            f"{path}: {error}", reason="RECIPE_FIELD", mend=_suggestion(str(error))
        ) from error
    except (ValueError, RecursionError) as error:
        raise RecipeError(
            f"{path}: expected TOML, found: {error}", reason="RECIPE_NOT_TOML"
        ) from error


def read_folder(folder: Path) -> Manifest:
    """Make the manifest of an author's folder: recipe, hashes of all files, golden cases, engines.

    Raises:
        RecipeError: bundle.toml or a file is wrong.
        ManifestError: the manifest breaks a rule.
        TensorFileError: a golden file does not hold the tensor that the interface declares.
    """
    manifest = _manifest(folder, collect_files(folder))
    return _checked(
        folder, msgspec.structs.replace(manifest, engines=find_engines(folder, manifest))
    )


def read_without_engines(folder: Path) -> Manifest:
    """Make the manifest of an author's folder as if no engines lay in it.

    Raises:
        RecipeError, ManifestError, TensorFileError: as `read_folder`.
    """
    paths = (path for path in collect_files(folder) if not path.startswith(ENGINES_FOLDER))
    return _checked(folder, _manifest(folder, paths))


def _manifest(folder: Path, paths: Iterable[str]) -> Manifest:
    recipe = read_recipe(folder)
    files = [_entry(folder, path) for path in paths]
    golden = Golden(
        cases=find_cases(folder, [entry.path for entry in files]),
        tolerances=recipe.golden.tolerances,
        graph_tolerances=recipe.golden.graph_tolerances,
        precision_tolerances=recipe.golden.precision_tolerances,
    )
    return Manifest(
        schema=recipe.schema,
        name=recipe.name,
        version=recipe.version,
        sequence=recipe.sequence,
        created=recipe.created,
        graphs=recipe.graphs,
        interface=recipe.interface,
        golden=golden,
        files=files,
        ladder=recipe.ladder,
        select=recipe.select,
        description=recipe.description,
        expires=recipe.expires,
        targets=recipe.targets,
        serving=recipe.serving,
    )


def _checked(folder: Path, manifest: Manifest) -> Manifest:
    checked = parse_manifest(encode_manifest(manifest))
    check_golden_files(folder, checked)
    return checked


def build(
    folder: Path,
    keys: Sequence[SigningKey],
    target: Path,
    progress: Progress | None = None,
) -> BuiltBundle:
    """Build and sign `target`/NAME-VERSION.sbb from an author's folder.

    Raises:
        RecipeError, ManifestError, TensorFileError: the folder is wrong.
        SignatureRefused: no key to sign with.
        StoreError: the file cannot be written.
    """
    manifest = read_folder(folder)
    path = target / f"{manifest.name}-{manifest.version}{SUFFIX}"
    size_bytes = write_bundle(
        path,
        manifest,
        {entry.path: folder / entry.path for entry in manifest.files},
        lambda payload: sign_payload(payload, keys),
        progress,
    )
    return BuiltBundle(
        path=path,
        digest=bundle_digest(encode_manifest(manifest)),
        manifest=manifest,
        size_bytes=size_bytes,
        signers=tuple(sorted(key.key_id for key in keys)),
    )


def collect_files(folder: Path) -> list[str]:
    """List the paths of all files that belong into the bundle, sorted.

    Raises:
        RecipeError: a link or something else that is no regular file.
    """
    found: list[str] = []
    for name in FOLDERS:
        found.extend(_walk(folder, folder / name))
    return sorted(path for path in found if not is_record(path))


def _walk(folder: Path, start: Path) -> Iterator[str]:
    if not start.exists() and not start.is_symlink():
        return
    mode = start.lstat().st_mode
    if stat.S_ISDIR(mode):
        for path in sorted(start.iterdir()):
            if not _left_out(path.name):
                yield from _walk(folder, path)
    elif stat.S_ISREG(mode):
        yield start.relative_to(folder).as_posix()
    else:
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "something else"
        raise RecipeError(
            f"{start}: expected a regular file or a folder, found {kind}",
            reason="RECIPE_NOT_REGULAR",
            mend="Put the file itself there",
        )


def _left_out(name: str) -> bool:
    return (
        name.startswith((".", "README")) or name == "__pycache__" or name.endswith((".pyc", ".pyo"))
    )


def _entry(folder: Path, path: str) -> FileEntry:
    sha256, size = hashlib.sha256(), 0
    try:
        with (folder / path).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                sha256.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise RecipeError(
            f"{folder / path}: expected to read it, found: {error.strerror}",
            reason="RECIPE_FILE_UNREADABLE",
        ) from error
    return FileEntry(path, size, sha256.hexdigest())


def _suggestion(message: str) -> str:
    """Find the known key that an unknown one was probably meant to be."""
    unknown = re.search(r"unknown field `([^`]*)`", message)
    if unknown is None:
        return "docs/bundle-format.md lists every key and its type"
    near = difflib.get_close_matches(unknown.group(1), sorted(_known_keys(Recipe)), n=1)
    if near:
        return f"Did you mean {near[0]}?"
    return f"Remove {shown(unknown.group(1))}; docs/bundle-format.md lists every key"


def _known_keys(root: type[msgspec.Struct]) -> set[str]:
    """Collect the field names of a structure and of all structures inside it."""
    schema: dict[str, Any] = msgspec.json.schema(root)
    return {key for part in schema["$defs"].values() for key in part.get("properties", {})}
