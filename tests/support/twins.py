"""Both twins of a lane's inner loop, in turn: the compiled one and the one in Python.

A test that asks for `twin` runs twice. Processes that it starts are on the same side.
"""

from __future__ import annotations

import pytest

from superbrain.transport import compiled

MISSING = "no compiled loop: this environment had no C compiler when it was made"


@pytest.fixture(params=["compiled", "python"])
def twin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let everything that is made from here on use the one twin."""
    name: str = request.param
    if name == "python":
        monkeypatch.setenv(compiled.VARIABLE, "python")
        monkeypatch.setattr(compiled, "loop", lambda: None)
    elif compiled.loop() is None:
        pytest.skip(MISSING)
    return name
