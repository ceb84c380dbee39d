"""What sizes a graph's outputs have: seen in its answers, since exporters often declare them wrong.

An axis that was the same in every answer is fixed; one that always was as large as a dynamic size
bears its name; any other gets a name of its own, after its output and axis.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from superbrain.convert.parity import Pair
from superbrain.domain.manifest import GraphTensor, Range
from superbrain.wire.datatypes import datatype_of

_MOST = 65_536


def output_tensors(names: Sequence[str], pairs: Sequence[Pair]) -> list[GraphTensor]:
    """Describe every output from the graph's answers."""
    return [_tensor(name, at, pairs) for at, name in enumerate(names)]


def with_outputs(
    dynamic: Mapping[str, Range], outputs: Sequence[GraphTensor], pairs: Sequence[Pair]
) -> dict[str, Range]:
    """Add bounds for the sizes that only outputs have."""
    found = dict(dynamic)
    for at, one in enumerate(outputs):
        for axis, size in enumerate(one.shape):
            if isinstance(size, str) and size not in found:
                seen = [pair.graph[at].shape[axis] for pair in pairs]
                found[size] = Range(0, max(seen), max(_MOST, 4 * max(seen)))
    return found


def _tensor(name: str, at: int, pairs: Sequence[Pair]) -> GraphTensor:
    first = pairs[0].graph[at]
    shape = [_size(name, at, axis, pairs) for axis in range(first.ndim)]
    return GraphTensor(name, datatype_of(first), shape)


def _size(name: str, at: int, axis: int, pairs: Sequence[Pair]) -> int | str:
    seen = [int(pair.graph[at].shape[axis]) for pair in pairs]
    for size in pairs[0].sizes:
        wanted = [pair.sizes[size] for pair in pairs]
        if seen == wanted and len(set(wanted)) > 1:
            return size
    if len(set(seen)) == 1:
        return seen[0]
    return f"{re.sub(r'[^A-Za-z0-9]+', '_', name).strip('_') or 'output'}_{axis}"
