"""The page about templates names what there is, and the files are what an author may edit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from superbrain.cli.template.registry import TEMPLATES
from tests.support.bundle_code import TEMPLATES as FOLDER

PAGE = (Path(__file__).resolve().parents[3] / "docs/templates.md").read_text(encoding="utf-8")
CONSTANT = re.compile(r"^([A-Z][A-Z_]+) = ", re.MULTILINE)


def sources(template: str) -> str:
    files = [*FOLDER.glob(f"{template}/*.py"), *FOLDER.glob("shared/*.py")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_constant_that_the_page_names_is_in_the_template(template: str) -> None:
    page = PAGE[PAGE.index("## The constants") : PAGE.index("## By kind of model")]
    (row,) = re.findall(rf"^\| `{template}` \|.*$", page, re.MULTILINE)
    named = set(re.findall(r"`([A-Z][A-Z_]+)`", row))
    assert named
    assert named <= set(CONSTANT.findall(sources(template)))


def test_every_template_has_its_paragraph() -> None:
    kinds = PAGE[PAGE.index("## By kind of model") :].lower()
    assert [name for name in TEMPLATES if f"**{name}.**" not in kinds] == []


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("*.py")), ids=lambda file: file.name)
def test_templates_are_plain_files_that_need_nothing_of_superbrain(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.startswith('"""')
    assert "superbrain" not in text
