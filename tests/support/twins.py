"""Both twins of a lane's inner loop, in turn: the compiled one and the one in Python.

A test that asks for `twin` runs twice. Processes that it starts are on the same side.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from superbrain.client.result import form_without_id
from superbrain.transport import compiled

MISSING = "no compiled loop: this environment had no C compiler when it was made"


@pytest.fixture(params=["compiled", "python"])
def twin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let everything that is made from here on use the one twin."""
    name: str = request.param
    form_without_id.cache_clear()  # what is known of answers was made by the other one
    if name == "python":
        monkeypatch.setenv(compiled.VARIABLE, "python")
        monkeypatch.setattr(compiled, "loop", lambda: None)
    elif compiled.loop() is None:
        pytest.skip(MISSING)
    yield name
    form_without_id.cache_clear()
