"""The graph in other precisions, each held to the original framework's own answers.

A precision is worth its rung only when it is right, and how far it is off is known only against the
original: against the graph, the export's own error would be left out. So every variant answers the
same samples, its error is measured as the graph's is, and its tolerance is chosen and tried in the
same way. One that is further off than its limit is harmful: it is told with its figures and is not
in the bundle.

The converters are those of `superbrain bundle precision`. They run in a child, on a copy:
`python -I -m superbrain.convert.precision` reads one `Order` from standard input and writes one
reply to standard output.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from superbrain.convert import parity, reference, sources
from superbrain.convert.arrays import Array, read_array, write_array
from superbrain.convert.errors import ParityFailed
from superbrain.convert.in_a_child import ChildEnded, ask_child
from superbrain.convert.parity import OutputParity, Pair
from superbrain.domain.manifest import Graph, GraphTensor, Tolerance
from superbrain.engines.conversion import CONVERTERS, Made, convert, mend_of
from superbrain.wire.errors import SuperbrainError

#: The largest error, as a share of the values' size, that is still the same model.
LIMITS: Final[Mapping[str, float]] = {"fp16": 0.01, "int8": 0.1}
#: A tolerance is this often the largest share: rounding repeats itself, unlike the order of sums.
MARGIN: Final = 2.0
MOST_SAMPLES: Final = 64


class Variant(msgspec.Struct, frozen=True):
    """The graph in one precision: its file, or why it is left out; its figures either way.

    `made`: which converter wrote the file, and why it was not another.
    """

    precision: str
    within: float
    path: Path | None = None
    size_bytes: int = 0
    figures: list[OutputParity] = []
    reason: str = ""
    made: Made = Made()

    @property
    def rung(self) -> str:
        """The rung that it is measured on."""
        return f"onnxruntime:cpu-{self.precision}"

    @property
    def tolerances(self) -> dict[str, Tolerance]:
        """By output."""
        return {one.output: one.tolerance for one in self.figures}

    def left_out(self, reason: str) -> Variant:
        """The same, without its file."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        return msgspec.structs.replace(self, path=None, reason=reason)


class Asked(msgspec.Struct, frozen=True):
    """What variants are held to: the graph, samples' folders, and how pairs are read there.

    `choosing` and `holding` give the original's answers beside those in the folder that is named.
    """

    file: Path
    graph: Graph
    samples: Sequence[Path]
    choosing: Callable[[str], list[Pair]]
    holding: Callable[[str], list[Pair]]


def make_variant(
    precision: str,
    within: float,
    asked: Asked,
    calibration: Sequence[Mapping[str, Array]],
    scratch: Path,
    *,
    light: bool = False,
) -> Variant:
    """Make the graph in one precision and measure it; never raises because of what came out.

    Args:
        precision: one of `CONVERTERS`.
        within: the largest share that is still the same model.
        asked: what it is held to.
        calibration: inputs that int8 is calibrated with, and that AutoCast looks at.
        scratch: a folder to work in.
        light: fp16 without AutoCast, though it may be installed.
    """
    target = asked.file.with_name(f"{asked.file.stem}.{precision}{asked.file.suffix}")
    wanted = Variant(precision, within)
    try:
        made = _converted(precision, asked, calibration, scratch / precision, target, light=light)
        wanted = msgspec.structs.replace(wanted, made=made)
        reference.answer(target, asked.graph, asked.samples, into=precision)
    except SuperbrainError as error:
        target.unlink(missing_ok=True)
        return msgspec.structs.replace(wanted, reason=str(error))
    found = msgspec.structs.replace(wanted, path=target, size_bytes=target.stat().st_size)
    return _measured(found, asked)


def _measured(made: Variant, asked: Asked) -> Variant:
    choosing = asked.choosing(made.precision)
    figures = [
        parity.measure(one.name, at, choosing, made.within, margin=MARGIN, least=made.precision)
        for at, one in enumerate(asked.graph.outputs)
    ]
    made = msgspec.structs.replace(made, figures=figures)
    if wrong := next((one for one in figures if not one.agrees), None):
        return made.left_out(f"output {wrong.output!r}: {wrong.reason}")
    try:
        held = parity.hold(figures, asked.holding(made.precision))
    except ParityFailed as error:
        return made.left_out(error.message)
    return msgspec.structs.replace(made, figures=held)


def _converted(
    precision: str,
    asked: Asked,
    calibration: Sequence[Mapping[str, Array]],
    scratch: Path,
    target: Path,
    *,
    light: bool,
) -> Made:
    """Convert a copy of the graph in a child; some converters write where they read."""
    copy = sources.copy_source(asked.file, scratch / "graph")
    before = sources.digest_of(copy.parent)
    order = Order(precision, str(copy), str(scratch / target.name), asked.graph.inputs, light)
    for number, sample in enumerate(calibration[:MOST_SAMPLES]):
        folder = scratch / "samples" / str(number)
        for at, one in enumerate(asked.graph.inputs):
            write_array(folder / f"{at}.npy", sample[one.name])
        order.samples.append(str(folder))
    made = _carried_out(order)
    if sources.digest_of(copy.parent) != before:
        raise SuperbrainError(
            f"expected the converter to {precision} to leave its input as it was, found it changed",
            mend=mend_of(precision, light=light),
        )
    shutil.move(scratch / target.name, target)
    return made


class Order(msgspec.Struct):
    """Write the ONNX file `source` in another precision to `target`; `light`: without AutoCast."""

    precision: str
    source: str
    target: str
    inputs: list[GraphTensor]
    light: bool = False
    samples: list[str] = []


class _Reply(msgspec.Struct, frozen=True):
    made: Made = Made()
    error: str = ""
    mend: str = ""


def _carried_out(order: Order) -> Made:
    try:
        reply = ask_child("superbrain.convert.precision", order, _Reply)
    except ChildEnded as error:
        raise SuperbrainError(
            f"expected the graph in {order.precision}, found that the converter's process {error}",
            mend=mend_of(order.precision, light=order.light),
        ) from error
    if reply.error:
        raise SuperbrainError(reply.error, mend=reply.mend)
    return reply.made


# --- the child --------------------------------------------------------------------------------


def _read(sample: str, inputs: Sequence[GraphTensor]) -> dict[str, Any]:
    return {one.name: read_array(Path(sample) / f"{at}.npy") for at, one in enumerate(inputs)}


def main() -> None:
    """Be the child; what converters print goes to standard error."""
    answers = os.dup(1)
    os.dup2(2, 1)
    order = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Order)
    samples = [_read(sample, order.inputs) for sample in order.samples]
    try:
        source, target = Path(order.source), Path(order.target)
        reply = _Reply(convert(order.precision, source, target, samples, light=order.light))
    except SuperbrainError as error:
        reply = _Reply(error=error.message, mend=error.mend)
    os.write(answers, msgspec.msgpack.encode(reply))


def parse_precision(text: str) -> tuple[str, float]:
    """Read NAME or NAME=SHARE.

    Raises:
        ValueError: no converter makes it, or the share is none.

    >>> parse_precision("int8=0.2")
    ('int8', 0.2)
    """
    name, _, share = text.partition("=")
    if name not in CONVERTERS:
        raise ValueError(f"expected one of {', '.join(CONVERTERS)}, found {name!r}")
    try:
        within = float(share) if share else LIMITS[name]
    except ValueError:
        within = -1.0
    if not 0 < within <= 0.5:
        raise ValueError(f"expected {name}=SHARE with a share above 0, at most 0.5, found {text!r}")
    return name, within


if __name__ == "__main__":
    main()
