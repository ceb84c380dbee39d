"""Where frameworks live, and how that is told; none is installed here."""

from __future__ import annotations

import platform
from pathlib import Path

import msgspec
import pytest

from superbrain.convert import environments as env
from superbrain.convert.errors import SetupFailed


def stamp(place: Path, framework: str, **other: str) -> None:
    lock, python = env.lock_of(framework).digest, platform.python_version()
    made = env.Stamp(framework, other.get("lock", lock), other.get("python", python), 1000)
    (place / framework / "bin").mkdir(parents=True)
    (place / framework / "bin/python").touch()
    (place / framework / "superbrain.json").write_bytes(msgspec.json.encode(made))


@pytest.mark.parametrize("framework", env.FRAMEWORKS)
def test_every_framework_has_a_lock_in_which_every_package_has_hashes(framework: str) -> None:
    for lock in filter(Path.exists, env.lock_of(framework)):
        lines = [line for line in lock.read_text().splitlines() if line and line[0].isalnum()]
        hashes = lock.read_text().count("--hash=sha256:")
        assert lines
        assert hashes >= len(lines)
        assert all("==" in line for line in lines)


def test_what_was_never_made_is_absent(tmp_path: Path) -> None:
    assert env.look(tmp_path, "torch").state == "absent"


def test_what_was_made_of_this_lock_is_ready_and_names_its_packages(tmp_path: Path) -> None:
    stamp(tmp_path, "sklearn")
    found = env.look(tmp_path, "sklearn")
    assert found.state == "ready"
    assert {"scikit-learn", "xgboost-cpu", "lightgbm", "skl2onnx"} <= found.packages.keys()


@pytest.mark.parametrize("other", [{"lock": "old"}, {"python": "3.9.1"}])
def test_what_was_made_of_another_lock_or_python_is_stale(
    tmp_path: Path, other: dict[str, str]
) -> None:
    stamp(tmp_path, "onnx", **other)
    assert env.look(tmp_path, "onnx").state == "stale"
    with pytest.raises(SetupFailed, match="of other versions"):
        env.require(tmp_path, "onnx")


@pytest.mark.parametrize(
    ("place", "there"),
    [("usual", ""), ("an other", " --environments-folder '{tmp_path}/an other'")],
)
def test_a_missing_one_says_how_to_make_it_where_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, there: str
) -> None:
    monkeypatch.setenv(env.PLACE_VARIABLE, str(tmp_path / "usual"))
    with pytest.raises(SetupFailed) as refused:
        env.require(tmp_path / place, "paddle")
    command = f"superbrain convert --setup paddle{there.format(tmp_path=tmp_path)}"
    assert refused.value.mend == f"Make it, once: {command}"


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/mine").write_text("mine")
    with pytest.raises(SetupFailed) as refused:
        env.set_up(tmp_path, "onnx", lambda _: None)
    assert refused.value.code == "SETUP_PLACE"
    assert env.remove(tmp_path, "onnx") is False
    assert (tmp_path / "onnx/mine").read_text() == "mine"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SUPERBRAIN_ENVIRONMENTS": "/here"}, "/here"),
        ({"XDG_DATA_HOME": "/data"}, "/data/superbrain/environments"),
        ({"HOME": "/home/ada"}, "/home/ada/.local/share/superbrain/environments"),
    ],
)
def test_environments_lie_where_the_user_says(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("SUPERBRAIN_ENVIRONMENTS", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert env.default_place() == Path(expected)


def test_an_environment_can_be_thrown_away(tmp_path: Path) -> None:
    stamp(tmp_path, "onnx")
    (tmp_path / "onnx/pyvenv.cfg").touch()
    assert env.remove(tmp_path, "onnx") is True
    assert env.look(tmp_path, "onnx").state == "absent"
