"""What is sent: typed, made up, or the golden cases of a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from superbrain.cli.infer_inputs import parse_input
from superbrain.cli.load.payload import golden, made_up, size_bytes, typed
from superbrain.wire.errors import InvalidArgument
from superbrain.wire.messages import InterfaceTensor, ModelMetadata
from tests.support.bundles import build_bundle, make_bundle_folder, sign_key


def interface(*inputs: InterfaceTensor) -> ModelMetadata:
    return ModelMetadata("adder", ["1.0.0"], "superbrain", list(inputs), [])


X = InterfaceTensor("x", "FP32", [-1, 4])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle_folder(tmp_path)


def test_a_typed_request_is_the_only_one() -> None:
    (request,) = typed([parse_input("x=[[1,2,3,4]]")], interface(X))
    np.testing.assert_array_equal(request["x"], np.array([[1, 2, 3, 4]], np.float32))


def test_golden_cases_come_from_a_folder(folder: Path) -> None:
    requests = golden(folder, interface(X))
    assert [request["x"].shape for request in requests] == [(1, 4), (3, 4)]
    assert size_bytes(requests) == 48


def test_golden_cases_come_from_a_bundle_as_from_its_folder(folder: Path, tmp_path: Path) -> None:
    bundle = build_bundle(folder, sign_key(tmp_path / "keys")).path
    for packed, laid_out in zip(
        golden(bundle, interface(X)), golden(folder, interface(X)), strict=True
    ):
        np.testing.assert_array_equal(packed["x"], laid_out["x"])


def test_a_file_that_is_no_bundle_is_said(tmp_path: Path) -> None:
    (tmp_path / "no.sbb").write_text("hello")
    with pytest.raises(InvalidArgument, match="expected an author's folder or a bundle file"):
        golden(tmp_path / "no.sbb", interface(X))
    with pytest.raises(InvalidArgument, match="No such file"):
        golden(tmp_path / "gone.sbb", interface(X))


def test_a_folder_without_cases_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="found none"):
        golden(tmp_path, interface(X))


def test_cases_of_another_interface_are_said(folder: Path) -> None:
    with pytest.raises(InvalidArgument, match="expected an input among z"):
        golden(folder, interface(InterfaceTensor("z", "FP32", [-1, 4])))
    both = interface(X, InterfaceTensor("z", "FP32", [1]))
    with pytest.raises(InvalidArgument, match="expected input 'z' in every golden case"):
        golden(folder, both)


def test_numbers_are_made_up_in_the_declared_datatype() -> None:
    inputs = [X, InterfaceTensor("tokens", "INT64", [1, -1]), InterfaceTensor("on", "BOOL", [])]
    (request,) = made_up(interface(*inputs), {"tokens": [1, 7]})
    assert [(array.dtype.name, array.shape) for array in request.values()] == [
        ("float32", (1, 4)),
        ("int64", (1, 7)),
        ("bool", ()),
    ]
    assert set(np.unique(request["tokens"])) <= {0, 1}


def test_bytes_cannot_be_made_up() -> None:
    with pytest.raises(InvalidArgument, match="cannot be made up") as caught:
        made_up(interface(InterfaceTensor("image", "BYTES", [])), {})
    assert "--input image=FILE" in caught.value.mend


@pytest.mark.parametrize("shape", [[4], [3, 5], [1, 2, 4]])
def test_a_shape_that_does_not_fit_is_said(shape: list[int]) -> None:
    with pytest.raises(InvalidArgument, match="expected shape"):
        made_up(interface(X), {"x": shape})
    with pytest.raises(InvalidArgument):
        made_up(interface(X), {"unknown": shape})
