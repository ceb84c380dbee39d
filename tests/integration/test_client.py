"""The client over real sockets, request by request."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from superbrain.client import (
    Client,
    Internal,
    InvalidArgument,
    NotFound,
    RequestError,
    ResourceExhausted,
)
from superbrain.client.fake import FakeClient, FakeModel, FakeServer
from tests.support.fake_servers import MODELS, client, echo, number, number_of, raising, server

__all__ = ["client", "server"]
pytestmark = pytest.mark.integration


def test_bytes_go_in_and_come_out(client: Client) -> None:
    result = client.infer("label", {"image": b"abc"})
    assert result.text("label") == "cba"
    assert result.model_version == "1.0.0"


def test_a_list_takes_the_datatype_of_the_interface(client: Client, server: FakeServer) -> None:
    assert client.infer("typed", {"x": [1, 2.5]})["y"].dtype == np.float32
    assert server.requests[-1].inputs["x"].dtype == np.float32


def test_an_array_of_another_dtype_is_refused_by_the_server(client: Client) -> None:
    with pytest.raises(InvalidArgument, match=r"expected FP32\[-1\], found FP64\[2\]"):
        client.infer("typed", {"x": np.array([1, 2.5])})


def test_a_new_version_with_another_interface_is_noticed(
    client: Client, server: FakeServer
) -> None:
    client.infer("typed", {"x": [1]})
    server.models["typed"] = FakeModel(echo, {"x": "INT64[-1]"}, version="3.0.0")
    assert client.infer("typed", {"x": [1]})["y"].dtype == np.int64


def test_large_tensors_arrive_whole_and_writable(client: Client) -> None:
    array = np.random.default_rng(0).random((3, 1000, 1000))
    y = client.infer("echo", {"x": array})["y"]
    assert np.array_equal(y, array)
    y += 1


def test_timeout_and_priority_travel_with_the_request(client: Client, server: FakeServer) -> None:
    client.infer("echo", number(1), timeout=5, priority=3)
    parameters = server.requests[-1].parameters
    assert parameters.priority == 3
    assert 4000 < parameters.timeout_ms <= 5000


def test_the_server_can_be_asked_about_itself_and_its_models(client: Client) -> None:
    assert client.live()
    assert client.server().name == "superbrain-fake"
    assert [model.name for model in client.models()] == list(MODELS)
    assert client.metadata("typed").inputs[0].shape == [-1]
    assert client.ready("echo")
    assert not client.ready("proving")
    assert not client.ready("unknown")
    assert not client.ready()


@pytest.mark.parametrize("error", [ResourceExhausted("full"), NotFound("none"), Internal("broken")])
def test_errors_arrive_as_what_they_were(
    client: Client, server: FakeServer, error: RequestError
) -> None:
    error.mend = "slow down"
    server.models["echo"] = FakeModel(raising(error))
    with pytest.raises(type(error), match=f"{error.message}. slow down"):
        client.infer("echo", number(1))


def test_a_bug_in_the_model_is_internal(client: Client, server: FakeServer) -> None:
    server.models["echo"] = FakeModel(raising(ValueError("bug")))
    with pytest.raises(Internal, match="ValueError: bug"):
        client.infer("echo", number(1))


MISUSES: dict[str, dict[str, Any]] = {
    "inputs without names": {"inputs": [np.zeros(1, "f4")]},
    "no inputs": {"inputs": None},
    "timeout": {"timeout": "3"},
    "priority": {"priority": 2.5},
    "outputs": {"outputs": "y"},
    "model": {"model": "\ud800"},
    "text": {"model": "echo", "inputs": {"x": "\ud800"}},
    "objects": {"inputs": {"x": np.array([1], object)}},
}


@pytest.mark.parametrize("name", MISUSES)
def test_what_no_request_can_say_is_an_invalid_argument(client: Client, name: str) -> None:
    usual: dict[str, Any] = {"model": "typed", "inputs": {"x": np.zeros(1, "f4")}}
    for _ in range(3):  # also where a request like it has been answered
        with pytest.raises(InvalidArgument):
            client.infer(**usual | MISUSES[name])
        assert client.infer(**usual)["y"].tolist() == [0]


def test_a_client_without_a_timeout_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"timeout above 0 seconds .* found None"):
        Client(timeout=None)  # type: ignore[arg-type]


def test_a_fake_client_brings_its_own_server() -> None:
    with FakeClient({"double": lambda request: {"y": request["x"] * 2}}) as client:
        assert number_of(client.infer("double", number(4))) == 8
        assert client.fake.requests[0].model == "double"
