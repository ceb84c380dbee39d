"""Voice activity: windows, the state of a stream, and from probabilities to stretches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.bundle_code import Untyped
from tests.unit.bundles_samples.recipes import FakeBundle, load

pipeline = load("voice-activity/code/pipeline.py")
segments = load("voice-activity/code/segments.py")
Array = np.ndarray[Any, np.dtype[Any]]
START = np.zeros(320, np.float32)


def sound(samples: int) -> Array:
    return np.random.default_rng(0).uniform(-1, 1, samples).astype(np.float32)


def remembering(inputs: dict[str, Array]) -> dict[str, Array]:
    """A network whose answer depends on the window, its context and all windows before."""
    assert inputs["input"].shape == (1, 576)
    assert inputs["state"].shape == (2, 1, 128)
    assert inputs["sr"].shape == ()
    assert inputs["sr"] == 16000
    state = inputs["state"] * 0.5 + inputs["input"][0, :128] + inputs["input"][0, -128:]
    return {"output": state.mean(axis=(0, 2)).reshape(1, 1) ** 2, "stateN": state}


@pytest.fixture
def sample() -> Untyped:
    return pipeline.Pipeline(FakeBundle("voice-activity"))


# --- windows and state ------------------------------------------------------------------------


def test_every_window_begins_with_the_end_of_the_one_before() -> None:
    audio, context = sound(2048), sound(64)
    windows = pipeline.windows(audio, context)
    assert windows.shape == (4, 576)
    assert np.array_equal(windows[0, :64], context)
    assert np.array_equal(windows[1:, :64], windows[:-1, -64:])
    assert np.array_equal(windows[:, 64:].ravel(), audio)


@pytest.mark.parametrize(("samples", "count"), [(0, 0), (1, 1), (512, 1), (513, 2)])
def test_the_last_window_is_filled_up_with_silence(samples: int, count: int) -> None:
    windows = pipeline.windows(sound(samples), np.zeros(64, np.float32))
    assert windows.shape == (count, 576)
    assert (windows[:, 64:].ravel()[samples:] == 0).all()


def test_a_stream_sent_in_parts_gets_the_answers_of_the_whole(sample: Untyped) -> None:
    audio, graphs = sound(512 * 9), {"vad": remembering}
    whole = sample.run({"audio": audio, "state": START}, graphs)
    state, parts = START, []
    for part in np.split(audio, [512, 512 * 4]):
        answer = sample.run({"audio": part, "state": state}, graphs)
        state = answer["state"]
        parts.append(answer["probabilities"])
    assert np.array_equal(np.concatenate(parts), whole["probabilities"])
    assert np.array_equal(state, whole["state"])


def test_no_sound_leaves_the_state_as_it_was(sample: Untyped) -> None:
    state = sound(320)
    answer = sample.run({"audio": sound(0), "state": state}, {"vad": remembering})
    assert np.array_equal(answer["state"], state)
    assert answer["probabilities"].shape == (0,)
    assert answer["segments"].shape == (0, 2)


def test_answers_have_the_declared_types(sample: Untyped) -> None:
    answer = sample.run({"audio": sound(1000), "state": START}, {"vad": remembering})
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in answer.items()} == {
        "probabilities": (np.float32, (2,)),
        "segments": (np.float32, (0, 2)),
        "state": (np.float32, (320,)),
    }


@pytest.mark.parametrize(
    ("audio", "found"),
    [
        (np.array([0, np.nan], np.float32), "between -1 and 1, found nan"),
        (np.array([0, np.inf], np.float32), "between -1 and 1, found inf"),
        (np.array([1200, -31000], np.float32), "between -1 and 1, found 31000.0"),
        (np.zeros(16000 * 601, np.float32), "at most 600 seconds, found 601"),
    ],
)
def test_what_is_no_sound_is_refused(sample: Untyped, audio: Array, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        sample.run({"audio": audio, "state": START}, {"vad": remembering})


# --- stretches --------------------------------------------------------------------------------

HIGH, MIDDLE, LOW = 0.9, 0.4, 0.1


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([], []),
        ([LOW] * 20, []),
        ([LOW] * 10 + [HIGH] * 10 + [LOW] * 10, [(10, 20)]),
        ([LOW] * 10 + [HIGH] * 5 + [LOW] * 10, []),  # too short to be speech
        ([HIGH] * 10 + [LOW] * 3 + [HIGH] * 10 + [LOW] * 9, [(0, 23)]),  # too short a pause
        ([HIGH] * 10 + [LOW] * 9 + [HIGH] * 10 + [LOW] * 9, [(0, 10), (19, 29)]),
        ([HIGH] * 10 + [MIDDLE] * 9 + [HIGH] * 10 + [LOW] * 9, [(0, 29)]),  # never below the end
        ([MIDDLE] * 20, []),  # never above the beginning
        ([LOW] * 10 + [HIGH] * 10, [(10, 20)]),  # speech goes on to the end
    ],
)
def test_stretches_begin_high_end_low_and_bridge_short_pauses(
    probabilities: list[float], expected: list[tuple[int, int]]
) -> None:
    samples = len(probabilities) * 512
    found = segments.Segmenter(16000, 512).segments(probabilities, samples)
    padded = [
        (max(start * 512 - 480, 0) / 16000, min(end * 512 + 480, samples) / 16000)
        for start, end in expected
    ]
    assert np.array_equal(found, np.array(padded, np.float32).reshape(-1, 2))


def test_stretches_too_close_to_be_widened_meet_in_the_middle() -> None:
    padded = segments.Segmenter(16000, 512).padded([(1000, 5000), (5600, 9000)], 9100)
    assert padded == [[520, 5300], [5300, 9100]]
