"""How a command is found, and how every ending is told: with command modules made for the test."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import pytest

from superbrain import __version__
from superbrain.cli import main as command
from superbrain.cli.main import Command, main
from superbrain.transport import compiled
from superbrain.wire.errors import NotFound, SuperbrainError

Run = Callable[[argparse.Namespace], int]
SubParsers: TypeAlias = "argparse._SubParsersAction[Any]"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], None]:
    """Make `superbrain try` run a function."""

    def install(run: Run) -> None:
        def register(commands: SubParsers) -> None:
            parser = commands.add_parser("try")
            parser.add_argument("--json", action="store_true")
            parser.set_defaults(run=run)

        module = ModuleType("superbrain.cli.try_it")
        module.register = register  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(command, "COMMANDS", {"Test": (Command("try", ("try_it",), "try"),)})

    monkeypatch.delenv("SUPERBRAIN_DEBUG", raising=False)
    return install


def raising(error: BaseException) -> Run:
    def run(_args: argparse.Namespace) -> int:
        raise error

    return run


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:2] == "  "}
    commands = {row.name for rows in command.COMMANDS.values() for row in rows}
    assert listed == commands | {"--help", "--version"}


def test_no_command_shows_the_help_and_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: superbrain COMMAND" in capsys.readouterr().out


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    described = compiled.described()
    assert capsys.readouterr().out == f"superbrain {__version__} (lane loop: {described})\n"


def test_help_imports_nothing_that_takes_time() -> None:
    slow = "{'numpy', 'msgspec', 'zmq', 'rich', 'onnxruntime', 'cv2', 'asyncio'}"
    code = (
        "import sys; from superbrain.cli.main import main; main(['--help']);"
        f"sys.exit(bool({slow} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_command_is_answered_with_the_nearest_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["statsu"]) == 2
    assert "did you mean 'superbrain status'?" in capsys.readouterr().err


def test_a_command_like_no_other_gets_no_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["xyzzy"]) == 2
    assert "did you mean" not in capsys.readouterr().err


def test_options_before_the_command_are_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "status"]) == 2
    assert "expected a command before options" in capsys.readouterr().err


def test_a_commands_own_usage_error_is_2(install: Callable[[Run], None]) -> None:
    install(lambda _args: 0)
    assert main(["try", "--nonsense"]) == 2


def test_a_command_decides_its_exit_code(install: Callable[[Run], None]) -> None:
    install(lambda _args: 7)
    assert main(["try"]) == 7


def test_an_error_is_told_with_its_mend(
    install: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    install(raising(SuperbrainError("expected 3 keys, got 2", mend="add a key")))
    assert main(["try"]) == 1
    assert capsys.readouterr().err == "error: expected 3 keys, got 2\n  → add a key\n"


def test_an_error_without_a_mend_is_one_line(
    install: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    install(raising(SuperbrainError("expected 3 keys, got 2")))
    main(["try"])
    assert capsys.readouterr().err == "error: expected 3 keys, got 2\n"


def test_a_program_gets_the_error_as_json(
    install: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    install(raising(NotFound("no model 'ocr'", mend="list them")))
    assert main(["try", "--json"]) == 1
    error = {"code": "NOT_FOUND", "message": "no model 'ocr'", "mend": "list them"}
    assert json.loads(capsys.readouterr().out) == {"error": error}


def test_an_interrupt_is_130_and_silent(
    install: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    install(raising(KeyboardInterrupt()))
    assert main(["try"]) == 130
    assert capsys.readouterr() == ("", "")


def test_an_unforeseen_error_is_one_sentence_and_the_way_to_its_traceback(
    install: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    install(raising(ZeroDivisionError("by zero")))
    assert main(["try"]) == 70
    error = capsys.readouterr().err
    assert error.startswith("error: unexpected ZeroDivisionError: by zero\n")
    assert "SUPERBRAIN_DEBUG=1" in error
    assert "Traceback" not in error


def test_debugging_shows_the_traceback(
    install: Callable[[Run], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(raising(ZeroDivisionError("by zero")))
    monkeypatch.setenv("SUPERBRAIN_DEBUG", "1")
    main(["try"])
    assert "Traceback" in capsys.readouterr().err


EXTRAS = {"rich": "cpu", "onnxruntime.capi": "cpu", "tensorrt": "tensorrt", "cuda": "tensorrt"}


@pytest.mark.parametrize(("module", "extra"), EXTRAS.items())
def test_a_missing_package_is_told_with_the_extra_that_brings_it(
    install: Callable[[Run], None], capsys: pytest.CaptureFixture[str], module: str, extra: str
) -> None:
    install(raising(ModuleNotFoundError(f"No module named {module!r}", name=module)))
    assert main(["try"]) == 3
    package = module.partition(".")[0]
    assert capsys.readouterr().err == (
        f"error: superbrain try needs the extra '{extra}' (module {package} is missing)\n"
        f"  → Install it with: pip install 'superbrain[{extra}]'\n"
    )


def test_a_missing_part_of_superbrain_itself_is_unforeseen(
    install: Callable[[Run], None],
) -> None:
    install(raising(ModuleNotFoundError("No module named 'x'", name="superbrain.x")))
    assert main(["try"]) == 70


NEEDS = {
    "status": "cpu",
    "history": "cpu",
    "report": "cpu",
    "health": None,
    "rollback": None,
    "retire": None,
    "retry": None,
    "reload": None,
}


@pytest.mark.parametrize(("name", "extra"), NEEDS.items())
def test_the_base_install_has_the_commands_that_need_no_extra(name: str, extra: str | None) -> None:
    absent = "{'rich': None, 'psutil': None, 'pynvml': None, 'securesystemslib': None, 'cv2': None}"
    code = (
        f"import sys; sys.modules.update({absent});"
        f"from superbrain.cli.main import main; sys.exit(main([{name!r}, '--help']))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == (3 if extra else 0)
    assert (f"'superbrain[{extra}]'" in ended.stderr) == (extra is not None)


@pytest.mark.parametrize(
    "name", [row.name for rows in list(command.COMMANDS.values())[:1] for row in rows]
)
def test_an_operators_command_explains_itself_with_examples(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--help"]) == 0
    assert f"examples:\n  superbrain {name}" in capsys.readouterr().out


def test_modules_of_one_command_are_chained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def first(commands: SubParsers) -> SubParsers:
        inner: SubParsers = commands.add_parser("pack").add_subparsers(required=True)
        return inner

    def second(inner: SubParsers) -> None:
        inner.add_parser("up").set_defaults(run=lambda _args: 5)

    for name, function in (("one", first), ("two", second)):
        module = ModuleType(f"superbrain.cli.{name}")
        module.register = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    row = Command("pack", ("one", "two"), "pack")
    monkeypatch.setattr(command, "COMMANDS", {"Test": (row,)})
    assert main(["pack", "up"]) == 5
