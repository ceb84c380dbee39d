"""OCR, detection: the size the network is shown, and from its map to boxes in reading order."""

from __future__ import annotations

import itertools
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bundle_code import Untyped
from tests.unit.bundles_samples.recipes import FakeBundle, load

detect = load("ocr/code/detect.py")
detector = detect.Detector(FakeBundle("ocr").graph("det"))
Array = np.ndarray[Any, np.dtype[Any]]


def box(left: float, top: float, right: float, bottom: float) -> Array:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def map_with(rectangle: Untyped, probability: float, size: tuple[int, int] = (320, 640)) -> Array:
    """A map of probabilities, zero but for one rectangle."""
    drawn = np.zeros(size, np.float32)
    corners = cv2.boxPoints(rectangle).astype(np.int32)
    cv2.fillPoly(drawn, [corners], probability)
    return drawn


def network_size(height: int, width: int) -> tuple[int, int]:
    down, across = detect.network_size(height, width, detector.rows, detector.columns)
    return down, across


@given(height=st.integers(1, 20_000), width=st.integers(1, 20_000))
def test_the_network_is_shown_a_size_it_can_take(height: int, width: int) -> None:
    bars = 2 * detect.bar_height(height, width)
    for side in network_size(height + bars, width):
        assert side % 32 == 0
        assert 32 <= side <= 1984


def test_a_small_image_is_enlarged_and_keeps_its_shape() -> None:
    assert network_size(191, 384) == (736, 1472)


def test_a_large_image_is_reduced_to_the_longest_side_allowed() -> None:
    assert network_size(4000, 3000) == (1984, 1472)


def test_pixels_are_scaled_to_minus_one_to_one() -> None:
    image = np.zeros((736, 736, 3), np.uint8)
    image[368:] = 255
    x = detect.network_input(image, (736, 736))
    assert x.shape == (1, 3, 736, 736)
    assert (x.min(), x.max()) == (-1, 1)


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0])
def test_unclipping_moves_every_side_out_by_area_times_ratio_over_perimeter(angle: float) -> None:
    centre, (width, height), same = detect.unclip(((50.0, 50.0), (100.0, 20.0), angle))
    distance = 1.6 * (100 * 20) / (2 * (100 + 20))
    assert (centre, same) == ((50.0, 50.0), angle)
    assert (width, height) == pytest.approx((100 + 2 * distance, 20 + 2 * distance))


def test_corners_in_any_order_come_out_clockwise_from_the_top_left() -> None:
    corners = np.array([[0, 2], [10, 0], [11, 5], [1, 7]], np.float32)
    for order in itertools.permutations(range(4)):
        assert np.array_equal(detect.clockwise_from_top_left(corners[list(order)]), corners)


@pytest.mark.parametrize("angle", [0.0, 20.0, -20.0])
def test_a_marked_core_becomes_one_box_around_it(angle: float) -> None:
    core = ((320.0, 160.0), (200.0, 16.0), angle)
    (found,) = detect.boxes_in_map(map_with(core, 0.9))
    assert all(cv2.pointPolygonTest(found, point, measureDist=False) > 0 for point in corners(core))
    across, down = detect.sides(found)
    assert across == pytest.approx(200 + 2 * 11.9, abs=6)
    assert down == pytest.approx(16 + 2 * 11.9, abs=6)


def corners(rectangle: Untyped) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in cv2.boxPoints(rectangle)]


def test_a_faint_core_is_no_box() -> None:
    assert detect.boxes_in_map(map_with(((320.0, 160.0), (200.0, 16.0), 0.0), 0.4)) == []


def test_a_speck_is_no_box() -> None:
    speck = np.zeros((320, 640), np.float32)
    speck[100, 100] = 1
    assert detect.boxes_in_map(speck) == []


def test_boxes_come_back_in_pixels_of_the_image() -> None:
    def graph(inputs: dict[str, Array]) -> dict[str, Array]:
        _, _, height, width = inputs["x"].shape
        marked = map_with(((width / 2, height / 2), (width / 2, 40.0), 0.0), 0.9, (height, width))
        return {"map": marked[np.newaxis, np.newaxis]}

    (found,) = detector.find(np.zeros((368, 736, 3), np.uint8), graph)
    assert found.mean(axis=0) == pytest.approx([368, 184], abs=1)
    assert np.array_equal(found, np.round(found))


def test_a_very_flat_image_gets_bars_that_no_box_shows() -> None:
    def graph(inputs: dict[str, Array]) -> dict[str, Array]:
        _, _, height, width = inputs["x"].shape
        assert width / height < 8
        marked = map_with(((width / 2, height / 2), (width, 100.0), 0.0), 0.9, (height, width))
        return {"map": marked[np.newaxis, np.newaxis]}

    (found,) = detector.find(np.zeros((20, 400, 3), np.uint8), graph)
    assert found.min() >= 0
    assert found[:, 1].max() <= 19


def test_an_image_of_ordinary_shape_gets_no_bars() -> None:
    assert detect.bar_height(191, 384) == 0


def test_reading_order_is_down_the_lines_and_along_each() -> None:
    first, second = box(0, 10, 50, 20), box(60, 14, 90, 24)
    third, fourth = box(0, 40, 50, 50), box(70, 37, 90, 47)
    for shuffled in itertools.permutations([first, second, third, fourth]):
        ordered = detect.in_reading_order(list(shuffled))
        assert np.array_equal(ordered, [first, second, third, fourth])
