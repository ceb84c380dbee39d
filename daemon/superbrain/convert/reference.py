"""What hosts would answer: the graph, as an engine of superbrain, in a child.

The child is `python -I -m superbrain.convert.reference`: it reads one `Order` from standard input
and writes one reply to standard output. Nothing that a person types loads a runtime into itself. A
runtime that is not installed here is taken from the framework's environment (`packages`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from superbrain.convert.arrays import Array, read_array, write_array
from superbrain.convert.errors import ConvertError
from superbrain.convert.in_a_child import ChildEnded, ask_child
from superbrain.domain.manifest import Graph, GraphTensor, Range
from superbrain.wire.errors import SuperbrainError

RUNG = "onnxruntime:cpu"


class Order(msgspec.Struct, frozen=True):
    """Look at the file; when there are `samples`, answer them into the folder `into` of each.

    `rung`: what it is answered on; `packages`: a further place of packages, after all others.
    """

    path: str
    samples: list[str] = []
    into: str = "graph"
    inputs: list[GraphTensor] = []
    outputs: list[GraphTensor] = []
    dynamic: dict[str, Range] = {}
    rung: str = RUNG
    packages: str = ""


class Facts(msgspec.Struct, frozen=True):
    """What the file declares; an open size is null or a name."""

    inputs: list[tuple[str, str, list[int | str | None]]]
    outputs: list[tuple[str, str, list[int | str | None]]]
    runtime: str = ""


class _Reply(msgspec.Struct, frozen=True):
    facts: Facts | None = None
    error: str = ""
    mend: str = ""


def look(path: Path) -> Facts:
    """Open an ONNX file and say what it declares.

    Raises:
        ConvertError: ONNX Runtime does not load it.
    """
    return _carried_out(Order(str(path)))


def answer(
    path: Path,
    graph: Graph,
    samples: Sequence[Path],
    into: str = "graph",
    *,
    rung: str = RUNG,
    packages: str = "",
) -> Facts:
    """Have the graph answer samples; see `Order`.

    Raises:
        ConvertError: it does not load, or fails on a sample.
    """
    order = Order(
        str(path),
        list(map(str, samples)),
        into,
        graph.inputs,
        graph.outputs,
        graph.dynamic,
        rung,
        packages,
    )
    return _carried_out(order)


def _carried_out(order: Order) -> Facts:
    try:
        reply = ask_child("superbrain.convert.reference", order, _Reply)
    except ChildEnded as error:
        raise ConvertError(
            f"{Path(order.path).name}: expected it to be answered, found that the process {error}",
            code="REFERENCE_DIED",
        ) from error
    if reply.facts is None:
        raise ConvertError(reply.error, code="REFERENCE_FAILED", mend=reply.mend)
    return reply.facts


# --- the child --------------------------------------------------------------------------------


def carry_out(order: Order) -> Facts:
    """Do it in this very process."""
    from superbrain.engines.registry import runtime_for

    if not order.samples:
        return _looked(Path(order.path))
    graph = Graph(order.path, order.inputs, order.outputs, order.dynamic)
    engine = runtime_for(order.rung).load(order.rung, Path(order.path), graph)
    for sample in map(Path, order.samples):
        outputs = engine.run(_read(sample, order.inputs))
        target = sample / order.into
        target.mkdir(exist_ok=True)
        for at, tensor in enumerate(order.outputs):
            write_array(target / f"{at}.npy", outputs[tensor.name])
    return Facts([], [], engine.runtime)


def _looked(path: Path) -> Facts:
    from superbrain.engines.onnxruntime import look_at

    found = look_at(path)
    return Facts(
        [(one.name, one.datatype, list(one.shape)) for one in found.inputs],
        [(one.name, one.datatype, list(one.shape)) for one in found.outputs],
    )


def _read(sample: Path, inputs: Sequence[GraphTensor]) -> dict[str, Array]:
    return {one.name: read_array(sample / f"in/{at}.npy") for at, one in enumerate(inputs)}


def main() -> None:
    """Be the child."""
    order = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Order)
    if order.packages:
        sys.path.append(order.packages)
    try:
        reply = _Reply(carry_out(order))
    except SuperbrainError as error:
        reply = _Reply(error=error.message, mend=error.mend)
    sys.stdout.buffer.write(msgspec.msgpack.encode(reply))


if __name__ == "__main__":
    main()
