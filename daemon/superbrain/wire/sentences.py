"""Sentences that go to people, through messages, journals, notes and health: short, and writable.

Much of what they say comes from others: an exception of a bundle's code may hold a whole tensor in
its text, or a character that is none.
"""

from __future__ import annotations

from typing import Final

MOST_CHARACTERS: Final = 2000
_BEGINNING: Final = 1400  # of those, where there are more
_ENDING: Final = 500  # a path and a line often stand at the end


def sentence(text: str) -> str:
    r"""Leave out the middle of what is longer than `MOST_CHARACTERS`, and replace lone surrogates.

    >>> sentence("found \ud800")
    'found ?'
    """
    if len(text) > MOST_CHARACTERS:
        left_out = len(text) - _BEGINNING - _ENDING
        text = f"{text[:_BEGINNING]} [{left_out:,} characters left out] {text[-_ENDING:]}"
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text
