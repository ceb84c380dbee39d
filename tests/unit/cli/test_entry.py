"""An interrupt is silent from the first import on, and a command's own affair once it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

INTERRUPT = "import os, signal; os.kill(os.getpid(), signal.SIGINT)\n"
BEGIN = "import sys; from superbrain.cli.entry import main; sys.exit(main())"
#: Imported by the command line itself, and by the command that is typed.
IMPORTED = ["argparse", "rich"]


def begin(folder: Path, *words: str, first: str = "") -> subprocess.CompletedProcess[bytes]:
    """Begin a command line as the installed script does; modules in `folder` come first."""
    variables = os.environ | {"PYTHONPATH": str(folder)}
    command = ["env", "--default-signal=INT", sys.executable, "-c", first + BEGIN, *words]
    return subprocess.run(command, capture_output=True, check=False, env=variables)


@pytest.mark.parametrize("module", IMPORTED)
def test_an_interrupt_while_modules_are_imported_is_130_and_silent(
    tmp_path: Path, module: str
) -> None:
    (tmp_path / f"{module}.py").write_text(INTERRUPT)
    ended = begin(tmp_path, "status")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"")


def test_who_ignores_interrupts_goes_on_ignoring_them(tmp_path: Path) -> None:
    (tmp_path / "rich.py").write_text(INTERRUPT + "raise ModuleNotFoundError(name='rich')\n")
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    assert begin(tmp_path, "status", first=ignoring).returncode == 3


def test_a_command_that_runs_has_the_interrupt_as_python_gives_it(tmp_path: Path) -> None:
    module = "superbrain.cli.try_it"
    (tmp_path / "try_it.py").write_text(
        "def register(commands):\n"
        "    commands.add_parser('try').set_defaults(run=run)\n"
        "def run(args):\n"
        "    try:\n"
        f"        {INTERRUPT}"
        "    except KeyboardInterrupt:\n"
        "        return 7\n"
    )
    table = (
        f"import sys, try_it; sys.modules[{module!r}] = try_it;"
        "import superbrain.cli.main as command;"
        "command.COMMANDS = {'Test': (command.Command('try', ('try_it',), 'try'),)};"
    )
    assert begin(tmp_path, "try", first=table).returncode == 7
