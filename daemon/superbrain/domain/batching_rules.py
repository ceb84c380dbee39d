"""The rules about batching: what it needs of graph, goldens and queue, so that rows can be shared.

Requests share a run by their first dimension. So there is one graph, and each of its tensors has
that dimension; golden cases are at least two, or a proof could not tell whether they mix.
"""

from __future__ import annotations

from superbrain.domain.errors import shown
from superbrain.domain.manifest import Batching, Graph, GraphTensor, Manifest, Range, Size, refuse

MAX_SIZE = 128
MAX_DELAY_MS = 1000
_LEAST_CASES = 2
_REASON = "MANIFEST_BATCHING"
_WHERE = "serving.batching"


def check_batching(manifest: Manifest) -> None:
    """Check `serving.batching` against the graph, the goldens and the queue.

    Raises:
        ManifestError: the first rule that is broken.
    """
    batching = manifest.serving.batching
    _check_bounds(batching)
    if batching.max_size == 1:
        return
    if len(manifest.graphs) != 1:
        refuse(
            _REASON,
            f"{_WHERE}: expected one graph to batch for, found {len(manifest.graphs)}",
            "Set max_size = 1: what a pipeline runs several graphs on, it batches itself",
        )
    ((name, graph),) = manifest.graphs.items()
    _check_graph(f"graphs.{name}", graph, batching.max_size)
    _check_surroundings(manifest, batching.max_size)


def _check_bounds(batching: Batching) -> None:
    for field, least, most in (("max_size", 1, MAX_SIZE), ("max_delay_ms", 0, MAX_DELAY_MS)):
        value = getattr(batching, field)
        if not least <= value <= most:
            refuse(_REASON, f"{_WHERE}.{field}: expected {least} to {most}, found {shown(value)}")
    if batching.max_size == 1 and batching.max_delay_ms:
        refuse(
            _REASON,
            f"{_WHERE}: expected max_delay_ms only with a max_size above 1, found "
            f"{batching.max_delay_ms} ms to wait for nobody",
            "Raise max_size, or leave max_delay_ms out",
        )


def _check_graph(where: str, graph: Graph, max_size: int) -> None:
    rows = _first_size(graph.inputs[0])
    for tensor in (*graph.inputs, *graph.outputs):
        if not isinstance(rows, str) or _first_size(tensor) != rows:
            refuse(
                _REASON,
                f"{where}: {tensor.name}: expected the same dynamic first dimension in every input "
                f"and output, found shape {shown(tensor.shape)}",
                f"Export the graph with a dynamic batch dimension, or set {_WHERE}.max_size = 1",
            )
    bounds = graph.dynamic.get(str(rows), Range(0, 0, 0))
    if not bounds.min <= 1 or bounds.max < max_size:
        refuse(
            _REASON,
            f"{where}.dynamic: expected {rows!r} to range from 1 to max_size {max_size} or more, "
            f"found {bounds.min} to {bounds.max}",
            f"Widen the range, or set {_WHERE}.max_size = {max(1, bounds.max)}",
        )


def _first_size(tensor: GraphTensor) -> Size | None:
    return tensor.shape[0] if tensor.shape else None


def _check_surroundings(manifest: Manifest, max_size: int) -> None:
    if manifest.serving.queue_size < max_size:
        refuse(
            _REASON,
            f"serving.queue_size: expected max_size {max_size} or more, "
            f"found {manifest.serving.queue_size}",
        )
    cases = len(manifest.golden.cases)
    if cases < _LEAST_CASES:
        refuse(
            _REASON,
            f"golden: expected two cases or more, to prove that batch mates do not change each "
            f"other's answers, found {cases}",
            f"Record another case, or set {_WHERE}.max_size = 1",
        )
