"""Which loop serves: the compiled one where it was built and is of this release, else the twins."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

from scripts.build_loop import compile_loop
from superbrain.transport import compiled
from superbrain.wire import lane, messages

ROOT = Path(__file__).parents[3]
MANY = 1000
SHOW = "from superbrain.transport import compiled; print(compiled.described())"

# As the loop calls it: the number that Python has for it.
NUMBERS = {
    "ALIGNMENT": lane.ALIGNMENT,
    "PREFIX_BYTES": lane._PREFIX.size,
    "FIRST_KIND": lane.HELLO,
    "LAST_KIND": lane.ALONE,
    "MAX_TENSORS": messages.MAX_TENSORS,
    "MAX_HEADER_BYTES": messages.MAX_HEADER_BYTES,
    "REQUEST": lane.REQUEST,
    "RESPONSE": lane.RESPONSE,
    "FORWARD": lane.FORWARD,
    "REVISION": compiled.REVISION,
}


def described(**environment: str) -> str:
    command = [sys.executable, "-c", SHOW]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_environment_may_keep_a_process_to_python() -> None:
    assert described(SUPERBRAIN_LOOP="python") == "Python, as SUPERBRAIN_LOOP says"


def test_a_module_of_another_release_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ModuleType("superbrain.transport._loop")
    other.REVISION = compiled.REVISION + 1  # type: ignore[attr-defined]
    monkeypatch.delenv(compiled.VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "superbrain.transport._loop", other)
    monkeypatch.setattr("superbrain.transport._loop", other, raising=False)
    assert compiled.loop.__wrapped__() is None


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_of_the_loop_is_that_of_its_twin(name: str) -> None:
    text = (ROOT / "daemon/loop/loop.h").read_text()
    found = re.findall(rf"(?:#define {name} |\b{name} = )(\d+)(?: << (\d+))?", text)
    assert [int(number) << int(shift or 0) for number, shift in found] == [NUMBERS[name]]


def test_a_host_without_a_compiler_gets_no_module_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    target = tmp_path / "_loop.abi3.so"
    target.write_bytes(b"of an earlier build")
    assert not compile_loop(ROOT, target)
    assert list(tmp_path.iterdir()) == []


def test_none_is_given_with_its_count_whichever_python_compiled_it() -> None:
    module = compiled.loop()
    if module is None:
        pytest.skip("no compiled loop here")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        before = sys.getrefcount(None)
        for _ in range(MANY):
            assert module.send(ours.fileno(), 1, 0, 1, 0, b"{}", []) is None
            theirs.recv(1 << 16)
        assert sys.getrefcount(None) > before - MANY // 2


def test_it_compiles_without_a_warning_and_always_to_the_same_bytes(tmp_path: Path) -> None:
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    if not headers or not (shutil.which("gcc") or shutil.which("cc")):
        pytest.skip("no C compiler or no Python.h here")
    one, two = tmp_path / "one.so", tmp_path / "two.so"
    assert compile_loop(ROOT, one, ("-Werror",))
    assert compile_loop(ROOT, two)
    assert one.read_bytes() == two.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.so", "two.so"]
