"""What documents tell people to type: found, parsed as the command line is, and typed.

A fenced block is typed when its language is `sh`. `Typist` types a whole page in its order on a
host of its own: what is installed on a real one lies below a folder here, `sudo` does nothing, and
what only a real systemd knows is noted instead of done (`STUBS`); scripts/acceptance does it, and
types the `bash` blocks. Who runs which block: document_runners.py.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "README.zh-CN.md",
    ROOT / "bundles" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
)
# Programs that change the machine, or need a systemd: each use of them is noted.
STUBS = ("systemctl", "journalctl", "usermod", "groupadd", "nft", "install.sh", "wheelhouse")
SHELL = frozenset({"sh", "bash"})
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^## (.*)$", re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`(superbraind? [^`\n]+)`")
_ENDS = frozenset({"|", "||", "&&", ";", "&", "(", ")", ">", "<", ">>"})
_BEFORE = frozenset({"sudo", "!"})


class Block(NamedTuple):
    """A fenced block: where it begins, below which heading, and what it holds."""

    document: Path
    line: int
    heading: str
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks(document: Path) -> list[Block]:
    """Every fenced block of a document."""
    page = document.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(page):
        before = page[: match.start()]
        headings = _HEADING.findall(before)
        text = re.sub(rf"(?m)^{match[1]}", "", match[3])
        heading = headings[-1] if headings else ""
        found.append(Block(document, before.count("\n") + 1, heading, match[2], text))
    return found


def shell_blocks(document: Path) -> list[Block]:
    """Those that are typed."""
    return [block for block in blocks(document) if block.language == "sh"]


def lines(text: str) -> list[str]:
    """The lines of a block as a shell reads them: joined where they go on, none that is empty."""
    joined = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [line.strip() for line in joined if line.strip() and not line.lstrip().startswith("#")]


def commands(line: str) -> list[list[str]]:
    """The simple commands of a line, without sudo, assignments, redirections and comments."""
    inner = re.findall(r"\$\(([^()]*)\)", line)
    line = re.sub(r"\$\([^()]*\)", "SUBSTITUTED", line)
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if word in _ENDS:
            found.append([])
        else:
            found[-1].append(word)
    simple = [_without_prefix(words) for words in found]
    return [words for words in simple if words] + [one for text in inner for one in commands(text)]


def _without_prefix(words: Sequence[str]) -> list[str]:
    rest = list(words)
    while rest and (rest[0] in _BEFORE or re.fullmatch(r"[A-Z_]+=.*", rest[0])):
        rest.pop(0)
    return rest


def typed(document: Path) -> Iterator[tuple[Block, list[str]]]:
    """Every simple command in a document's blocks of shell."""
    for block in blocks(document):
        for line in lines(block.text) if block.language in SHELL else ():
            for words in commands(line):
                yield block, words


def mentioned(document: Path) -> Iterator[str]:
    """Every command of superbrain within sentences and tables, and in other blocks' `$ ` lines."""
    page = document.read_text(encoding="utf-8")
    yield from _INLINE.findall(_FENCE.sub("", page))
    for block in blocks(document):
        yield from re.findall(r"(?m)^\$ (superbrain .*)$", block.text)


# --- as the command line parses it ----------------------------------------------------------------


def parse_error(words: Sequence[str]) -> str:
    """What superbrain's or superbraind's own parser says against a command; empty when nothing."""
    from superbrain.app.main import _parser
    from superbrain.cli.main import _command, parser_of

    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            if words[0] == "superbraind":
                _parser().parse_args(list(words[1:]))
            else:
                parser_of(_command(words[1])).parse_args(list(words[1:]))
        except SystemExit as end:
            return said.getvalue() if end.code else ""
    return ""


def unknown_words(text: str) -> str:
    """What in a mentioned command is no command, action or option; empty when all is known.

    A mention leaves arguments out, or names several: `superbrain retry NAME [--version V]`.
    """
    from superbrain.cli.main import _command, parser_of

    words = re.sub(r"[\[\]|…]", " ", text).split()[1:]
    if text.startswith("superbraind") or not words or words[0].startswith("-"):
        return ""
    parser = parser_of(_command(words[0]))
    for word in words:
        if word.startswith("-"):
            name = word.partition("=")[0]
            if name not in parser._option_string_actions:
                return f"{name} is no option"
            continue
        for action in parser._actions:
            if isinstance(action.choices, dict):
                if word in action.choices:
                    parser = action.choices[word]
                elif word.islower():
                    return f"{word} is no action"
    return ""


# --- typing a page --------------------------------------------------------------------------------


def installed_places(root: Path) -> dict[str, str]:
    """Where what an installed host has lies on a host below `root`."""
    return {
        "/etc/superbrain/trust": f"{root}/trust",
        "/etc/superbrain/superbrain.toml": f"{root}/superbrain.toml",
        "/var/lib/superbrain/inbox": f"{root}/inbox",
        "/var/lib/superbrain/state": f"{root}/state",
        "/run/superbrain": f"{root}/run",
    }


def write_programs(document: Path, folder: Path) -> None:
    """Save a page's blocks of Python that begin with `# NAME.py` under these names."""
    for block in blocks(document):
        if block.language == "python" and (named := re.match(r"# (\w+\.py)\n", block.text)):
            (folder / named[1]).write_text(block.text)


class Typist:
    """Types pages in a folder of its own.

    Args:
        folder: where it is typed.
        places: what of a page lies elsewhere here, such as the inbox of an installed host.
        environment: what is added to it.
        patience_s: how long one page may take.
    """

    def __init__(
        self,
        folder: Path,
        places: Mapping[str, str],
        environment: Mapping[str, str],
        patience_s: float = 240.0,
    ) -> None:
        self.folder = folder
        self._patience_s = patience_s
        self.noted = folder / "noted"
        self._places = places
        self._programs = folder / "programs"
        self._programs.mkdir(parents=True)
        self._environment = environment
        self.noted.touch()
        for name in STUBS:
            self.program(name, f'echo "{name} $*" >>"{self.noted}"')
        self.program("sudo", 'exec "$@"')
        waiting = f'exec "{sys.executable}" -m tests.support.wait_live "$@"'
        self.program("wait-live", f'cd "{ROOT}" && {waiting}')

    def type(
        self,
        document: Path,
        *,
        before: Mapping[str, str] | None = None,
        after: Mapping[str, str] | None = None,
        instead: Mapping[str, str] | None = None,
        without: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Type every line of a document; the first that fails is an AssertionError.

        Args:
            document: the page.
            before: what is typed before lines that match a pattern, such as a preparation.
            after: what is typed after them, such as waiting until it has taken effect.
            instead: what of a line is typed as something else, such as a shorter time.
            without: headings whose blocks are not typed, and why.
        """
        script = [
            text
            for block in shell_blocks(document)
            if block.heading not in (without or {})
            for line in lines(block.text)
            for text in (*_added(before, line), _replaced(instead, line), *_added(after, line))
        ]
        return self.run("\n".join(script))

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Type a script."""
        for there, here in self._places.items():
            script = script.replace(there, here)
        environment = os.environ | self._environment
        programs = (self._programs, Path(sys.executable).parent, environment["PATH"])
        environment["PATH"] = ":".join(map(str, programs))
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", script],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=self._patience_s,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
        return done

    def program(self, name: str, text: str) -> None:
        """Have a shell script answer to a name."""
        path = self._programs / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)


def _replaced(table: Mapping[str, str] | None, line: str) -> str:
    for pattern, text in (table or {}).items():
        line = re.sub(pattern, text, line)
    return line


def _added(table: Mapping[str, str] | None, line: str) -> list[str]:
    return [text for pattern, text in (table or {}).items() if re.search(pattern, line)]
