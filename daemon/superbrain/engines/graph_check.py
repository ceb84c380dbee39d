"""What every runtime checks the same way: a graph file against the manifest, inputs against both.

A fixed size in the file must be the same fixed size in the manifest. A size the file leaves open
may be named or fixed in the manifest. Some exporters leave a whole shape out; then the manifest's
is taken, and the golden cases show whether it was right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from superbrain.domain.tensor_fit import spell
from superbrain.engines.port import ExecutionFailed, GraphMismatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superbrain.domain.manifest import Graph, GraphTensor


class InputMismatch(ExecutionFailed):
    """The inputs are not what the graph takes; the engine was not asked."""


class FileTensor(NamedTuple):
    """One input or output as the graph file declares it: an open size is None or a name."""

    name: str
    datatype: str
    shape: tuple[int | str | None, ...]


def check_graph(
    where: str, graph: Graph, inputs: Sequence[FileTensor], outputs: Sequence[FileTensor]
) -> None:
    """Compare a graph file with its declaration in the manifest.

    Args:
        where: the file, for messages.
        graph: what the manifest declares.
        inputs: what the file takes.
        outputs: what the file gives.

    Raises:
        GraphMismatch: a name, datatype, rank or fixed size differs.
    """
    _check_side(where, "input", graph.inputs, inputs)
    _check_side(where, "output", graph.outputs, outputs)


def _check_side(
    where: str, side: str, declared: Sequence[GraphTensor], found: Sequence[FileTensor]
) -> None:
    in_file = {tensor.name: tensor for tensor in found}
    in_manifest = [tensor.name for tensor in declared]
    if sorted(in_manifest) != sorted(in_file):
        raise GraphMismatch(
            f"{where}: expected the {side}s of the manifest, {_list(in_manifest)}, "
            f"found {_list(in_file)} in the file",
            mend=f"Declare exactly the file's {side}s in the manifest",
        )
    for tensor in declared:
        _check_tensor(where, side, tensor, in_file[tensor.name])


def _check_tensor(where: str, side: str, declared: GraphTensor, found: FileTensor) -> None:
    if declared.datatype == found.datatype and _shapes_agree(declared.shape, found.shape):
        return
    open_sizes = ("?" if size is None else size for size in found.shape)
    raise GraphMismatch(
        f"{where}: {side} {declared.name!r}: expected "
        f"{spell(declared.datatype, declared.shape)} as the manifest says, "
        f"found {spell(found.datatype, open_sizes)} in the file",
        mend="Write the file's datatype and sizes into the manifest; name only what it leaves open",
    )


def _shapes_agree(declared: Sequence[int | str], found: Sequence[int | str | None]) -> bool:
    if not found:  # a scalar, or a file that declares no shape: they look the same
        return True
    if len(declared) != len(found):
        return False
    return all(
        size == expected or not isinstance(size, int) or size < 0
        for expected, size in zip(declared, found, strict=True)
    )


def _list(names: Sequence[str] | dict[str, FileTensor]) -> str:
    return ", ".join(map(repr, names)) or "none"
