"""The client printed in docs/protocol.md works as it stands, before a fake and a real gateway."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from superbrain.client import Client, Result
from superbrain.client.fake import FakeModel, FakeServer
from superbrain.wire.datatypes import Array
from tests.support.processes import ROOT, Stage

pytestmark = pytest.mark.integration


@contextmanager
def fake(folder: Path) -> Iterator[str]:
    del folder
    adder = FakeModel(lambda request: {"y": request["x"] + np.float32(1)})
    with FakeServer({"adder": adder}) as server:
        yield server.endpoint


@contextmanager
def gateway(folder: Path) -> Iterator[str]:
    with Stage(folder) as stage:
        stage.serving("name=adder")
        yield stage.endpoint


@pytest.fixture(params=[fake, gateway])
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with request.param(tmp_path) as endpoint:
        yield endpoint


Infer = Callable[..., dict[str, Any]]


@pytest.fixture
def printed(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Infer]:
    """The `infer` of the printed client."""
    monkeypatch.setenv("SUPERBRAIN_ENDPOINT", endpoint)
    names: dict[str, Any] = {}
    exec(compile(printed_code(), "docs/protocol.md", "exec"), names)
    yield names["infer"]
    names["socket"].close(linger=0)


def printed_code() -> str:
    text = (ROOT / "docs/protocol.md").read_text()
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_printed_client_is_short() -> None:
    lines = [line for line in printed_code().splitlines() if line.strip()]
    assert len(lines) <= 20


def test_the_printed_client_gets_an_answer(printed: Infer) -> None:
    x = np.array([[1, 2]], "<f4")
    datatype, shape, data = printed("adder", x=("FP32", x.shape, x.tobytes()))["y"]
    assert (datatype, shape) == ("FP32", [1, 2])
    assert np.frombuffer(data, "<f4").tolist() == [2, 3]


def test_the_printed_client_gets_a_typed_error_and_goes_on(printed: Infer) -> None:
    with pytest.raises(RuntimeError, match="NOT_FOUND"):
        printed("nobody", x=("BYTES", [], b"\0\0\0\0"))
    assert printed("adder", x=("FP32", [0], b""))["y"] == ("FP32", [0], b"")


def test_our_own_client_gets_the_same(endpoint: str) -> None:
    x: Array = np.array([1], np.float32)
    with Client(endpoint) as client:
        client.wait_ready("adder", timeout=20)
        results: list[Result] = [client.infer("adder", {"x": x}) for _ in range(10)]
        pending = [client.submit("adder", {"x": x}) for _ in range(50)]
        results += [each.result() for each in pending]
        assert client.ready()
        assert client.live()
        assert [model.name for model in client.models()] == ["adder"]
    assert all(result["y"].tolist() == [2] for result in results)
