"""How a maker hands over what it made: questions with the framework's own answers.

FOLDER/asks/NUMBER/in/NAME.npy     what a caller sends, at sizes between the bounds
FOLDER/asks/NUMBER/out/NAME.npy    what the framework answers, by the graph's names
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def keep(folder: Path, number: int, given: Mapping[str, Any], answered: Mapping[str, Any]) -> None:
    """Keep one question and its answer."""
    for part, arrays in (("in", given), ("out", answered)):
        place = folder / "asks" / str(number) / part
        place.mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            np.save(place / f"{name}.npy", np.asarray(array), allow_pickle=False)
