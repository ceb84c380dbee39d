"""JSON without leniency: UTF-8 only, every key once, every number finite.

Python's parser keeps the last of two equal keys and reads NaN. Two programs that read one signed
text must never see two different things, so both are errors here.

>>> strict_loads(b'{"a": 1, "a": 2}')
Traceback (most recent call last):
superbrain.domain.strict_json.DuplicateKey: expected every key once, found 'a' twice
"""

from __future__ import annotations

import collections
import json
from typing import Any, NoReturn

from superbrain.domain.errors import shown


class NotJson(ValueError):
    """The bytes are not strict JSON; the sentence says what was found."""


class DuplicateKey(NotJson):
    """An object has one key twice."""


def strict_loads(data: bytes) -> Any:  # noqa: ANN401 - JSON may hold anything
    """Parse strict JSON.

    Raises:
        NotJson: it is not; DuplicateKey where that is what is wrong.
    """
    try:
        text = data.decode("utf-8")
        return json.loads(text, object_pairs_hook=_each_key_once, parse_constant=_refuse)
    except NotJson:
        raise
    except (ValueError, RecursionError) as error:
        _refuse(str(error), error)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = collections.Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise DuplicateKey(f"expected every key once, found {shown(twice)} twice")
    return found


def _refuse(found: str, cause: Exception | None = None) -> NoReturn:
    raise NotJson(f"expected JSON in UTF-8 with finite numbers, found: {found[:200]}") from cause
