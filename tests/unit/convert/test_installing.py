"""Who installs, where they look, and what follows when the first cannot; nothing is installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from superbrain.convert import installing
from superbrain.convert.errors import SetupFailed
from superbrain.convert.installing import Lock, install

CONFIGURED = """\
:env:.find-links='/opt/wheels'
global.extra-index-url='https://one/simple https://two/simple'
global.index-url='https://mirror/simple'
global.timeout='60'
"""


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lock:
    """A lock of one package with a build without CUDA; environments are mere folders."""
    monkeypatch.setattr(installing, "_make_venv", lambda path, *_: path.mkdir(exist_ok=True))
    found = Lock(*(tmp_path / f"{name}.txt" for name in ("packages", "cpu", "cuda")))
    for path in found:
        path.write_text("adder==1.0 --hash=sha256:00\n")
    return found


def commands(*, uv: bool, cpu: bool = True) -> dict[str, Callable[..., list[str]]]:
    """Commands that only say what they would install, or fail."""

    def said(works: bool) -> Callable[..., list[str]]:

        def command(_self: object, path: Path) -> list[str]:
            fails = not works or (path.stem == "cpu" and not cpu)
            text = f"print('Collecting {path.stem}')"
            return [sys.executable, "-c", f"{text}; raise SystemExit({int(fails)})"]

        return command

    return {"_Uv": said(uv), "_Pip": said(works=True)}


def installed(
    folder: Path, lock: Lock, monkeypatch: pytest.MonkeyPatch, **how: bool
) -> tuple[str, list[str]]:
    for name, command in commands(**how).items():
        monkeypatch.setattr(getattr(installing, name), "command", command)
    told: list[str] = []
    install(folder / "torch", "torch", lock, told.append)
    return (folder / "torch/install.log").read_text(), told


def test_uv_installs_where_it_is_there(
    tmp_path: Path, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "find_spec", lambda _name: object())
    log, told = installed(tmp_path, lock, monkeypatch, uv=True)
    assert log == "Collecting packages\nCollecting cpu\n"
    assert not any("pip" in one for one in told)


def test_what_uv_cannot_do_pip_does(
    tmp_path: Path, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "find_spec", lambda _name: object())
    log, told = installed(tmp_path, lock, monkeypatch, uv=False)
    assert log.splitlines() == ["Collecting packages", "Collecting packages", "Collecting cpu"]
    assert "uv could not; trying with pip" in told


def test_the_build_with_cuda_is_taken_where_there_is_no_other(
    tmp_path: Path, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "find_spec", lambda _name: None)
    log, told = installed(tmp_path, lock, monkeypatch, uv=True, cpu=False)
    assert log.splitlines()[-1] == "Collecting cuda"
    assert any("no build without CUDA" in one for one in told)


def test_a_package_that_nobody_has_is_said_with_where_to_look(
    tmp_path: Path, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "find_spec", lambda _name: None)
    fails = [sys.executable, "-c", "print('ERROR: no adder'); raise SystemExit(1)"]
    monkeypatch.setattr(installing._Pip, "command", lambda *_: fails)
    with pytest.raises(
        SetupFailed, match=r"packages\.txt could not be installed: no adder"
    ) as found:
        install(tmp_path / "torch", "torch", lock, lambda _: None)
    assert found.value.code == "SETUP_PACKAGES"


def test_uv_looks_where_pip_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)

    def listed(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401
        return subprocess.CompletedProcess(command, 0, CONFIGURED)

    monkeypatch.setattr(subprocess, "run", listed)
    assert list(installing._places()) == [
        *("--find-links", "/opt/wheels"),
        *("--index", "https://one/simple"),
        *("--index", "https://two/simple"),
        *("--default-index", "https://mirror/simple"),
    ]
