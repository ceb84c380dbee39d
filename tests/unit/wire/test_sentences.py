"""Sentences: short, and made of characters that can be written."""

from __future__ import annotations

from superbrain.wire.errors import Internal
from superbrain.wire.messages import decode_error, encode_error
from superbrain.wire.sentences import MOST_CHARACTERS, sentence


def test_what_is_short_is_the_very_same() -> None:
    text = "expected FP32[1,4], found „FP32[1,3]“"
    assert sentence(text) is text
    assert sentence("x" * MOST_CHARACTERS) == "x" * MOST_CHARACTERS


def test_of_what_is_long_beginning_and_end_stay() -> None:
    text = sentence("a" * 3000 + "b" * 3000)
    assert text == "a" * 1400 + " [4,100 characters left out] " + "b" * 500
    assert sentence(text) is text


def test_a_character_that_is_none_is_replaced() -> None:
    assert sentence("found \ud800!") == "found ?!"


def test_an_error_can_be_told_whatever_its_text_holds() -> None:
    told = decode_error(encode_error(Internal("\udcff" * 300_000, mend="m" * 3000), "id"))
    assert told.message.startswith("???")
    assert max(len(told.message), len(told.mend)) <= MOST_CHARACTERS
