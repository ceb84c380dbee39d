"""SIGKILL of the daemon before any operation on disk or journal, in every story it lives through.

Here some cuts of each story; `scripts/soak --cuts` makes all of them. tests/support/cuts.py says
what must follow, tests/support/consistency.py what must hold after each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.appliance import Appliance
from tests.support.cuts import ALL_STORIES, STORIES, CutStage, Story

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]
CUTS = 3


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CutStage]:
    with Appliance(tmp_path_factory.mktemp("cuts"), start=False) as appliance:
        yield CutStage(appliance)


def some(count: int) -> list[int]:
    """Give some operations of so many: the first, the last, and between them."""
    return sorted({1 + (count - 1) * step // (CUTS - 1) for step in range(CUTS)})


def test_the_document_has_every_story() -> None:
    document = (Path(__file__).parents[2] / "docs/faults.md").read_text()
    for story in ALL_STORIES:
        assert f"| {story.name} | {story.must} |" in document


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_a_daemon_killed_anywhere_in_it_ends_the_story_rightly(
    stage: CutStage, story: Story
) -> None:
    count = stage.count(story)
    assert count > 1
    cut = [stage.cut(story, number) for number in some(count)]
    assert any(cut)


def test_a_daemon_killed_again_while_it_recovers_ends_the_story_rightly(stage: CutStage) -> None:
    swap = next(story for story in STORIES if story.name == "swap")
    half = stage.count(swap) // 2
    for again_at in (1, 3):
        assert stage.cut(swap, half, again_at=again_at)
