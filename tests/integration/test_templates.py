"""Every template, from a graph to the answers of a daemon, as an author and a caller type it.

`bundle init --template`, `record-golden`, `prove` and `build` make seven bundles of small real
graphs; one appliance takes them all. What it answers is worked out here once more in plain NumPy,
on other requests than the golden ones and at other sizes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

from superbrain.bundle.folder import read_recipe
from superbrain.cli.main import main
from superbrain.client import Client, InvalidArgument
from tests.support import template_models as models
from tests.support.appliance import Appliance

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

Array = np.ndarray[Any, np.dtype[Any]]
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
VERSION = "0.1.0"


class Author(NamedTuple):
    """What an author does with one template: graphs, changes to the code, a golden request."""

    graphs: Mapping[str, Callable[[Path], Path]]
    request: Callable[[], Mapping[str, object]]
    changes: Mapping[str, str] = {}


def painted(height: int, width: int, *blocks: tuple[int, int, int, int, Any]) -> Array:
    """A black picture with blocks of colour: (left, top, right, bottom, colour)."""
    picture = np.zeros((height, width, 3), np.uint8)
    for left, top, right, bottom, colour in blocks:
        picture[top:bottom, left:right] = colour
    return picture


def png(picture: Array) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()


def written(text: str, height: int = 120) -> Array:
    """A white page with one line of the colour language: red is a, green is b, blue is c."""
    page = np.full((height, 60 * len(text) + 120, 3), 255, np.uint8)
    for index, letter in enumerate(text):
        left = 60 + 60 * index
        page[40:70, left : left + 60] = {"a": RED, "b": GREEN, "c": BLUE}[letter]
    return page


def sine(count: int) -> Array:
    return (0.5 * np.sin(np.arange(count) / 7)).astype(np.float32)


AUTHORS = {
    "classification": Author(
        {"": models.save_classifier}, lambda: {"image": png(painted(18, 24, (0, 0, 24, 18, RED)))}
    ),
    "detection": Author(
        {"": models.save_detector},
        lambda: {"image": png(painted(64, 96, (16, 8, 24, 16, RED)))},
        {"SIDE = 640": "SIDE = None", "FILL = 114": "FILL = 0"},
    ),
    "segmentation": Author(
        {"": models.save_segmenter}, lambda: {"image": png(painted(40, 40, (0, 0, 20, 40, GREEN)))}
    ),
    "ocr": Author(
        {"det": models.save_text_finder, "rec": models.save_text_reader},
        lambda: {"image": png(written("abc"))},
        {"SURE_SCORE = 0.9": "SURE_SCORE = 0.0"},
    ),
    "embedding": Author(
        {"": models.save_text_embedder},
        lambda: {"tokens": np.array([[1, 2, 3]]), "mask": np.array([[1, 1, 0]])},
    ),
    "audio": Author(
        {"": models.save_listener},
        lambda: {"audio": sine(1000), "state": np.zeros(2, np.float32)},
    ),
    "tabular": Author(
        {"": models.save_table_model},
        lambda: {
            "columns": np.array([b"column_1", b"column_2", b"column_3"], object),
            "features": np.eye(3),
        },
    ),
}


def save_request(folder: Path, request: Mapping[str, object]) -> list[str]:
    """The request as files, and the words that name them."""
    words = []
    folder.mkdir(parents=True)
    for name, value in request.items():
        if isinstance(value, bytes):
            path = folder / f"{name}.png"
            path.write_bytes(value)
        elif isinstance(value, np.ndarray) and value.dtype == object:
            path = folder / f"{name}.json"
            path.write_text(json.dumps([one.decode() for one in value]))
        else:
            path = folder / f"{name}.npy"
            np.save(path, np.asarray(value))
        words += ["--input", f"{name}={path}"]
    return words


def make_folder(parent: Path, name: str) -> Path:
    """What an author has after `init`, with the constants changed."""
    author, folder = AUTHORS[name], parent / name
    graphs = {key: save(parent / f"{name}{key}.onnx") for key, save in author.graphs.items()}
    words = [word for key, path in graphs.items() for word in ("--graph", f"{key}={path}")]
    given = [str(graphs[""])] if "" in graphs else words
    options = ["--template", name, "--name", name, "--directory", str(folder)]
    assert main(["bundle", "init", *given, *options]) == 0
    code = folder / "code/pipeline.py"
    for old, new in author.changes.items():
        text = code.read_text()
        assert old in text
        code.write_text(text.replace(old, new))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """All seven folders, recorded and proven."""
    parent = tmp_path_factory.mktemp("authors")
    made = {name: make_folder(parent, name) for name in AUTHORS}
    for name, folder in made.items():
        words = save_request(parent / f"{name}-request", AUTHORS[name].request())
        assert main(["bundle", "record-golden", str(folder), "--case", "first", *words]) == 0
        assert main(["bundle", "prove", str(folder)]) == 0
    return made


@pytest.fixture(scope="module")
def client(
    folders: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """A client of an appliance on which all seven are live."""
    with Appliance(tmp_path_factory.mktemp("appliance")) as appliance:
        key, target = str(appliance.author.private), tmp_path_factory.mktemp("built")
        for name, folder in folders.items():
            assert main(["bundle", "build", str(folder), "--key", key, "-o", str(target)]) == 0
            appliance.drop(target / f"{name}-{VERSION}.sbb")
        for name in folders:
            appliance.wait_live(name, VERSION)
        with appliance.client() as client:
            yield client


# --- pictures -----------------------------------------------------------------------------------


def test_classification_crops_the_middle_and_gives_labels_with_their_softmax(
    client: Client,
) -> None:
    picture = painted(18, 24, (0, 0, 3, 18, RED), (4, 1, 20, 17, (30, 200, 90)))
    logits = ((np.array([30, 200, 90]) / 255 - MEAN) / STD) @ models.CLASS_WEIGHTS
    expected = np.exp(logits) / np.exp(logits).sum()
    answer = client.infer("classification", {"image": png(picture)})
    order = np.argsort(-expected)
    names = np.array([b"red", b"green", b"blue", b"grey"], object)
    assert answer["labels"].tolist() == names[order].tolist()
    assert np.allclose(answer["confidences"], expected[order], rtol=1e-4)


@pytest.mark.parametrize(("height", "width", "top", "left"), [(64, 96, 0, 0), (50, 70, 7, 13)])
def test_detection_gives_boxes_in_pixels_of_a_picture_of_any_size(
    client: Client, height: int, width: int, top: int, left: int
) -> None:
    """The picture lies in the middle of its frame, so the graph's cells begin off its edge."""
    red = [24 - left, 16 - top, 32 - left, 24 - top]
    green = [40 - left, 32 - top, 48 - left, 40 - top]
    picture = painted(height, width)
    for (x1, y1, x2, y2), colour in ((red, RED), (green, (0, 200, 0))):
        picture[y1:y2, x1:x2] = colour
    answer = client.infer("detection", {"image": png(picture)})
    assert answer["labels"].tolist() == [b"red", b"green"]
    assert answer["boxes"].tolist() == [red, green]
    assert np.allclose(answer["scores"], [1, 200 / 255])


@pytest.mark.parametrize(("height", "width"), [(64, 96), (50, 70), (33, 201)])
def test_segmentation_gives_a_mask_of_the_pictures_own_size(
    client: Client, height: int, width: int
) -> None:
    picture = painted(height, width, (0, 0, width, height, RED), (20, 0, width, height, BLUE))
    picture[10:20] = GREEN
    answer = client.infer("segmentation", {"image": png(picture)})
    assert np.array_equal(answer["mask"], picture.argmax(axis=2))
    shares = [(picture.argmax(axis=2) == index).mean() for index in range(3)]
    assert answer["labels"].tolist() == [b"class_0", b"class_1", b"class_2"]
    assert np.allclose(answer["shares"], shares)


@pytest.mark.parametrize(("text", "height"), [("abcab", 120), ("ca", 300)])
def test_ocr_reads_pages_of_different_sizes(client: Client, text: str, height: int) -> None:
    answer = client.infer("ocr", {"image": png(written(text, height))})
    assert answer["lines"].tolist() == [text.encode()]
    ((left, top), _, (right, bottom), _) = answer["boxes"][0]
    assert left < 60
    assert top < 40
    assert right > 59 + 60 * len(text)
    assert bottom > 69


def test_what_is_no_picture_is_the_callers_fault(client: Client) -> None:
    for name in ("classification", "detection", "segmentation", "ocr"):
        with pytest.raises(InvalidArgument, match="expected a JPEG or PNG file, found 5 bytes"):
            client.infer(name, {"image": b"hello"})


# --- texts, sound, tables -----------------------------------------------------------------------


@pytest.mark.parametrize(("texts", "length"), [(1, 1), (3, 7), (70, 12)])
def test_embedding_is_the_unit_mean_of_the_tokens_that_count(
    client: Client, texts: int, length: int
) -> None:
    tokens = np.arange(texts * length).reshape(texts, length) % 20
    mask = (np.arange(length) < 1 + np.arange(texts)[:, None] % length).astype(np.int64)
    sums = (models.VOCABULARY[tokens] * mask[:, :, None]).sum(axis=1) / mask.sum(1, keepdims=True)
    expected = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    answer = client.infer("embedding", {"tokens": tokens, "mask": mask})
    assert np.allclose(answer["embedding"], expected, atol=1e-5)


def test_embedding_refuses_a_mask_of_another_shape(client: Client) -> None:
    request = {"tokens": np.ones((2, 3), np.int64), "mask": np.ones((2, 2), np.int64)}
    with pytest.raises(InvalidArgument, match=r"mask: expected the shape of tokens, \[2, 3\]"):
        client.infer("embedding", request)


def test_embedding_refuses_a_token_that_the_graph_does_not_know(client: Client) -> None:
    request = {"tokens": np.array([[1, 20]]), "mask": np.array([[1, 1]])}
    with pytest.raises(InvalidArgument, match="tokens: expected ids of 0 to 19, found 1 to 20"):
        client.infer("embedding", request)


def listened(sound: Array) -> tuple[list[float], Array]:
    """The listener's answers and its last state, window by window."""
    state, answers = np.zeros(2, np.float32), []
    for start in range(0, len(sound), models.WINDOW):
        window = np.zeros(models.WINDOW, np.float32)
        part = sound[start : start + models.WINDOW]
        window[: len(part)] = part
        answers.append(window.mean() + state.mean())
        state = np.array([answers[-1], window.max()], np.float32)
    return answers, state


@pytest.mark.parametrize("count", [1, 400, 1001])
def test_audio_carries_the_state_from_window_to_window(client: Client, count: int) -> None:
    answers, state = listened(sine(count))
    answer = client.infer("audio", {"audio": sine(count), "state": np.zeros(2, np.float32)})
    assert np.allclose(answer["output"][:, 0], answers, atol=1e-6)
    assert np.allclose(answer["state"], state, atol=1e-6)


def test_a_stream_in_parts_is_answered_like_the_whole(client: Client) -> None:
    state, answers = np.zeros(2, np.float32), []
    for part in np.split(sine(2000), [400, 1200]):
        answer = client.infer("audio", {"audio": part, "state": state})
        state = answer["state"]
        answers += answer["output"][:, 0].tolist()
    assert np.allclose(answers, listened(sine(2000))[0], atol=1e-6)


def test_audio_refuses_whole_numbers_in_float(client: Client) -> None:
    request = {"audio": np.full(400, 3000, np.float32), "state": np.zeros(2, np.float32)}
    with pytest.raises(InvalidArgument, match="expected samples between -1 and 1, found 3000"):
        client.infer("audio", request)


@pytest.mark.parametrize("rows", [1, 5000])
def test_tabular_puts_columns_in_order_and_names_the_classes(client: Client, rows: int) -> None:
    features = np.random.default_rng(7).normal(size=(rows, 3))
    logits = features @ models.TABLE_WEIGHTS
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    order = [2, 0, 1]
    columns = np.array([f"column_{index + 1}".encode() for index in order], object)
    answer = client.infer("tabular", {"columns": columns, "features": features[:, order]})
    assert np.allclose(answer["probabilities"], expected, atol=1e-5)
    names = [f"class_{index}".encode() for index in expected.argmax(axis=1)]
    assert answer["label"].tolist() == names


def test_tabular_refuses_a_missing_value_with_its_place(client: Client) -> None:
    columns = np.array([b"column_2", b"column_1", b"column_3"], object)
    features = np.array([[1, 2, 3], [np.nan, 2, 3]])
    with pytest.raises(InvalidArgument, match="found nan in row 1, column column_2"):
        client.infer("tabular", {"columns": columns, "features": features})


def test_tabular_refuses_columns_that_it_does_not_know(client: Client) -> None:
    columns = np.array([b"column_2", b"column_1", b"age"], object)
    with pytest.raises(InvalidArgument, match="expected each of column_1, column_2, column_3 once"):
        client.infer("tabular", {"columns": columns, "features": np.ones((1, 3))})


# --- what init writes ---------------------------------------------------------------------------


def test_the_recipe_has_bounds_for_what_the_graph_leaves_open(
    folders: Mapping[str, Path],
) -> None:
    graph = read_recipe(folders["detection"]).graphs["detection"]
    assert graph.inputs[0].shape == [1, 3, "height", "width"]
    assert (graph.dynamic["height"].min, graph.dynamic["height"].max) == (32, 640)


def test_labels_come_from_the_graphs_own_metadata(folders: Mapping[str, Path]) -> None:
    text = (folders["classification"] / "assets/labels.txt").read_text()
    assert text.splitlines() == ["red", "green", "blue", "grey"]


def test_every_tensor_is_described_to_callers(folders: Mapping[str, Path]) -> None:
    for folder in folders.values():
        interface = read_recipe(folder).interface
        assert all(tensor.description for tensor in (*interface.inputs, *interface.outputs))
