"""The templates by name: what each is for, which graphs it takes, and how it is fitted to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from superbrain.cli.template.pictures import (
    fit_classification,
    fit_detection,
    fit_segmentation,
)
from superbrain.cli.template.reading import fit_ocr
from superbrain.cli.template.sound import fit_audio
from superbrain.cli.template.table import fit_tabular
from superbrain.cli.template.vectors import fit_embedding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from superbrain.cli.template.fitting import Fitted, GraphFile


class Template(NamedTuple):
    """One template; `graphs` are the names it wants, empty for one graph of any name."""

    summary: str
    fit: Callable[[Mapping[str, GraphFile]], Fitted]
    graphs: tuple[str, ...] = ()
    optional_graphs: tuple[str, ...] = ()


TEMPLATES: Final[dict[str, Template]] = {
    "classification": Template("a picture in, its likeliest labels out", fit_classification),
    "detection": Template("a picture in, boxes with scores and labels out", fit_detection),
    "segmentation": Template("a picture in, the class of every pixel out", fit_segmentation),
    "ocr": Template(
        "a picture in, lines of text out (graphs det and rec, and cls if there is one)",
        fit_ocr,
        ("det", "rec"),
        ("cls",),
    ),
    "embedding": Template("a picture or token ids in, vectors out", fit_embedding),
    "audio": Template("sound in, an answer for every window out; streams", fit_audio),
    "tabular": Template("named columns in, labels or values out", fit_tabular),
}
