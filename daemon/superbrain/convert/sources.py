"""What a model's file or folder is: its framework, its form, and whether it is a pickle.

torch        export       .pt2
             script       TorchScript, .pt
             function     module:function
             module       a module that was pickled, .pt
tensorflow   saved_model  a folder
             frozen       .pb
             keras        .keras, .h5
paddle       inference    a folder with NAME.json or NAME.pdmodel, and NAME.pdiparams
sklearn      pickle       .joblib, .pkl, .pickle
onnx         onnx         .onnx
"""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from superbrain.convert.conversation import pickle_refused
from superbrain.convert.errors import SourceRefused
from superbrain.engines.onnx_files import external_files

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_SUFFIXES = {
    ".pt2": ("torch", "export"),
    ".keras": ("tensorflow", "keras"),
    ".h5": ("tensorflow", "keras"),
    ".hdf5": ("tensorflow", "keras"),
    ".pb": ("tensorflow", "frozen"),
    ".joblib": ("sklearn", "pickle"),
    ".pkl": ("sklearn", "pickle"),
    ".pickle": ("sklearn", "pickle"),
    ".onnx": ("onnx", "onnx"),
}
_PICKLES = {"pickle", "module"}
ALIASES = {"keras": "tensorflow", "pytorch": "torch", "xgboost": "sklearn", "lightgbm": "sklearn"}
_KNOWN = (
    "a .pt2, .pt, .keras, .h5, .pb, .joblib, .pkl or .onnx file, a SavedModel or Paddle inference "
    "folder, or module:function"
)


class Source(NamedTuple):
    """A model as its author has it; `path` is None for `module:function`."""

    given: str
    framework: str
    kind: str
    path: Path | None

    @property
    def name(self) -> str:
        """What to call a bundle of it by default."""
        return self.path.stem if self.path is not None else self.given.partition(":")[2]


def look_at_source(given: str, framework: str = "", *, trust_pickle: bool = False) -> Source:
    """Find out what a model is.

    Args:
        given: a path, or `module:function`.
        framework: as the author says; empty to guess.
        trust_pickle: code in the file may run.

    Raises:
        SourceRefused: nothing there, of no known form, or a pickle that nobody vouches for.
    """
    wanted = ALIASES.get(framework, framework)
    path = Path(given)
    if not path.exists():
        if _FUNCTION.fullmatch(given) and wanted in {"", "torch"}:
            return Source(given, "torch", "function", None)
        raise SourceRefused(
            f"{given}: expected {_KNOWN}, found nothing there",
            code="SOURCE_MISSING",
            mend="A function is named as it is imported: package.module:function",
        )
    found, kind = _form(path, wanted)
    if wanted and found != wanted:
        raise SourceRefused(
            f"{given}: expected a model of {wanted}, found one of {found}", code="SOURCE_FORM"
        )
    if kind in _PICKLES and not trust_pickle:
        raise pickle_refused(given)
    return Source(given, found, kind, path)


def copy_source(path: Path, target: Path) -> Path:
    """Copy a model, for some converters write where they read; ONNX comes with its weights."""
    if path.is_dir():
        return Path(shutil.copytree(path, target / path.name))
    target.mkdir(parents=True, exist_ok=True)
    for location in external_files(path) if path.suffix == ".onnx" else ():
        parts = PurePosixPath(location)
        if parts.is_absolute() or ".." in parts.parts:
            raise SourceRefused(
                f"{path}: expected its weights in the folder of the graph, found {location!r}",
                code="SOURCE_WEIGHTS",
                mend="Save the model again with its external data beside it",
            )
        (target / location).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path.parent / location, target / location)
    return Path(shutil.copyfile(path, target / path.name))


def digest_of(path: Path) -> str:
    """The sha256 of a file, or of every file of a folder."""
    found = hashlib.sha256()
    for one in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if one.is_file():
            with one.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            found.update(f"{one.relative_to(path)} {content}\n".encode())
    return found.hexdigest()


def _form(path: Path, wanted: str) -> tuple[str, str]:
    if path.is_dir():
        return _folder_form(path)
    suffix = path.suffix.lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if suffix in {".pt", ".pth", ".ckpt", ".bin"} or wanted == "torch":
        return "torch", _torch_form(path)
    raise SourceRefused(
        f"{path}: expected {_KNOWN}, found {suffix or 'no suffix'}", code="SOURCE_FORM"
    )


def _folder_form(path: Path) -> tuple[str, str]:
    if (path / "saved_model.pb").exists():
        return "tensorflow", "saved_model"
    if any(path.glob("*.pdiparams")) or any(path.glob("*.pdmodel")):
        return "paddle", "inference"
    raise SourceRefused(
        f"{path}: expected a SavedModel (saved_model.pb) or a Paddle inference folder "
        f"(NAME.pdiparams), found neither",
        code="SOURCE_FORM",
    )


def _torch_form(path: Path) -> str:
    """TorchScript has its code in the archive; everything else that torch saves is a pickle."""
    if not zipfile.is_zipfile(path):
        return "module"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith(("archive_format", "models/model.json")) for name in names):
        return "export"
    return "script" if any(name.endswith("/constants.pkl") for name in names) else "module"
