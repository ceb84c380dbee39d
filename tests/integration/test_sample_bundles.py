"""The sample bundles, from fetching their weights to answers that mean what they should.

All four are made in a copy of bundles/ by the commands of its README, as they are typed, dropped
into one appliance and asked over its socket. Nothing is downloaded but what bundles/.cache lacks.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from superbrain.client import Client, InvalidArgument
from tests.support.appliance import Appliance

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

Array = np.ndarray[Any, np.dtype[Any]]
BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
RECORDED = ("orientation", "ocr", "voice-activity")
NAMES = (*RECORDED, "tabular")
MADE = shutil.ignore_patterns(".cache", "__pycache__", "inbox", "graphs", "golden", "sources")
PAGE_LINES = [
    "Region-based segmentation",
    "Let us first determine markers of the coins and the",
    "background. These markers are pixels that we can label",
    "unambiguously as either object or background. Here,",
    "the markers are found at the two extreme parts of the",
    "histogram of grey values:",
    "markers = np.zeros_like(coins)",
]
# When the speaker of the recording speaks, in seconds.
SPEECH = [(1.03, 1.69), (2.08, 3.77), (4.32, 5.44), (5.67, 7.55), (8.03, 8.71)]
NEW_STREAM = np.zeros(320, np.float32)


class Terminal:
    """An author at a terminal, in a folder that has `bundles/` in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        }

    def type(self, command: str) -> None:
        """Run one command, which must succeed."""
        done = subprocess.run(
            command.split(),
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if "pip could not download" in done.stderr:
            pytest.skip(f"no weights, and no network to get them: {done.stderr}")
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of bundles/ with all that fetching, preparing and recording make."""
    folder = tmp_path_factory.mktemp("author")
    shutil.copytree(BUNDLES, folder / "bundles", ignore=MADE)
    (BUNDLES / ".cache").mkdir(exist_ok=True)
    (folder / "bundles/.cache").symlink_to(BUNDLES / ".cache")
    (folder / "bundles/inbox").mkdir()
    terminal = Terminal(folder)
    terminal.type("python bundles/fetch.py")
    terminal.type("python bundles/prepare.py")
    for name in RECORDED:
        terminal.type(f"superbrain bundle record-golden bundles/{name}")
    return folder / "bundles"


@pytest.fixture(scope="module")
def client(recipes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of an appliance on which all four are live."""
    terminal = Terminal(recipes.parent)
    with Appliance(tmp_path_factory.mktemp("appliance")) as appliance:
        key = appliance.author.private
        for name in NAMES:
            terminal.type(f"superbrain bundle build bundles/{name} --key {key} -o bundles/inbox")
            appliance.drop(recipes / f"inbox/{name}-1.0.0.sbb")
        for name in NAMES:
            appliance.wait_live(name, "1.0.0")
        with appliance.client() as client:
            yield client


# --- orientation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "degrees"),
    [("upright", "0"), ("turned-90", "90"), ("turned-180", "180"), ("turned-270", "270")],
)
def test_a_page_is_told_by_how_many_degrees_it_was_turned(
    client: Client, recipes: Path, case: str, degrees: str
) -> None:
    page = recipes / f"orientation/golden/{case}/request/image.png"
    answer = client.infer("orientation", {"image": page})
    assert answer.text("label") == degrees
    assert 0.5 < answer["confidence"] <= 1


def test_what_is_no_image_is_the_callers_fault(client: Client) -> None:
    with pytest.raises(InvalidArgument, match="expected a JPEG or PNG file, found 5 bytes"):
        client.infer("orientation", {"image": b"hello"})


def test_a_small_file_that_unfolds_to_a_huge_image_is_refused(client: Client) -> None:
    bomb = white_page(16_385, 16_385)
    assert len(bomb) < 100_000
    with pytest.raises(InvalidArgument, match=r"found \d+ bytes that do not decode"):
        client.infer("orientation", {"image": bomb})


def white_page(width: int, height: int) -> bytes:
    """A PNG file with one bit for each pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = (b"\0" + b"\xff" * (-(-width // 8))) * height
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


# --- ocr ------------------------------------------------------------------------------------------


def read_lines(client: Client, image: Array) -> tuple[list[str], Array]:
    """The lines of an image, without the prompt in front of the last one, and their boxes."""
    file = cv2.imencode(".png", image)[1].tobytes()
    answer = client.infer("ocr", {"image": file})
    texts = [line.decode() for line in answer["lines"]]
    return [text.removeprefix(">>>").strip() for text in texts], answer["boxes"]


@pytest.fixture(scope="module")
def page(recipes: Path) -> Array:
    image = cv2.imread(str(recipes / "ocr/golden/page/request/image.png"))
    assert image is not None
    return np.asarray(image)


def test_every_line_of_an_enlarged_page_is_read(client: Client, page: Array) -> None:
    enlarged = cv2.resize(page, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    lines, boxes = read_lines(client, enlarged)
    assert lines == PAGE_LINES
    tops = boxes[:, 0, 1]
    assert (np.diff(tops) > 10).all(), f"expected lines from top to bottom, found {tops}"


def test_a_page_turned_upside_down_is_read_as_well(client: Client, page: Array) -> None:
    lines, _ = read_lines(client, cv2.rotate(page, cv2.ROTATE_180))
    assert sorted(lines) == sorted(PAGE_LINES)


def test_an_empty_page_has_no_lines(client: Client, page: Array) -> None:
    lines, boxes = read_lines(client, np.full_like(page, 255))
    assert lines == []
    assert boxes.shape == (0, 4, 2)


# --- voice activity -------------------------------------------------------------------------------


def sound(recipes: Path, case: str) -> Array:
    samples: Array = np.load(recipes / f"voice-activity/golden/{case}/request/audio.npy")
    return samples


def test_stretches_of_speech_are_found(client: Client, recipes: Path) -> None:
    asked = {"audio": sound(recipes, "speech"), "state": NEW_STREAM}
    segments = client.infer("voice-activity", asked)["segments"]
    assert segments.shape == (len(SPEECH), 2)
    assert np.abs(segments - np.array(SPEECH)).max() < 0.1


def test_a_loud_hum_is_no_speech(client: Client, recipes: Path) -> None:
    hum = sound(recipes, "hum")
    assert np.abs(hum).max() > 0.05
    answer = client.infer("voice-activity", {"audio": hum, "state": NEW_STREAM})
    assert len(answer["segments"]) == 0
    assert answer["probabilities"].max() < 0.5


def test_a_stream_sent_in_parts_is_answered_like_the_whole(client: Client, recipes: Path) -> None:
    speech = sound(recipes, "speech")
    whole = client.infer("voice-activity", {"audio": speech, "state": NEW_STREAM})
    state, probabilities = NEW_STREAM, []
    for part in np.split(speech, [512, 512 * 4, 512 * 75, 512 * 76, 512 * 200]):
        answer = client.infer("voice-activity", {"audio": part, "state": state})
        state = answer["state"]
        probabilities.append(answer["probabilities"])
    assert np.array_equal(np.concatenate(probabilities), whole["probabilities"])
    assert np.array_equal(state, whole["state"])


# --- tabular --------------------------------------------------------------------------------------


def test_classes_and_probabilities_are_those_of_scikit_learn(client: Client, recipes: Path) -> None:
    trained, unseen, _ = runpy.run_path(str(recipes / "tabular/train.py"))["train"]()
    noise = np.random.default_rng(0).normal(1, 0.1, (20, *unseen.shape)).astype(np.float32)
    rows = (unseen * noise).reshape(-1, unseen.shape[1])
    answer = client.infer("tabular", {"features": rows})
    assert answer["label"].tolist() == trained.predict(rows).tolist()
    assert [int(name.removeprefix(b"class_")) for name in answer["name"]] == answer[
        "label"
    ].tolist()
    expected = trained.predict_proba(rows)
    assert np.allclose(answer["probabilities"], expected, rtol=1e-4, atol=1e-5)


def test_a_missing_value_is_refused_with_its_place(client: Client) -> None:
    rows = np.ones((3, 13), np.float32)
    rows[2, 0] = np.nan
    with pytest.raises(InvalidArgument, match="found nan in row 2, column alcohol"):
        client.infer("tabular", {"features": rows})


def test_more_rows_than_the_graph_allows_are_refused(client: Client) -> None:
    with pytest.raises(InvalidArgument, match="expected 1 to 4096 rows, found 4097"):
        client.infer("tabular", {"features": np.ones((4097, 13), np.float32)})


# --- templates on the same graphs -----------------------------------------------------------------


def from_template(recipes: Path, folder: str, words: str, changes: dict[str, str]) -> Path:
    """A folder that `bundle init --template` makes, with constants and bounds changed."""
    Terminal(recipes).type(f"superbrain bundle init {words} --directory {folder}")
    for file in ("code/pipeline.py", "bundle.toml"):
        path = recipes / folder / file
        text = path.read_text()
        for old, new in changes.items():
            text = text.replace(old, new)
        path.write_text(text)
    return recipes / folder


def test_the_classification_template_tells_how_a_page_was_turned(recipes: Path) -> None:
    words = "orientation/graphs/orientation.onnx --template classification"
    folder = from_template(recipes, "turned", words, {})
    image = recipes / "orientation/golden/turned-90/request/image.png"
    Terminal(recipes).type(f"superbrain bundle record-golden turned --case a --input image={image}")
    labels = json.loads((folder / "golden/a/response/labels.json").read_text())
    assert labels[0] == "90"
    assert sorted(labels) == ["0", "180", "270", "90"]
    assert 0.5 < np.load(folder / "golden/a/response/confidences.npy")[0] <= 1


def test_the_audio_template_hears_what_the_voice_activity_sample_hears(
    client: Client, recipes: Path
) -> None:
    """With the changes of docs/templates.md: 64 samples of context before every 512."""
    changes = {
        "WINDOW = 16000": "WINDOW = 576",
        "HOP = 16000": "HOP = 512",
        "SHAPE = (16000,)": "SHAPE = (576,)",
        "shape = [256]": "shape = [320]",
        "min = 16000, opt = 16000, max = 16000": "min = 576, opt = 576, max = 576",
    }
    words = "voice-activity/graphs/vad.onnx --template audio"
    folder = from_template(recipes, "heard", words, changes)
    audio = sound(recipes, "speech")
    np.save(recipes / "state.npy", NEW_STREAM)
    path = recipes / "voice-activity/golden/speech/request/audio.npy"
    Terminal(recipes).type(
        f"superbrain bundle record-golden heard --case a --input audio={path} "
        f"--input state={recipes / 'state.npy'}"
    )
    expected = client.infer("voice-activity", {"audio": audio, "state": NEW_STREAM})
    response = folder / "golden/a/response"
    found = np.load(response / "output.npy")[:, 0]
    assert np.allclose(found, expected["probabilities"], atol=1e-5)
    assert np.allclose(np.load(response / "state.npy"), expected["state"], atol=1e-4)
