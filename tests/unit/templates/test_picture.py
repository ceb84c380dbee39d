"""Pictures: the size that a graph is shown, the way there and back, and what is no picture."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.bundle_code import TEMPLATES, Untyped, load_module
from tests.support.graphs import tensor
from tests.unit.templates.fakes import graph_of

picture: Untyped = load_module(TEMPLATES / "shared/picture.py")
Array = np.ndarray[Any, np.dtype[Any]]
OPEN = graph_of([tensor("x", "FP32", 1, 3, "H", "W")], [], H=(32, 64, 640), W=(32, 64, 1000))
FIXED = graph_of([tensor("x", "FP32", 1, 3, 64, 96)], [])
sides = st.integers(1, 5000)


def taking(graph: Untyped = OPEN, layout: str = "NCHW", **options: object) -> Untyped:
    return picture.PictureInput(graph, "x", layout, **options)


@settings(deadline=None)  # a loaded machine decides how long it takes
@given(height=sides, width=sides, side=st.one_of(st.none(), st.integers(32, 900)))
def test_an_open_frame_is_a_multiple_within_the_bounds_with_room_for_the_picture(
    height: int, width: int, side: int | None
) -> None:
    rows, columns, scale = taking().frame(height, width, side=side, multiple=32)
    assert (rows % 32, columns % 32) == (0, 0)
    assert 32 <= rows <= 640
    assert 32 <= columns <= 992  # the largest multiple that the bounds hold
    assert picture.scaled(height, scale) <= rows
    assert picture.scaled(width, scale) <= columns


def test_a_picture_keeps_its_size_where_the_bounds_allow_it() -> None:
    assert taking().frame(100, 200, multiple=32) == (128, 224, 1.0)


def test_a_fixed_frame_is_filled_as_far_as_the_shape_allows() -> None:
    assert taking(FIXED).frame(32, 32, side=640, multiple=32) == (64, 96, 2.0)


@settings(deadline=None)  # a loaded machine decides how long it takes
@given(height=st.integers(1, 400), width=st.integers(1, 400), centred=st.booleans())
def test_boxes_come_back_to_where_they_were(height: int, width: int, centred: bool) -> None:
    frame = taking(FIXED).frame(height, width)
    framed, placed = picture.letterbox(
        np.zeros((height, width, 3), np.uint8), *frame, centred=centred
    )
    assert framed.shape == (64, 96, 3)
    x, y = np.array([0, width / 3]), np.array([0, height / 3])
    there = np.array([[*(x * placed.across + placed.left), *(y * placed.down + placed.top)]])[
        :, [0, 2, 1, 3]
    ]
    (back,) = picture.boxes_on_picture(there, placed, height, width)
    assert back == pytest.approx([0, 0, width / 3, height / 3], abs=1e-3)


def test_a_box_beyond_the_picture_ends_at_its_edge() -> None:
    _, placed = picture.letterbox(np.zeros((64, 64, 3), np.uint8), 64, 96, 1.0)
    (box,) = picture.boxes_on_picture(np.array([[0, -5, 96, 70]]), placed, 64, 64)
    assert box.tolist() == [0, 0, 64, 64]


def test_bars_have_the_colour_they_are_given() -> None:
    framed, _ = picture.letterbox(np.full((64, 64, 3), 9, np.uint8), 64, 96, 1.0, 114)
    assert (framed[:, :16] == 114).all()
    assert (framed[:, 16:80] == 9).all()
    assert (framed[:, 80:] == 114).all()


@pytest.mark.parametrize(("height", "width"), [(300, 400), (40, 90), (8, 8)])
def test_a_crop_is_the_middle_of_the_scaled_picture(height: int, width: int) -> None:
    columns = np.linspace(0, 250, width).astype(np.uint8)
    image = np.ascontiguousarray(np.broadcast_to(columns[:, None], (height, width, 3)))
    crop = picture.centre_crop(image, 256, 224, 224)
    assert crop.shape == (224, 224, 3)
    assert abs(crop.mean() - 125) < 4


def test_a_crop_larger_than_the_short_side_enlarges_the_picture_further() -> None:
    assert picture.centre_crop(np.zeros((10, 20, 3), np.uint8), 32, 64, 64).shape == (64, 64, 3)


def test_a_ribbon_is_refused_before_it_is_enlarged() -> None:
    with pytest.raises(ValueError, match="at most 20 times, found 2100x100"):
        picture.centre_crop(np.zeros((100, 2100, 3), np.uint8), 256, 224, 224)


def test_pixels_are_scaled_and_normalised_in_the_order_of_the_channels() -> None:
    given_in = taking(FIXED, mean=(0.5, 0, 0), std=(1, 2, 1))
    x = given_in.tensor(np.full((64, 96, 3), (255, 255, 0), np.uint8))
    assert x.shape == (1, 3, 64, 96)
    assert x.dtype == np.float32
    assert x.flags["C_CONTIGUOUS"]
    assert x[0, :, 0, 0].tolist() == [0.5, 0.5, 0]


def test_channels_go_last_and_backwards_where_the_graph_wants_it() -> None:
    graph = graph_of([tensor("x", "FP16", 1, 4, 5, 3)], [])
    x = taking(graph, "NHWC", colour="BGR", scale=1).tensor(np.full((4, 5, 3), (7, 8, 9), np.uint8))
    assert (x.shape, x.dtype) == ((1, 4, 5, 3), np.float16)
    assert x[0, 0, 0].tolist() == [9, 8, 7]


def test_a_graph_of_bytes_gets_the_pixels_as_they_are() -> None:
    graph = graph_of([tensor("x", "UINT8", 1, 4, 5, 3)], [])
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    assert np.array_equal(taking(graph, "NHWC").tensor(pixels)[0], pixels)


def test_a_graph_of_one_channel_gets_grey() -> None:
    graph = graph_of([tensor("x", "FP32", 1, 1, 4, 5)], [])
    x = taking(graph, scale=1).tensor(np.full((4, 5, 3), 80, np.uint8))
    assert (x.shape, x.min(), x.max()) == ((1, 1, 4, 5), 80, 80)


def test_a_mean_of_another_number_of_channels_is_refused_when_the_bundle_loads() -> None:
    with pytest.raises(ValueError, match="MEAN: expected one number or 3, found 2"):
        taking(FIXED, mean=(0.1, 0.2))


def test_a_name_that_the_graph_does_not_have_is_refused_with_those_it_has() -> None:
    with pytest.raises(ValueError, match="expected one of the graph's tensors, x; found 'images'"):
        picture.PictureInput(FIXED, "images", "NCHW")


def test_a_file_and_its_pixels_are_the_same_picture() -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    file = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()
    assert np.array_equal(picture.decode(file), pixels)
    assert np.array_equal(picture.decode(pixels), pixels)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (b"", "0 bytes that do not decode"),
        (b"GIF89a?", "7 bytes that do not decode"),
        (np.zeros((4, 4), np.uint8), r"uint8 \[4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\]"),
        (np.zeros((4, 4, 3), np.float32), r"float32 \[4, 4, 3\]"),
    ],
)
def test_what_is_no_picture_is_refused_with_what_it_is(image: object, found: str) -> None:
    with pytest.raises(ValueError, match=f"image: expected .*, found {found}"):
        picture.decode(image)


@pytest.mark.parametrize("how", ["crop", "letterbox", "stretch"])
def test_one_size_is_the_fixed_one_or_the_usual_one(how: str) -> None:
    image = np.zeros((70, 50, 3), np.uint8)
    assert picture.fitted(image, taking(FIXED), how, short=70, fill=0).shape == (64, 96, 3)
    assert picture.fitted(image, taking(OPEN), how, short=70, fill=0).shape == (64, 64, 3)
