"""What the demo's author does to a recipe: copies it, changes it, and harms its weights.

Every function changes files in the author's folder and shows, as far as that matters, what changed.
"""

from __future__ import annotations

import difflib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from scripts.demo_page import ClaimBroken
from scripts.demo_stage import REPOSITORY, Stage

TURNS = ("0", "90", "180", "270")
HARMED_WEIGHTS = 50_000


def copy_recipe(stage: Stage, name: str) -> None:
    """Without answers from an earlier time: they are recorded in the demo."""
    source = REPOSITORY / "bundles" / name
    stage.page.typed(f"cp -r {source} .")
    earlier = shutil.ignore_patterns("response", "__pycache__")
    shutil.copytree(source, stage.folder / name, ignore=earlier)


def make_pictures(stage: Stage) -> None:
    """JPEG files of the page, turned four ways; the last turn brings it back to the first."""
    page = cv2.imread(str(stage.folder / "orientation/golden/turned-270/request/image.png"))
    if page is None:
        raise ClaimBroken("there is a picture of a page in bundles/orientation")
    (stage.folder / "pictures").mkdir()
    for turn in TURNS:
        page = cv2.rotate(page, cv2.ROTATE_90_CLOCKWISE)
        cv2.imwrite(str(stage.folder / "pictures" / f"turned-{turn}.jpg"), page)


def change_to_2(stage: Stage) -> None:
    """Version 2.0.0: one output more."""
    edit(
        stage,
        "bundle.toml",
        {
            'version = "1.0.0"': 'version = "2.0.0"',
            "sequence = 1": "sequence = 2",
            "[serving]": (
                "[[interface.outputs]]\n"
                'name = "probabilities"\n'
                'datatype = "FP32"\n'
                "shape = [4]\n"
                "\n"
                "[serving]"
            ),
            "[golden.tolerances.confidence]": (
                "[golden.tolerances.probabilities]\n"
                'kind = "close"\n'
                "rtol = 1e-3\n"
                "atol = 1e-4\n"
                "\n"
                "[golden.tolerances.confidence]"
            ),
        },
    )
    edit(
        stage,
        "code/pipeline.py",
        {
            '        return {"label": self.labels[best], "confidence": probabilities[best]}': (
                '        answer = {"label": self.labels[best], "confidence": probabilities[best]}\n'
                '        return {**answer, "probabilities": probabilities}'
            )
        },
    )


def edit(stage: Stage, name: str, changes: dict[str, str]) -> None:
    """Change a file of the recipe, and show the lines that are new."""
    path = stage.folder / "orientation" / name
    before = path.read_text(encoding="utf-8")
    after = before
    for old, new in changes.items():
        if after.count(old) != 1:
            raise ClaimBroken(f"{name} has the line {old!r} once")
        after = after.replace(old, new)
    path.write_text(after, encoding="utf-8")
    stage.page.typed(f"$EDITOR orientation/{name}")
    difference = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    stage.page.lines(line for line in difference if not re.match(r"---|\+\+\+|@@|\+$", line))


def harm(graph: Path) -> int:
    """Turn the signs of a stretch of weights, which lie in the file as little-endian float32."""
    content = bytearray(graph.read_bytes())
    start = next(_stretches(content, len(content) * 3 // 10))
    bits = np.frombuffer(content, "<u4", HARMED_WEIGHTS, start)
    bits ^= 0x80000000
    graph.write_bytes(content)
    return start


def _stretches(content: bytearray, near: int) -> Iterator[int]:
    """Where a long stretch of bytes looks like weights: numbers that are neither huge nor tiny."""
    for start in range(near, near + 4):
        numbers = np.abs(np.frombuffer(content, "<f4", HARMED_WEIGHTS, start))
        if (numbers < 10).all() and (numbers > 1e-12).mean() > 0.95:
            yield start
