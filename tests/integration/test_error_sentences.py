"""What a person sees when something is wrong: a sentence with a way out, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from tests.support.appliance import Appliance
from tests.support.bundles import make_bundle, make_bundle_folder, sign_key

pytestmark = pytest.mark.integration

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("appliance")) as running:
        running.drop(make_bundle(running.work, running.author))
        running.wait_live("adder", "1.0.0")
        yield running


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Type a command as a person does."""
    return subprocess.run(
        [str(BIN / str(command[0])), *map(str, command[1:])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | environment,
    )


def assert_sentence(done: subprocess.CompletedProcess[str], *parts: str, status: int = 1) -> None:
    """One error with what was found, and what to do; nothing else."""
    assert "Traceback" not in done.stdout + done.stderr
    for part in ("error: ", *parts):
        assert part in done.stderr
    assert done.returncode == status


def infer(appliance: Appliance, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run("superbrain", "infer", *arguments, SUPERBRAIN_ENDPOINT=appliance.endpoint)


def saved(folder: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Path:
    path = folder / "x.npy"
    np.save(path, array)
    return path


def test_a_wrong_model_name_is_told_what_there_is(appliance: Appliance, tmp_path: Path) -> None:
    x = saved(tmp_path, np.zeros((1, 4), np.float32))
    done = infer(appliance, "addder", "--input", f"x={x}")
    assert_sentence(done, "'adder'", "'addder'")


def test_a_wrong_dtype_is_told_which_was_expected(appliance: Appliance, tmp_path: Path) -> None:
    x = saved(tmp_path, np.zeros((1, 4), np.int64))
    assert_sentence(infer(appliance, "adder", "--input", f"x={x}"), "FP32", "INT64")


def test_a_wrong_shape_is_told_which_was_expected(appliance: Appliance, tmp_path: Path) -> None:
    x = saved(tmp_path, np.zeros((1, 5), np.float32))
    assert_sentence(infer(appliance, "adder", "--input", f"x={x}"), "[-1, 4]", "[1, 5]")


def test_a_wrong_input_name_is_told_the_right_one(appliance: Appliance, tmp_path: Path) -> None:
    x = saved(tmp_path, np.zeros((1, 4), np.float32))
    assert_sentence(infer(appliance, "adder", "--input", f"y={x}"), "'y'", "x")


def test_a_missing_input_file_is_named(appliance: Appliance) -> None:
    assert_sentence(infer(appliance, "adder", "--input", "x=nowhere.npy"), "nowhere.npy")


def test_no_daemon_is_said_at_once(tmp_path: Path) -> None:
    done = run("superbrain", "models", SUPERBRAIN_ENDPOINT=f"ipc://{tmp_path}/infer.sock")
    assert_sentence(done, "no superbrain gateway answers", "superbraind")


def test_no_daemon_is_said_to_an_operator_too(tmp_path: Path) -> None:
    done = run("superbrain", "status", SUPERBRAIN_CONTROL=f"ipc://{tmp_path}/control.sock")
    assert_sentence(done, "superbraind")


def test_a_bundle_of_a_stranger_is_refused_by_verify(tmp_path: Path) -> None:
    author, stranger = sign_key(tmp_path, "author"), sign_key(tmp_path, "stranger")
    bundle = make_bundle(tmp_path, stranger)
    done = run("superbrain", "bundle", "verify", bundle.path, "--key", author.public)
    assert_sentence(done, "key")


def test_half_a_bundle_is_told_how_much_is_missing(tmp_path: Path) -> None:
    author = sign_key(tmp_path)
    bundle = make_bundle(tmp_path, author)
    half = tmp_path / "half.sbb"
    half.write_bytes(bundle.path.read_bytes()[: bundle.size_bytes // 2])
    done = run("superbrain", "bundle", "verify", half, "--key", author.public)
    assert_sentence(done, str(bundle.size_bytes), str(bundle.size_bytes // 2))


def test_a_folder_without_a_recipe_is_told_how_to_make_one(tmp_path: Path) -> None:
    author = sign_key(tmp_path)
    done = run("superbrain", "bundle", "build", tmp_path, "--key", author.private)
    assert_sentence(done, "bundle.toml", "bundle init")


def test_a_typing_error_in_a_recipe_is_answered_with_a_suggestion(tmp_path: Path) -> None:
    author = sign_key(tmp_path)
    folder = make_bundle_folder(tmp_path)
    recipe = folder / "bundle.toml"
    recipe.write_text(recipe.read_text().replace("description", "desciption"))
    done = run("superbrain", "bundle", "build", folder, "--key", author.private)
    assert_sentence(done, "desciption", "description")


def test_an_inbox_that_cannot_be_used_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "inbox").write_text("not a folder")
    assert_sentence(run("superbraind", "--root", tmp_path), "the inbox", "inbox")


def test_a_taken_endpoint_is_said_at_the_start(appliance: Appliance) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        root = appliance.root / "other"
        (root / "run").mkdir(parents=True)
        socket.bind(f"ipc://{root}/run/infer.sock")
        assert_sentence(run("superbraind", "--root", root), "infer.sock")


def test_an_unknown_command_is_answered_with_a_suggestion() -> None:
    done = run("superbrain", "statsu")
    assert "status" in done.stderr
    assert done.returncode == 2


@pytest.fixture(scope="module")
def base_install(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment that holds the client alone, as `pip install superbrain` does."""
    folder = tmp_path_factory.mktemp("base")
    venv.create(folder, with_pip=False)
    lock = REPOSITORY / "requirements"
    for arguments in (
        ("--require-hashes", "-r", str(lock / "client.txt"), "-r", str(lock / "build.txt")),
        ("--no-deps", "--no-build-isolation", "--editable", str(REPOSITORY)),
    ):
        pip = (sys.executable, "-m", "pip", "--python", str(folder), "install", "-q")
        subprocess.run([*pip, "--no-compile", *arguments], check=True, timeout=300)
    return folder / "bin"


def test_a_command_without_its_extra_says_which_one_to_install(base_install: Path) -> None:
    for command in (["superbrain", "status"], ["superbrain", "bundle", "init", "x.onnx"]):
        done = run(base_install / command[0], *command[1:])
        assert_sentence(done, "superbrain[cpu]", status=3)


def test_the_daemon_without_its_extra_says_which_one_to_install(base_install: Path) -> None:
    assert_sentence(run(base_install / "superbraind"), "superbrain[cpu]", status=3)


def test_the_client_alone_is_enough_to_ask(
    base_install: Path, appliance: Appliance, tmp_path: Path
) -> None:
    x = saved(tmp_path, np.zeros((1, 4), np.float32))
    done = run(
        base_install / "superbrain",
        *("infer", "adder", "--input", f"x={x}"),
        SUPERBRAIN_ENDPOINT=appliance.endpoint,
    )
    assert done.returncode == 0, done.stderr
    assert "y" in done.stdout
