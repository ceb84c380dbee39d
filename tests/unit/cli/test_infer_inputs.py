"""`--input NAME=VALUE`, read by the model's interface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from superbrain.cli.infer_inputs import Given, parse_input, read_inputs
from superbrain.wire.errors import InvalidArgument
from superbrain.wire.messages import InterfaceTensor, ModelMetadata


def interface(**datatypes: str) -> ModelMetadata:
    inputs = [InterfaceTensor(name, datatype, []) for name, datatype in datatypes.items()]
    return ModelMetadata("m", ["1"], "p", inputs, [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image=page.jpg", Given("image", "page.jpg", is_text=False)),
        ("text:str=a=b", Given("text", "a=b", is_text=True)),
        ("x=", Given("x", "", is_text=False)),
    ],
)
def test_an_input_is_taken_apart_at_the_first_equals_sign(text: str, expected: Given) -> None:
    assert parse_input(text) == expected


@pytest.mark.parametrize("text", ["image", "=page.jpg", ":str=x"])
def test_anything_else_is_a_usage_error(text: str) -> None:
    with pytest.raises(ValueError, match="expected NAME=VALUE"):
        parse_input(text)


def test_a_bytes_input_is_the_contents_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_bytes(b"\xff\xd8")
    given = [parse_input(f"image={tmp_path}/page.jpg")]
    assert read_inputs(given, interface(image="BYTES")) == {"image": b"\xff\xd8"}


def test_text_is_sent_as_it_is_typed() -> None:
    assert read_inputs([parse_input("t:str=hello")], interface(t="BYTES")) == {"t": "hello"}


@pytest.mark.parametrize(("text", "value"), [("0.5", 0.5), ("[1, 2]", [1, 2]), ("true", True)])
def test_numbers_are_json(text: str, value: object) -> None:
    assert read_inputs([parse_input(f"x={text}")], interface(x="FP32")) == {"x": value}


def test_arrays_come_from_npy_files(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(3, dtype="f4"))
    read = read_inputs([parse_input(f"x={tmp_path}/x.npy")], interface(x="FP32"))
    assert read["x"].dtype == np.float32


def test_a_pickle_in_a_npy_file_is_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(InvalidArgument, match=r"expected a \.npy file of numbers"):
        read_inputs([parse_input(f"x={tmp_path}/x.npy")], interface(x="FP32"))


@pytest.mark.parametrize(
    ("inputs", "message", "mend"),
    [
        (["imag=x"], "it has: image, x", "Did you mean 'image'?"),
        (["x=1"], r"expected input 'image' \(BYTES\[\]\), found none", "Add --input image=VALUE"),
        (["x=1", "x=2"], "expected input 'x' once", ""),
        (["image=/nowhere"], "'/nowhere': No such file", "For text write --input image:str=TEXT"),
        (["x=/nowhere.npy"], "expected a .npy file, found '/nowhere.npy'", ""),
        (["x=page"], r"expected FP32\[\] as a \.npy file, a number", ""),
        (["x:str=1"], r"expected FP32\[\], found text", "Write --input x=NUMBER or =FILE.npy"),
    ],
)
def test_what_cannot_be_read_is_said_with_a_way_out(
    inputs: list[str], message: str, mend: str
) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        read_inputs([parse_input(each) for each in inputs], interface(image="BYTES", x="FP32"))
    assert caught.value.mend == mend
