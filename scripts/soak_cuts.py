"""`scripts/soak --cuts`: every story of tests/support/cuts.py, killed before each operation.

Most of a cut is waiting, so several stories are under way at the same time, each in a process and
on an appliance of its own.
"""

from __future__ import annotations

import concurrent.futures
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.support.appliance import Appliance
from tests.support.cuts import ALL_STORIES, CutStage, Story

EVERY = 20  # operations, some half a minute
_BY_NAME = {story.name: story for story in ALL_STORIES}


def every_cut(jobs: int, say: Callable[[str], None]) -> list[str]:
    """Make all cuts, a line for each story; what was found wrong.

    Args:
        jobs: how many stories at the same time.
        say: gets the lines.
    """
    width = max(map(len, _BY_NAME))
    say(f"{'story':<{width}}{'operations':>12}{'killed':>8}{'wrong':>7}  what must follow")
    findings: list[str] = []
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        for ended in concurrent.futures.as_completed(pool.submit(cut, name) for name in _BY_NAME):
            name, count, killed, found = ended.result()
            findings += found
            row = f"{name:<{width}}{count:>12}{killed:>8}{len(found):>7}"
            say(f"{row}  {_BY_NAME[name].must}")
    return findings


def cut(name: str) -> tuple[str, int, int, list[str]]:
    """Cut one story at each of its operations: how many, how often it was killed, what is wrong."""
    story = _BY_NAME[name]
    with (
        tempfile.TemporaryDirectory() as folder,
        Appliance(Path(folder), start=False) as appliance,
    ):
        stage = CutStage(appliance)
        count = stage.count(story)
        return (name, count, *_cut_at_each(stage, story, count))


def _cut_at_each(stage: CutStage, story: Story, count: int) -> tuple[int, list[str]]:
    killed = 0
    for number in range(1, count + 1):
        try:
            killed += stage.cut(story, number)
        except AssertionError as error:  # where the stage stands now is not known
            return killed, [f"{story.name}, operation {number}: {str(error)[:2000]}"]
        if number % EVERY == 0:
            print(f"  {story.name}: {number} of {count} operations cut", flush=True)
    return killed, []
