"""Orientation: what the network is shown, and what is made of its answer."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from tests.support.bundle_code import Untyped
from tests.unit.bundles_samples.recipes import FakeBundle, load

pipeline = load("orientation/code/pipeline.py")
Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture
def sample() -> Untyped:
    return pipeline.Pipeline(
        FakeBundle("orientation", {"orientation": {"character": "0\n90\n180\n270"}})
    )


def png(image: Array) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.mark.parametrize("size", [(1, 1), (60, 300), (224, 224), (1000, 801)])
def test_an_image_of_any_size_becomes_one_square(sample: Untyped, size: tuple[int, int]) -> None:
    (x,) = sample.preprocess({"image": png(np.zeros((*size, 3), np.uint8))}).values()
    assert x.shape == (1, 3, 224, 224)
    assert x.dtype == np.float32
    assert x.flags["C_CONTIGUOUS"]


def test_only_the_middle_of_a_wide_image_is_shown(sample: Untyped) -> None:
    image = np.zeros((100, 400, 3), np.uint8)
    image[:, 140:260] = 255
    x = sample.preprocess({"image": png(image)})["x"]
    assert x.min() > 2


def test_channels_are_red_green_blue(sample: Untyped) -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[:, :, 2] = 255  # cv2 writes blue first
    first, second, third = sample.preprocess({"image": png(red)})["x"][0].mean(axis=(1, 2))
    assert first > 2
    assert max(second, third) < 0


def test_the_mean_colour_becomes_zero() -> None:
    mean = np.full((2, 2, 3), pipeline.IMAGENET_MEAN * 255)
    assert np.abs(pipeline.normalise(mean)).max() < 1e-6


def test_the_likeliest_label_is_given_with_its_probability(sample: Untyped) -> None:
    outputs = {"fetch_name_0": np.array([[0.1, 0.2, 0.6, 0.1]], np.float32)}
    assert sample.postprocess(outputs, {}) == {"label": "180", "confidence": np.float32(0.6)}


@pytest.mark.parametrize("file", [b"", b"GIF89a?"])
def test_what_is_no_image_is_refused_with_its_size(sample: Untyped, file: bytes) -> None:
    with pytest.raises(ValueError, match=f"JPEG or PNG file, found {len(file)} bytes"):
        sample.preprocess({"image": file})


def test_a_ribbon_is_refused_before_it_is_enlarged(sample: Untyped) -> None:
    with pytest.raises(ValueError, match="at most 20 times, found 2100x100"):
        sample.preprocess({"image": png(np.zeros((100, 2100, 3), np.uint8))})
