"""Completion and manual page, as they are made from the parsers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from superbrain.cli.main import COMMANDS, main

ASKING = """
source "$0"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_superbrain
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("superbrain sta", {"status"}),
        ("superbrain config ", {"show", "check", "explain", "-h", "--help"}),
        ("superbrain bundle build --thr", set()),
        ("superbrain bundle build --ke", {"--key"}),
        ("superbrain completion b", {"bash"}),
        ("superbrain bundle init --template au", {"audio"}),
    ],
)
def test_bash_offers_what_may_follow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], typed: str, offered: set[str]
) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    command = [bash, "-c", ASKING, str(script), *typed.split(" ")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert set(said.stdout.split()) - {"completion.bash"} == offered


def test_the_manual_has_every_command_and_no_line_that_roff_takes_for_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["completion", "man"]) == 0
    page = capsys.readouterr().out
    for command in (command for group in COMMANDS.values() for command in group):
        assert f'.SH "SUPERBRAIN {command.name.upper()}"' in page
    orders = {line.split(" ")[0] for line in page.splitlines() if line.startswith((".", "'"))}
    assert orders == {".TH", ".SH", ".nf", ".fi"}
