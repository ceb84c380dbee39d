"""The bundle's own Python, imported from verified bytes and from nothing else.

Each `code/….py` that the manifest lists is read once, compared with its sha256 and compiled from
those very bytes. No compiled file is ever read or written, so one planted beside a source has no
effect. While the code is open its modules import each other by their plain names, packages
included. None of them may have the name of a standard or installed module: a bundle must not be
able to pass its own `numpy` or `json` to anybody.

Image decoding is bounded before bundle code can import cv2, which reads the bound only then: a file
of a few kilobytes may claim gigapixels. Whoever wants another bound sets the variable beforehand.

One process holds the code of one bundle at a time.
"""

from __future__ import annotations

import dis
import importlib
import linecache
import os
import sys
import traceback
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from superbrain.domain.errors import BundleError
from superbrain.wire.errors import Internal, InvalidArgument, RequestError
from superbrain.wire.sentences import sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import ModuleType

    from superbrain.serve.bundle_files import BundleFiles

FOLDER = "code/"
PIXELS_VARIABLE = "OPENCV_IO_MAX_IMAGE_PIXELS"
MAX_PIXELS = 1 << 28  # 16,384 by 16,384; 768 MiB as three channels of a byte
_RAISE = dis.opmap["RAISE_VARARGS"]
_ORIGIN = "<bundle>/"  # begins every file name in tracebacks; no such path can exist on disk


class BundleCodeError(BundleError):
    """The bundle's code cannot be imported, or is not the pipeline that was promised."""

    bundle_at_fault = True


class _Source(NamedTuple):
    path: str  # inside the bundle; empty for a folder without __init__.py
    data: bytes
    is_package: bool


class BundleCode:
    """The Python modules of one bundle; importable until `close`.

    Raises:
        BundleCodeError: a module would shadow a standard or installed one.
        StoreError: a file is gone or is not what was signed.
    """

    def __init__(self, files: BundleFiles) -> None:
        paths = [path for path in files.below(FOLDER) if path.endswith(".py")]
        self._sources = _modules({path: files.read(path) for path in paths})
        for name in self._sources:
            if "." not in name:
                _refuse_shadowing(name)
        os.environ.setdefault(PIXELS_VARIABLE, str(MAX_PIXELS))
        self._finder = _Finder(self._sources)
        sys.meta_path.insert(0, self._finder)

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the bundle's modules."""
        return tuple(self._sources)

    def import_module(self, name: str) -> ModuleType:
        """Import one of the bundle's modules.

        Raises:
            BundleCodeError: it raised while it was imported.
        """
        try:
            return importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise BundleCodeError(
                f"expected module {name!r} of the bundle to import, found {describe(error)}",
                reason="CODE_DOES_NOT_IMPORT",
                mend="Try it on the author's machine with `superbrain bundle prove`",
            ) from error

    def close(self) -> None:
        """Make the modules unknown to this process again."""
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        for name, source in self._sources.items():
            sys.modules.pop(name, None)
            linecache.cache.pop(_ORIGIN + source.path, None)


def describe(error: BaseException) -> str:
    """Write an exception of bundle code: type, text, and the bundle's own file and line."""
    text = sentence(" ".join(str(error).split()))
    where = _where(error)
    return f"{type(error).__name__}{f': {text}' if text else ''}{f' ({where})' if where else ''}"


def call(step: Callable[..., Any], *arguments: object, refuses: bool = False) -> object:
    """Call bundle code; with `refuses` a ValueError that it raises is the caller's fault.

    Raises:
        InvalidArgument: the bundle's code refuses the request.
        Internal: it failed, with the bundle's file and line.
    """
    try:
        return step(*arguments)
    except RequestError:
        raise
    except (Exception, SystemExit) as error:
        if refuses and isinstance(error, ValueError) and raised_by_bundle(error):
            refusal = sentence(str(error)) or "the pipeline refused the request"
            raise InvalidArgument(refusal) from error
        name = getattr(step, "__name__", "pipeline")
        raise Internal(f"the bundle's {name} failed: {describe(error)}") from error


def raised_by_bundle(error: BaseException) -> bool:
    """Tell whether a `raise` in the bundle's own modules raised it, and no library it called.

    A function written in C leaves no frame, so the innermost frame alone does not tell: the
    instruction that it stopped at does.
    """
    innermost = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    if innermost is None:
        return False
    code = innermost.tb_frame.f_code
    ours = code.co_filename.startswith(_ORIGIN)
    return ours and code.co_code[innermost.tb_lasti] == _RAISE


def _where(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and (error.filename or "").startswith(_ORIGIN):
        return f"{str(error.filename).removeprefix(_ORIGIN)}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if frame.filename.startswith(_ORIGIN):
            return f"{frame.filename.removeprefix(_ORIGIN)}:{frame.lineno}"
    return ""


class _Finder(MetaPathFinder, InspectLoader):
    """Finds and loads the modules of one bundle from the bytes it holds."""

    def __init__(self, sources: Mapping[str, _Source]) -> None:
        self._sources = sources

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the import system passes it
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        source = self._sources.get(fullname)
        if source is None:
            return None
        return ModuleSpec(
            fullname, self, origin=_ORIGIN + source.path, is_package=source.is_package
        )

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        source = self._sources[name]
        code = compile(source.data, _ORIGIN + source.path, "exec", dont_inherit=True)
        exec(code, module.__dict__)  # noqa: S102 - the signed bytes, see the module's docstring

    def get_source(self, fullname: str) -> str:
        """Give the text of a module, which is how tracebacks show its lines."""
        return self._sources[fullname].data.decode(errors="replace")

    def is_package(self, fullname: str) -> bool:
        return self._sources[fullname].is_package


def _modules(files: Mapping[str, bytes]) -> dict[str, _Source]:
    """Name the module that each file is; folders without `__init__.py` are packages too."""
    modules: dict[str, _Source] = {}
    for path, data in files.items():
        parts = PurePosixPath(path.removeprefix(FOLDER)).with_suffix("").parts
        for depth in range(1, len(parts)):
            modules.setdefault(".".join(parts[:depth]), _Source("", b"", is_package=True))
        if parts[-1] == "__init__":
            modules[".".join(parts[:-1])] = _Source(path, data, is_package=True)
        else:
            modules.setdefault(".".join(parts), _Source(path, data, is_package=False))
    return modules


def _refuse_shadowing(name: str) -> None:
    other = next(_elsewhere(name), None)
    if other is None:
        return
    raise BundleCodeError(
        f"{FOLDER}: expected module names that are the bundle's own, found {name!r}, "
        f"which is also {other}",
        reason="CODE_SHADOWS_MODULE",
        mend=f"Give {FOLDER}{name}.py another name, such as {name}_steps.py",
    )


def _elsewhere(name: str) -> Iterator[str]:
    """Where a module of this name comes from without the bundle; nothing if there is none."""
    if name in sys.stdlib_module_names:
        yield "in the standard library"
    if name in sys.modules:
        yield "loaded in this process already"
    # The current folder does not count: an author stands in it, and the bundle comes first.
    here = Path.cwd()
    installed = [entry for entry in sys.path if entry and Path(entry).resolve() != here]
    for finder in sys.meta_path:
        spec = finder.find_spec(name, installed)
        if spec is not None:
            yield f"installed ({spec.origin or 'a folder on the import path'})"
