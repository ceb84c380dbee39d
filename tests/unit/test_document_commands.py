"""What the documents tell people to type exists: commands, options, systemd calls, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.document_runners import (
    BY_HAND,
    OTHERWISE,
    PAGES,
    blocks_of_acceptance,
    run_by_acceptance,
    runner,
    typed_by_acceptance,
)
from tests.support.documents import (
    DOCUMENTS,
    ROOT,
    SHELL,
    STUBS,
    Block,
    blocks,
    commands,
    lines,
    mentioned,
    parse_error,
    shell_blocks,
    typed,
    unknown_words,
)

_COMMAND = re.compile(r"(sudo |superbraind? )[a-z-]")
OURS = {"superbrain", "superbraind"}


def documents() -> list[Path]:
    assert len(DOCUMENTS) > 15
    return list(DOCUMENTS)


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_every_command_that_is_to_be_typed_parses(document: Path) -> None:
    for block, words in typed(document):
        if words[0] in OURS:
            assert not parse_error(words), f"{block.where}: {' '.join(words)}"


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_every_command_that_a_sentence_mentions_exists(document: Path) -> None:
    for text in mentioned(document):
        try:
            unknown = unknown_words(text)
        except SystemExit:
            unknown = "there is no such command"
        assert not unknown, f"{document.name}: `{text}`: {unknown}"


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_a_block_with_commands_says_that_it_is_to_be_typed(document: Path) -> None:
    for block in blocks(document):
        if block.language == "":
            said = [line for line in lines(block.text) if _COMMAND.match(line)]
            assert not said, f"{block.where}: ```sh instead of ```"


def commands_in(document: Path) -> list[Block]:
    """Every block of commands."""
    return [block for block in blocks(document) if block.language in SHELL]


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_every_block_of_commands_is_run_by_something(document: Path) -> None:
    for block in commands_in(document):
        found = runner(block)
        assert found, f"{block.where}: no test and no script runs it"
        assert found in BY_HAND.values() or (ROOT / found).is_file(), found


def test_nothing_that_an_operator_or_author_types_is_left_to_a_person() -> None:
    assert {page for page, _ in BY_HAND} == {"docs/performance.md"}


def test_a_block_that_nobody_runs_is_found() -> None:
    page = ROOT / "docs" / "metrics.md"
    assert not runner(Block(page, 1, "", "sh", "superbrain metrics\n"))
    assert not runner(Block(page, 1, "", "bash", "superbrain metrics\n"))
    assert not runner(Block(ROOT / "docs" / "trust.md", 1, "", "bash", "superbrain audit\n"))


def test_who_types_a_page_names_it() -> None:
    for page, path in PAGES.items():
        name = Path(page).name.replace(".zh-CN", "")
        assert name in (ROOT / path).read_text(encoding="utf-8"), page


def test_who_runs_a_block_otherwise_has_its_words_and_the_page_has_the_block() -> None:
    for (page, beginning), one in OTHERWISE.items():
        assert one.word in (ROOT / one.path).read_text(encoding="utf-8"), (page, beginning)
        there = [block.text for block in commands_in(ROOT / page)]
        assert sum(text.startswith(beginning) for text in there) == 1, (page, beginning)


def test_what_the_acceptance_types_is_one_block_of_a_page() -> None:
    for page, beginning in blocks_of_acceptance():
        there = [block.text for block in commands_in(ROOT / page)]
        assert sum(text.startswith(beginning) for text in there) == 1, (page, beginning)


def host_commands() -> list[tuple[str, list[str]]]:
    """What only a real host can do, of the blocks that the acceptance does not type whole."""
    return [
        (block.where, [Path(words[0]).name, *words[1:]])
        for document in DOCUMENTS
        for block, words in typed(document)
        if Path(words[0]).name in STUBS and not typed_by_acceptance(block)
    ]


def test_what_only_a_real_host_can_do_the_acceptance_does() -> None:
    done = [(Path(words[0]).name, *words[1:]) for words in run_by_acceptance() if words]
    for where, words in host_commands():
        options = [word for word in words[1:] if word.startswith("-") or words[0] == "systemctl"]
        assert any(there[0] == words[0] and {*options} <= {*there[1:]} for there in done), (
            f"{where}: scripts/acceptance does not run: {' '.join(words)}"
        )


def test_the_chinese_readme_has_the_same_blocks_as_the_english_one() -> None:
    english, chinese = (
        [
            (block.language, [re.sub(r"\s*#.*", "", line) for line in lines(block.text)])
            for block in blocks(ROOT / name)
            if block.language in {"sh", "python"}
        ]
        for name in ("README.md", "README.zh-CN.md")
    )
    assert chinese == english


def test_the_chinese_readme_has_the_same_links_and_commands() -> None:
    english, chinese = (
        (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")
    )
    for pattern in (r"\]\(([^)]+)\)", r"`([^`\n]+)`"):
        missing = {*re.findall(pattern, english)} - {*re.findall(pattern, chinese)}
        assert missing <= {"README.zh-CN.md"}


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    page = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (document.parent / path).resolve() if path else document
        assert there.exists(), f"{document.name}: {target}"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), f"{document.name}: {target}"


def anchors(document: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    page = document.read_text(encoding="utf-8")
    found = re.findall(r"(?m)^#+ (.*)$", page)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_a_line_is_taken_apart_as_a_shell_does() -> None:
    line = 'A=1 sudo superbrain x "$(superbrain key show a.pub)" | tee b && c  # d'
    assert commands(line) == [
        ["superbrain", "x", "SUBSTITUTED"],
        ["tee", "b"],
        ["c"],
        ["superbrain", "key", "show", "a.pub"],
    ]


def test_pages_have_blocks_to_type() -> None:
    for name in ("README.md", "docs/operations.md", "docs/install.md", "docs/trust.md"):
        assert shell_blocks(ROOT / name)
