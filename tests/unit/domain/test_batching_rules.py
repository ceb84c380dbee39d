"""What batching needs of graph, goldens and queue."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from superbrain.domain.batching_rules import check_batching
from superbrain.domain.errors import ManifestError
from superbrain.domain.manifest import Batching, GoldenCase, Graph, Manifest, Range, Serving
from tests.support.graphs import ADD, DOUBLE, MATMUL, declare, tensor
from tests.support.manifests import valid_manifest as valid

CASES = [GoldenCase(name, {}, {}) for name in ("one", "two")]


def batching(graph: Graph, **changes: Any) -> Manifest:  # noqa: ANN401
    """A manifest that batches up to 4, around `graph`."""
    serving = Serving(batching=changes.pop("batching", Batching(4)), **changes.pop("serving", {}))
    made = msgspec.structs.replace(valid(), graphs={"main": graph}, serving=serving)
    golden = msgspec.structs.replace(made.golden, cases=changes.pop("cases", CASES))
    return msgspec.structs.replace(made, golden=golden, **changes)


def refused(made: Manifest) -> str:
    with pytest.raises(ManifestError) as caught:
        check_batching(made)
    assert caught.value.reason == "MANIFEST_BATCHING"
    return caught.value.message


def test_a_graph_with_a_dynamic_first_dimension_may_batch() -> None:
    check_batching(batching(declare(ADD)))


def test_without_batching_any_graph_will_do() -> None:
    check_batching(batching(declare(MATMUL), batching=Batching()))


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        (Batching(0), "max_size: expected 1 to 128, found 0"),
        (Batching(129), "max_size: expected 1 to 128"),
        (Batching(4, -1), "max_delay_ms: expected 0 to 1000"),
        (Batching(1, 5), "max_delay_ms only with a max_size above 1"),
    ],
)
def test_sizes_and_delays_have_bounds(wrong: Batching, part: str) -> None:
    assert part in refused(batching(declare(ADD), batching=wrong))


def test_a_fixed_first_dimension_is_refused_by_name() -> None:
    assert "left: expected the same dynamic first dimension" in refused(batching(declare(MATMUL)))


def test_a_scalar_beside_the_rows_is_refused_by_name() -> None:
    graph = declare(ADD)
    graph = msgspec.structs.replace(graph, inputs=[*graph.inputs, tensor("rate", "INT64")])
    assert "rate: expected the same dynamic first dimension" in refused(batching(graph))


def test_another_dynamic_dimension_first_is_refused() -> None:
    graph = msgspec.structs.replace(declare(ADD), outputs=[tensor("sum", "FP32", "M", 3)])
    assert "sum: expected the same dynamic first" in refused(batching(graph))


@pytest.mark.parametrize("bounds", [Range(2, 3, 8), Range(1, 1, 3)])
def test_the_range_must_hold_one_and_a_full_batch(bounds: Range) -> None:
    graph = msgspec.structs.replace(declare(ADD), dynamic={"N": bounds})
    assert "to range from 1 to max_size 4" in refused(batching(graph))


def test_several_graphs_are_refused() -> None:
    two = {"a": declare(ADD), "b": declare(DOUBLE)}
    assert "expected one graph" in refused(batching(declare(ADD), graphs=two))


def test_a_queue_must_hold_a_batch() -> None:
    assert "queue_size" in refused(batching(declare(ADD), serving={"queue_size": 3}))


def test_one_golden_case_proves_nothing_of_batches() -> None:
    assert "expected two cases or more" in refused(batching(declare(ADD), cases=CASES[:1]))
