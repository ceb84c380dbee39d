"""Interfaces, retries and waiting, without a socket: the test plays the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from superbrain.client import conversation
from superbrain.client.calls import Call
from superbrain.client.conversation import Conversation, Inference, Interfaces, Pause
from superbrain.client.result import Result
from superbrain.wire.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    RequestError,
    ResourceExhausted,
    Unavailable,
)
from superbrain.wire.messages import (
    INFER,
    MODEL_METADATA,
    InterfaceTensor,
    ModelList,
    ModelMetadata,
    ModelReady,
    ModelSummary,
    ServerLive,
)

RESULT = Result("m", "1", {})


def play(talk: Conversation[Any], *answers: object) -> tuple[Any, list[Any]]:
    """Give the answers one by one (errors are thrown); return the outcome and what was asked."""
    asked: list[Any] = []
    script = list(answers)
    try:
        step = next(talk)
        while True:
            asked.append(step)
            answer = script.pop(0)
            step = talk.throw(answer) if isinstance(answer, RequestError) else talk.send(answer)
    except StopIteration as end:
        assert not script
        return end.value, asked


def metadata(datatype: str) -> ModelMetadata:
    return ModelMetadata("m", ["1"], "p", [InterfaceTensor("x", datatype, [])], [])


def verbs(asked: list[Any]) -> list[bytes]:
    return [step.verb for step in asked if isinstance(step, Call)]


def sent_datatype(call: Call[Any]) -> str:
    datatype: str = msgspec.json.decode(call.header("", 0, False))["inputs"][0]["datatype"]
    return datatype


def test_inputs_with_types_of_their_own_ask_no_metadata() -> None:
    outcome, asked = play(Interfaces().infer(Inference("m", {"x": b"jpeg"})), RESULT)
    assert outcome is RESULT
    assert verbs(asked) == [INFER]


def test_a_number_asks_the_interface_once_and_remembers_it() -> None:
    interfaces = Interfaces()
    _, first = play(interfaces.infer(Inference("m", {"x": 1})), metadata("FP32"), RESULT)
    _, second = play(interfaces.infer(Inference("m", {"x": 1})), RESULT)
    assert verbs(first) == [MODEL_METADATA, INFER]
    assert verbs(second) == [INFER]
    assert sent_datatype(second[0]) == "FP32"


def test_an_array_that_cannot_be_sent_is_told_what_it_should_be() -> None:
    inputs = {"x": np.array([1j])}
    with pytest.raises(InvalidArgument, match=r"input 'x': expected FP32\[\], found dtype complex"):
        play(Interfaces().infer(Inference("m", inputs)), metadata("FP32"))
    with pytest.raises(InvalidArgument, match="input 'x': expected an array of BOOL"):
        play(Interfaces().infer(Inference("m", inputs)), Unavailable("away"))


@pytest.mark.parametrize("inputs", [None, [b""], "x"])
def test_inputs_without_names_are_refused(inputs: Any) -> None:  # noqa: ANN401
    with pytest.raises(InvalidArgument, match="expected inputs by name, in a dict, found"):
        play(Interfaces().infer(Inference("m", inputs)))


def test_an_outdated_interface_is_asked_anew_once_and_the_request_repeated() -> None:
    interfaces = Interfaces()
    play(interfaces.infer(Inference("m", {"x": 1})), metadata("FP32"), RESULT)
    refused = InvalidArgument("expected INT64")
    talk = interfaces.infer(Inference("m", {"x": 1}))
    outcome, asked = play(talk, refused, metadata("INT64"), RESULT)
    assert outcome is RESULT
    assert verbs(asked) == [INFER, MODEL_METADATA, INFER]
    assert sent_datatype(asked[-1]) == "INT64"


def test_a_refusal_by_an_unchanged_interface_is_raised() -> None:
    interfaces = Interfaces()
    play(interfaces.infer(Inference("m", {"x": 1})), metadata("FP32"), RESULT)
    refused = InvalidArgument("expected something else")
    with pytest.raises(InvalidArgument, match="something else"):
        play(interfaces.infer(Inference("m", {"x": 1})), refused, metadata("FP32"))


def test_a_refusal_by_an_interface_just_asked_is_raised_at_once() -> None:
    talk = Interfaces().infer(Inference("m", {"x": 1}))
    with pytest.raises(InvalidArgument, match="no"):
        play(talk, metadata("FP32"), InvalidArgument("no"))


def test_unavailable_is_asked_again_with_growing_pauses() -> None:
    talk = conversation.retry_unavailable(Inference("m", {}), Interfaces())
    outcome, asked = play(talk, Unavailable("swap"), True, Unavailable("swap"), True, RESULT)
    assert outcome is RESULT
    pauses = [step.seconds for step in asked if isinstance(step, Pause)]
    assert pauses == [0.01, 0.02]


def test_the_last_unavailable_is_raised_when_time_is_up() -> None:
    talk = conversation.retry_unavailable(Inference("m", {}), Interfaces())
    with pytest.raises(Unavailable, match="still"):
        play(talk, Unavailable("first"), True, Unavailable("still"), False)


@pytest.mark.parametrize("kind", [ResourceExhausted, InvalidArgument, NotFound, Internal])
def test_no_other_error_is_asked_again(kind: type[RequestError]) -> None:
    with pytest.raises(kind):
        play(conversation.retry_unavailable(Inference("m", {}), Interfaces()), kind("no"))


@pytest.mark.parametrize(
    ("talk", "answer", "expected"),
    [
        (conversation.live, ServerLive(live=True), True),
        (conversation.live, Unavailable("nobody"), False),
        (conversation.live, DeadlineExceeded("silence"), False),
        (lambda: conversation.ready("m"), ModelReady("m", ready=True), True),
        (lambda: conversation.ready("m"), ModelReady("m", ready=False), False),
        (lambda: conversation.ready("m"), NotFound("none"), False),
        (lambda: conversation.ready(None), ModelList([]), True),
        (
            lambda: conversation.ready(None),
            ModelList([ModelSummary("a", "1", ready=True), ModelSummary("b", "1", ready=False)]),
            False,
        ),
    ],
)
def test_yes_or_no_questions_are_answered_with_yes_or_no(
    talk: Callable[[], Conversation[bool]], answer: object, expected: bool
) -> None:
    assert play(talk(), answer)[0] is expected


def test_waiting_lasts_through_everything_until_the_model_is_ready() -> None:
    not_ready = ModelReady("m", ready=False, reason="proving")
    steps = (Unavailable("down"), True, NotFound("none"), True, not_ready, True)
    assert play(conversation.wait_ready("m"), *steps, ModelReady("m", ready=True))[0] is None


def test_waiting_in_vain_ends_with_the_last_reason() -> None:
    not_ready = ModelReady("m", ready=False, reason="golden case 3 differs")
    with pytest.raises(DeadlineExceeded, match="not ready in time: golden case 3 differs"):
        play(conversation.wait_ready("m"), not_ready, False)


def test_a_last_question_that_is_not_answered_does_not_hide_the_reason() -> None:
    not_ready = ModelReady("m", ready=False, reason="golden case 3 differs")
    late = DeadlineExceeded("no answer within the time given")
    with pytest.raises(DeadlineExceeded, match="not ready in time: golden case 3 differs"):
        play(conversation.wait_ready("m"), not_ready, True, late)
    with pytest.raises(DeadlineExceeded, match="no answer within"):
        play(conversation.wait_ready("m"), late)
