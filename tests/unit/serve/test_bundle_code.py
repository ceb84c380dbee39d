"""The bundle's code comes from verified bytes, shadows nothing and leaves nothing behind."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from superbrain.domain.errors import StoreError
from superbrain.serve.bundle_code import (
    MAX_PIXELS,
    PIXELS_VARIABLE,
    BundleCode,
    BundleCodeError,
    raised_by_bundle,
)
from superbrain.serve.bundle_files import BundleFiles
from tests.support.models import write_file, write_model

Open = Callable[..., BundleCode]


@pytest.fixture
def open_code(tmp_path: Path) -> Iterator[Open]:
    """Open a bundle with these files; closed again after the test."""
    opened: list[BundleCode] = []

    def open_files(files: dict[str, str]) -> BundleCode:
        manifest = write_model(tmp_path, graphs={}, inputs=[], outputs=[], files=files)
        opened.append(BundleCode(BundleFiles(tmp_path, manifest)))
        return opened[-1]

    yield open_files
    for code in opened:
        code.close()


def test_a_module_is_imported(open_code: Open) -> None:
    code = open_code({"code/pipeline.py": "VALUE = 7"})
    assert code.import_module("pipeline").VALUE == 7


def test_siblings_import_each_other_by_name(open_code: Open) -> None:
    code = open_code(
        {
            "code/pipeline.py": "import one_it\nfrom two_it import TWO\nSUM = one_it.ONE + TWO",
            "code/one_it.py": "ONE = 1",
            "code/two_it.py": "TWO = 2",
        }
    )
    assert code.import_module("pipeline").SUM == 3


def test_packages_work_with_relative_imports(open_code: Open) -> None:
    code = open_code(
        {
            "code/pipeline.py": "from ocr_steps.crop import VALUE",
            "code/ocr_steps/__init__.py": "from . import crop",
            "code/ocr_steps/crop.py": "from .deep.er import VALUE",
            "code/ocr_steps/deep/er.py": "VALUE = 5",
        }
    )
    assert code.import_module("pipeline").VALUE == 5


def test_the_source_declares_its_own_encoding(open_code: Open) -> None:
    code = open_code({"code/pipeline.py": "# coding: utf-8\nVALUE = 'ü'"})
    assert code.import_module("pipeline").VALUE == "ü"


def test_code_that_changed_after_signing_is_not_run(tmp_path: Path) -> None:
    manifest = write_model(
        tmp_path, graphs={}, inputs=[], outputs=[], files={"code/pipeline.py": "VALUE = 1"}
    )
    write_file(tmp_path / "code/pipeline.py", "VALUE = 2")
    with pytest.raises(StoreError, match=r"code/pipeline\.py: expected sha256"):
        BundleCode(BundleFiles(tmp_path, manifest))


def test_code_that_is_gone_is_a_store_error(tmp_path: Path) -> None:
    manifest = write_model(
        tmp_path, graphs={}, inputs=[], outputs=[], files={"code/pipeline.py": "VALUE = 1"}
    )
    (tmp_path / "code/pipeline.py").unlink()
    with pytest.raises(StoreError, match=r"code/pipeline\.py: expected to read"):
        BundleCode(BundleFiles(tmp_path, manifest))


def test_code_that_is_not_listed_cannot_be_imported(open_code: Open, tmp_path: Path) -> None:
    code = open_code({"code/pipeline.py": "import stowaway_it"})
    write_file(tmp_path / "code/stowaway_it.py", "")
    with pytest.raises(BundleCodeError, match="No module named 'stowaway_it'"):
        code.import_module("pipeline")


def test_a_planted_compiled_file_is_ignored(open_code: Open, tmp_path: Path) -> None:
    code = open_code({"code/pipeline.py": "VALUE = 'signed'"})
    source = tmp_path / "code/pipeline.py"
    cached = Path(importlib.util.cache_from_source(str(source)))
    planted = compile("VALUE = 'planted'", str(source), "exec")
    write_file(cached, compiled_file(planted, source))
    assert code.import_module("pipeline").VALUE == "signed"


def compiled_file(code: object, source: Path) -> bytes:
    """A .pyc that Python itself would take for up to date."""
    from importlib._bootstrap_external import _code_to_timestamp_pyc  # type: ignore[attr-defined]

    found = source.stat()
    return bytes(_code_to_timestamp_pyc(code, int(found.st_mtime), found.st_size))


def test_no_compiled_file_is_written(open_code: Open, tmp_path: Path) -> None:
    open_code({"code/pipeline.py": "VALUE = 1"}).import_module("pipeline")
    assert [path.name for path in (tmp_path / "code").rglob("*")] == ["pipeline.py"]


@pytest.mark.parametrize("name", ["json", "numpy", "superbrain", "sys", "__main__", "onnxruntime"])
def test_a_module_of_a_name_that_is_taken_is_refused(open_code: Open, name: str) -> None:
    with pytest.raises(BundleCodeError, match=f"found '{name}', which is also ") as caught:
        open_code({f"code/{name}.py": ""})
    assert caught.value.reason == "CODE_SHADOWS_MODULE"


def test_a_package_of_a_name_that_is_taken_is_refused(open_code: Open) -> None:
    with pytest.raises(BundleCodeError, match="found 'numpy'"):
        open_code({"code/numpy/linalg.py": ""})


def test_a_module_within_a_package_may_have_any_name(open_code: Open) -> None:
    code = open_code({"code/ocr_steps/json.py": "VALUE = 1"})
    assert code.import_module("ocr_steps.json").VALUE == 1


def test_a_file_in_the_current_folder_is_no_installed_module(
    open_code: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "here/pipeline.py", "VALUE = 'here'")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(os.fspath(tmp_path / "here"))
    code = open_code({"code/pipeline.py": "VALUE = 'bundle'"})
    assert code.import_module("pipeline").VALUE == "bundle"


def test_two_bundles_cannot_hold_the_same_module_at_once(open_code: Open, tmp_path: Path) -> None:
    open_code({"code/pipeline.py": ""})
    with pytest.raises(BundleCodeError, match="found 'pipeline'"):
        open_code({"code/pipeline.py": ""})


def test_closing_makes_room_for_the_next_bundle(open_code: Open) -> None:
    first = open_code({"code/pipeline.py": "VALUE = 1"})
    first.import_module("pipeline")
    first.close()
    second = open_code({"code/pipeline.py": "VALUE = 2"})
    assert second.import_module("pipeline").VALUE == 2


def test_closing_leaves_the_import_system_as_it_was(open_code: Open) -> None:
    finders, modules = list(sys.meta_path), set(sys.modules)
    code = open_code({"code/pipeline.py": "import ocr_steps.crop", "code/ocr_steps/crop.py": ""})
    code.import_module("pipeline")
    code.close()
    assert (sys.meta_path, set(sys.modules)) == (finders, modules)


FAULTS = {
    "raises": ("VALUE = 1\nraise RuntimeError('no\\nluck')", "RuntimeError: no luck", 2),
    "exits": ("raise SystemExit(3)", "SystemExit: 3", 1),
    "does not parse": ("\n\nclass", "SyntaxError: invalid syntax", 3),
    "lacks a package": ("import not_there_it", "ModuleNotFoundError: No module named", 1),
}


@pytest.mark.parametrize("name", FAULTS)
def test_code_that_does_not_import_is_named_with_file_and_line(open_code: Open, name: str) -> None:
    source, found, line = FAULTS[name]
    code = open_code({"code/pipeline.py": source})
    with pytest.raises(BundleCodeError, match=found) as caught:
        code.import_module("pipeline")
    assert f"(code/pipeline.py:{line})" in caught.value.message


def test_a_fault_deep_in_the_bundle_is_located_there(open_code: Open) -> None:
    code = open_code(
        {
            "code/pipeline.py": "import ocr_steps.crop",
            "code/ocr_steps/crop.py": "\nimport json\njson.loads('{')",
        }
    )
    with pytest.raises(BundleCodeError, match=r"\(code/ocr_steps/crop\.py:3\)"):
        code.import_module("pipeline")


def test_files_are_hashed_with_sha256(tmp_path: Path) -> None:
    manifest = write_model(
        tmp_path, graphs={}, inputs=[], outputs=[], files={"assets/labels.txt": "cat"}
    )
    assert manifest.files[0].sha256 == hashlib.sha256(b"cat").hexdigest()
    assert BundleFiles(tmp_path, manifest).read("assets/labels.txt") == b"cat"


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "assets/../assets/labels.txt"])
def test_only_listed_paths_can_be_read(tmp_path: Path, path: str) -> None:
    manifest = write_model(
        tmp_path, graphs={}, inputs=[], outputs=[], files={"assets/labels.txt": "cat"}
    )
    with pytest.raises(KeyError):
        BundleFiles(tmp_path, manifest).read(path)


# --- whose error it is --------------------------------------------------------------------------

RAISED: dict[str, tuple[str, bool]] = {
    "raised": ("def go(): raise ValueError('bad')", True),
    "of its own kind": ("class Bad(ValueError): ...\ndef go(): raise Bad", True),
    "in a function": ("def check(x): raise ValueError(x)\ndef go(): check(1)", True),
    "in a loop": ("def each():\n    yield 1\n    raise ValueError\ndef go(): list(each())", True),
    "in a callback": ("def check(x): raise ValueError(x)\ndef go(): sorted([1], key=check)", True),
    "instead of a library's": (
        "def go():\n    try: int('x')\n    except ValueError: raise ValueError('no number')",
        True,
    ),
    "after a clean-up": (
        "def go():\n    try: raise ValueError\n    finally: print()",
        True,
    ),
    "of a builtin": ("def go(): int('x')", False),
    "of text that is none": ("def go(): b'\\xff'.decode()", False),
    "of numpy's C": ("import numpy as np\ndef go(): np.zeros(3).reshape(2)", False),
    "of numpy's Python": ("import numpy as np\ndef go(): np.stack([])", False),
    "of the standard library": ("import json\ndef go(): json.loads('{')", False),
    "of a library, passed on": (
        "def go():\n    try: int('x')\n    except ValueError: raise",
        False,
    ),
}


@pytest.mark.parametrize("name", RAISED)
def test_an_error_is_the_bundles_own_when_its_code_raised_it(open_code: Open, name: str) -> None:
    source, own = RAISED[name]
    module = open_code({"code/pipeline.py": source}).import_module("pipeline")
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - whose it is matters, not its words
        module.go()
    assert raised_by_bundle(caught.value) is own


def test_an_error_that_nobody_raised_is_nobodys() -> None:
    assert not raised_by_bundle(ValueError())


# --- bounds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(None, str(MAX_PIXELS)), ("1000", "1000")])
def test_image_decoding_is_bounded_unless_it_is_already(
    open_code: Open, monkeypatch: pytest.MonkeyPatch, before: str | None, after: str
) -> None:
    monkeypatch.setenv(PIXELS_VARIABLE, before or "")
    if before is None:
        monkeypatch.delenv(PIXELS_VARIABLE)
    open_code({})
    assert os.environ[PIXELS_VARIABLE] == after
