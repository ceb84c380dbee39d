"""Tensors like the last ones: packed and unpacked by either twin, or left to the long way."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from superbrain.transport.packing import packing_for, packing_of
from superbrain.wire.datatypes import NUMPY_DTYPES, TensorLayout
from tests.support.keeping import assert_keeps_nothing
from tests.support.twins import MISSING, twin

__all__ = ["twin"]
pytestmark = pytest.mark.usefixtures("twin")
X = np.arange(6, dtype=np.float32).reshape(2, 3)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=4)
NUMBERS = st.sampled_from(list(NUMPY_DTYPES.values())).flatmap(lambda d: hnp.arrays(d, SHAPES))
BIG_ENDIAN = X.astype(">f4")


class Own(np.ndarray[Any, Any]):
    """An array of a class of its own."""


def test_arrays_survive_both_ways_and_lie_on_the_memory_they_came_in() -> None:
    arrays: dict[str, Any] = {"x": X, "n": np.array(7, np.int64)}
    packing = packing_of(arrays)
    assert packing is not None
    tensors = packing.pack({"x": X + 1, "n": np.array(8, np.int64)})
    assert tensors is not None
    own = [memoryview(bytearray(tensor)) for tensor in tensors]
    back = packing.unpack(own)
    assert back is not None
    assert list(back) == ["x", "n"]
    np.testing.assert_array_equal(back["x"], X + 1)
    back["n"][()] = 9
    assert own[1].tobytes() == np.array(9, np.int64).tobytes()


@pytest.mark.parametrize(
    "other",
    [
        {"x": X.astype(np.float64)},
        {"x": X.astype(np.int32)},
        {"x": X.T},
        {"x": X.reshape(3, 2)},
        {"x": X.reshape(6)},
        {"x": X[:1]},
        {"x": np.zeros((2, 6), np.float32)[:, ::2]},
        {"x": BIG_ENDIAN},
        {"x": X.view(Own)},
        {"x": X.tolist()},
        {"x": X.tobytes()},
        {"x": None},
        {"y": X},
        {"x": X, "y": X},
        {7: X},
        {},
    ],
    ids=repr,
)
def test_what_is_not_alike_goes_the_long_way(other: Any) -> None:  # noqa: ANN401 - whatever comes
    packing = packing_of({"x": X})
    assert packing is not None
    assert packing.pack(other) is None


def test_another_order_of_names_goes_the_long_way() -> None:
    packing = packing_of({"a": X, "b": X})
    assert packing is not None
    assert packing.pack({"b": X, "a": X}) is None
    assert packing.pack(dict.fromkeys(["".join("a"), "b"], X)) is not None


@pytest.mark.parametrize("sizes", [[], [23], [25], [24, 0], [0]])
def test_as_many_bytes_as_do_not_fit_go_the_long_way(sizes: list[int]) -> None:
    packing = packing_of({"x": X})
    assert packing is not None
    assert packing.unpack([memoryview(bytearray(size)) for size in sizes]) is None


@pytest.mark.parametrize(
    "array",
    [
        np.array([b"a"], object),
        np.zeros((0, 3), np.float32),
        np.zeros(2, np.complex64),
        np.array(["text"]),
        np.zeros((1,) * 17, np.float32),
        BIG_ENDIAN,
    ],
    ids=repr,
)
def test_there_is_no_packing_for_text_for_nothing_and_for_what_no_peer_knows(array: Any) -> None:  # noqa: ANN401
    assert packing_of({"x": array}) is None


def test_there_is_none_for_shapes_that_no_array_has() -> None:
    assert packing_for([TensorLayout("x", "FP32", [1 << 40, 1 << 40])]) is None
    assert packing_for([TensorLayout("x", "BYTES", [1])]) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=4), st.booleans())
def test_every_number_survives(arrays: list[Any], fortran: bool) -> None:
    named = {str(n): array for n, array in enumerate(arrays)}
    packing = packing_of(named)
    assert packing is not None
    given = {name: np.asfortranarray(one) if fortran else one for name, one in named.items()}
    tensors = packing.pack(given)
    if tensors is None:
        assert fortran
        return
    assert [bytes(one) for one in tensors] == [array.tobytes() for array in arrays]
    back = packing.unpack(tensors)
    assert back is not None
    for name, array in named.items():
        assert back[name].dtype == array.dtype
        assert back[name].tobytes() == array.tobytes()


def test_packing_keeps_nothing() -> None:
    packing = packing_of({"x": X, "y": X})
    assert packing is not None

    def once() -> None:
        tensors = packing.pack({"x": X, "y": X})
        assert tensors is not None
        assert packing.unpack(tensors) is not None
        assert packing.pack({"x": X, "y": X.T}) is None
        assert packing.unpack(tensors[:1]) is None

    counted = [sys.getrefcount(one) for one in (None, X, X.dtype, np.ndarray)]
    assert_keeps_nothing(once)
    after = [sys.getrefcount(one) for one in (None, X, X.dtype, np.ndarray)]
    assert all(late - early < 100 for early, late in zip(counted, after, strict=True))


def test_a_broken_layout_is_refused() -> None:
    module = pytest.importorskip("superbrain.transport._loop", reason=MISSING)
    for layouts in ((1,), (("x", X.dtype, (2, 3), "f"),), (("x", X.dtype, ("a",), "f", 4),)):
        with pytest.raises(TypeError):
            module.Packing(np.ndarray, layouts)
    with pytest.raises(ValueError, match="fewer dimensions"):
        module.Packing(np.ndarray, (("x", X.dtype, (1,) * 17, "f", 4),))
