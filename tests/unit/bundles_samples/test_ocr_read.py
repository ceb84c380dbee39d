"""OCR, reading: cutting strips, turning them, decoding, and the second look."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from superbrain.domain.manifest import GraphTensor
from tests.support.bundle_code import Untyped
from tests.unit.bundles_samples.recipes import FakeBundle, load

crops = load("ocr/code/crop.py")
upright = load("ocr/code/upright.py")
recognise = load("ocr/code/recognise.py")
pipeline = load("ocr/code/pipeline.py")
Array = np.ndarray[Any, np.dtype[Any]]
NOTHING = np.zeros((48, 96, 3), np.uint8)


def probabilities(*best: int, certainty: float = 0.9, size: int = 5) -> Array:
    """What the rec network would say: one likely character at every position."""
    rows = np.full((len(best), size), (1 - certainty) / (size - 1), np.float32)
    rows[np.arange(len(best)), best] = certainty
    return rows


# --- strips -----------------------------------------------------------------------------------


def test_a_straight_box_is_cut_out_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    box = np.array([[10, 20], [70, 20], [70, 40], [10, 40]], np.float32)
    assert np.array_equal(crops.crop(image, box), image[20:40, 10:70])


def test_a_slanted_box_is_straightened() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    box = cv2.boxPoints(((150.0, 100.0), (160.0, 40.0), 25.0))
    cv2.fillPoly(image, [box.astype(np.int32)], (255, 255, 255))
    clockwise = load("ocr/code/detect.py").clockwise_from_top_left(box)
    strip = crops.crop(image, clockwise)
    assert strip.shape[:2] == pytest.approx((40, 160), abs=1)
    assert strip.mean() > 245


def test_an_upright_strip_is_laid_down() -> None:
    box = np.array([[10, 10], [30, 10], [30, 90], [10, 90]], np.float32)
    assert crops.crop(np.zeros((100, 100, 3), np.uint8), box).shape == (20, 80, 3)


def test_a_batch_is_scaled_and_filled_with_zeros_to_the_right() -> None:
    batch = crops.stack([np.full((24, 48, 3), 255, np.uint8)], 192)
    assert batch.shape == (1, 3, 48, 192)
    assert (batch[:, :, :, :96] == 1).all()
    assert (batch[:, :, :, 96:] == 0).all()


def test_a_strip_too_long_is_squeezed() -> None:
    batch = crops.stack([np.full((10, 1000, 3), 255, np.uint8)], 192)
    assert (batch == 1).all()


# --- turning ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("probability", "turned"), [(0.95, True), (0.85, False), (0.1, False)])
def test_only_a_strip_surely_upside_down_is_turned(probability: float, turned: bool) -> None:
    strip = np.arange(48 * 96 * 3, dtype=np.uint32).astype(np.uint8).reshape(48, 96, 3)

    def graph(inputs: dict[str, Array]) -> dict[str, Array]:
        return {"cls": np.array([[1 - probability, probability]] * len(inputs["x"]), np.float32)}

    (result,) = upright.turn_upright([strip], graph)
    assert np.array_equal(result, strip[::-1, ::-1] if turned else strip)


def test_strips_are_classified_in_batches_the_graph_allows() -> None:
    sizes = []

    def graph(inputs: dict[str, Array]) -> dict[str, Array]:
        sizes.append(len(inputs["x"]))
        return {"cls": np.tile(np.array([1, 0], np.float32), (len(inputs["x"]), 1))}

    assert len(upright.turn_upright([NOTHING] * 14, graph)) == 14
    assert sizes == [6, 6, 2]


# --- decoding ---------------------------------------------------------------------------------


def bundle_reading(dictionary: str) -> FakeBundle:
    """The sample with a network that knows these characters, the blank and the space."""
    bundle = FakeBundle("ocr", {"rec": {"character": dictionary}})
    classes = len(dictionary.split("\n")) + 2
    bundle.graph("rec").outputs = [GraphTensor("fetch_name_0", "FP32", ["N", "T", classes])]
    return bundle


def recogniser(dictionary: str) -> Untyped:
    return recognise.Recogniser(bundle_reading(dictionary).graph("rec"), dictionary)


@pytest.mark.parametrize(
    ("best", "text"),
    [
        ((1, 1, 2, 3), "abc"),  # repeats merge
        ((1, 0, 1), "aa"),  # a blank between keeps both
        ((0, 2, 0, 0, 2, 2), "bb"),
        ((1, 4, 2), "a b"),  # the space comes after the dictionary
        ((0, 0, 0), ""),
        ((0, 3, 0), "c"),
    ],
)
def test_repeats_are_merged_and_blanks_dropped(best: tuple[int, ...], text: str) -> None:
    assert recogniser("a\nb\nc").decode(probabilities(*best))[0] == text


def test_the_score_is_the_mean_over_the_characters_kept() -> None:
    rows = np.concatenate([probabilities(1, certainty=0.9), probabilities(0, 2, certainty=0.5)])
    assert recogniser("a\nb\nc").decode(rows) == ("ab", pytest.approx(0.7))


def test_nothing_but_blanks_scores_zero() -> None:
    assert recogniser("a\nb\nc").decode(probabilities(0, 0)) == ("", 0.0)


def test_a_dictionary_may_hold_separators_of_lines() -> None:
    assert recogniser("a\n\u2028\nb").alphabet == ["", "a", "\u2028", "b", " "]


def test_a_network_without_the_space_has_one_class_less() -> None:
    assert recognise.alphabet_of(["a", "b"], 3) == ["", "a", "b"]


def test_a_dictionary_of_another_network_is_refused_with_both_sizes() -> None:
    with pytest.raises(ValueError, match=r"expected 7 characters.* for the 9 classes.*found 2"):
        recognise.alphabet_of(["a", "b"], 9)


def test_readings_come_back_in_the_order_of_the_strips() -> None:
    reader = recogniser("\n".join("abcdefghijklmnopqrst"))
    widths = [400, 100, 300, 200, 60, 700, 500, 800]
    strips = [np.full((48, width, 3), 255, np.uint8) for width in widths]

    def graph(inputs: dict[str, Array]) -> dict[str, Array]:
        """Says for each strip the letter that stands for its width."""
        x = inputs["x"]
        assert len(x) <= 6
        assert 320 <= x.shape[3] <= 2560
        letters = (x[:, 0, 0] == 1).sum(axis=1) // 50
        return {"rec": np.stack([probabilities(int(letter), size=22) for letter in letters])}

    texts = [text for text, _ in reader.read(strips, graph)]
    assert texts == [reader.alphabet[width // 50] for width in widths]


@pytest.mark.parametrize(("width", "expected"), [(10, 320), (320, 320), (500, 500), (9000, 2560)])
def test_a_batch_is_as_wide_as_its_widest_strip_within_bounds(width: int, expected: int) -> None:
    strips = [NOTHING, np.zeros((48, width, 3), np.uint8)]
    assert recogniser("").batch_width(strips) == expected


# --- the whole --------------------------------------------------------------------------------


@pytest.fixture
def sample() -> Untyped:
    return pipeline.Pipeline(bundle_reading("a\nb\nc"))


def marked(inputs: dict[str, Array]) -> dict[str, Array]:
    """A det network that finds one line in the middle."""
    _, _, height, width = inputs["x"].shape
    found = np.zeros((1, 1, height, width), np.float32)
    found[0, 0, height // 2 - 20 : height // 2 + 20, width // 4 : -width // 4] = 0.9
    return {"map": found}


def upright_graph(inputs: dict[str, Array]) -> dict[str, Array]:
    return {"cls": np.tile(np.array([1, 0], np.float32), (len(inputs["x"]), 1))}


def half_white() -> bytes:
    """An image whose line is white on the left."""
    image = np.zeros((368, 736, 3), np.uint8)
    image[:, :368] = 255
    return cv2.imencode(".png", image)[1].tobytes()


def reads_only_black_first(inputs: dict[str, Array]) -> dict[str, Array]:
    """A rec network that is sure of "ab" when a strip begins dark, and else mumbles "c"."""
    dark = inputs["x"][:, 0, 24, 2] < 0
    good, bad = probabilities(1, 2), probabilities(3, 3, certainty=0.6)
    return {"rec": np.stack([good if begins else bad for begins in dark])}


def test_a_doubtful_line_is_also_read_upside_down_and_the_better_kept(
    sample: Untyped,
) -> None:
    graphs = {"det": marked, "cls": upright_graph, "rec": reads_only_black_first}
    answer = sample.run({"image": half_white()}, graphs)
    assert answer["lines"] == ["ab"]
    assert answer["scores"] == [pytest.approx(0.9)]
    assert answer["boxes"].shape == (1, 4, 2)


def test_a_line_read_badly_both_ways_is_left_out(sample: Untyped) -> None:
    def mumbles(inputs: dict[str, Array]) -> dict[str, Array]:
        return {"rec": np.stack([probabilities(3, 3, certainty=0.4)] * len(inputs["x"]))}

    graphs = {"det": marked, "cls": upright_graph, "rec": mumbles}
    assert sample.run({"image": half_white()}, graphs)["lines"] == []


def test_an_image_without_text_gives_empty_tensors_of_the_right_shape(sample: Untyped) -> None:
    def blank(inputs: dict[str, Array]) -> dict[str, Array]:
        return {"map": np.zeros((1, 1, *inputs["x"].shape[2:]), np.float32)}

    answer = sample.run({"image": half_white()}, {"det": blank, "cls": None, "rec": None})
    assert answer["lines"] == answer["scores"] == []
    assert answer["boxes"].shape == (0, 4, 2)
    assert answer["boxes"].dtype == np.float32


def test_what_is_no_image_is_refused(sample: Untyped) -> None:
    with pytest.raises(ValueError, match="expected a JPEG or PNG file, found 3 bytes"):
        sample.run({"image": b"abc"}, {})
