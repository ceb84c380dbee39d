"""The adder that most stories are about: version N.0.0 adds N.

>>> go_live(appliance, 1)
>>> answer(appliance)
1.0
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from tests.support.appliance import Appliance
from tests.support.bundles import make_bundle

#: Where all models may hold so much, a worker of the adder beside which another, `LARGE`, has no
#: room holds enough for it to fit in its place.
MODELS_MIB = 256
LARGE: Final[dict[str, Any]] = {"targets": "memory_mb = 250", "serving": "brief_outage = true"}


def release(appliance: Appliance, number: int, **options: Any) -> Path:  # noqa: ANN401 - passed on
    """Build version NUMBER.0.0 of the adder, which adds NUMBER, unless told otherwise."""
    made: dict[str, Any] = {
        "version": f"{number}.0.0",
        "sequence": number,
        "constant": float(number),
    }
    return make_bundle(appliance.work, appliance.author, **(made | options)).path


def go_live(appliance: Appliance, number: int, **options: Any) -> None:  # noqa: ANN401
    """Build a version, drop it, and wait until it serves."""
    appliance.drop(release(appliance, number, **options))
    appliance.wait_live(options.get("name", "adder"), f"{number}.0.0")


def answer(appliance: Appliance) -> float:
    """Ask what is added to zero."""
    with appliance.client() as client:
        return float(client.infer("adder", {"x": np.zeros((1, 4), np.float32)})["y"][0, 0])
