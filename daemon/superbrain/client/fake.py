"""A superbrain host for your own tests: a real gateway socket that answers from Python functions.

>>> from superbrain.client import Client
>>> from superbrain.client.fake import FakeModel, FakeServer
>>> def classify(request):
...     return {"label": "upright" if request["threshold"] < 1 else "unsure"}
>>> model = FakeModel(classify, {"image": "BYTES[]", "threshold": "FP32[]"}, {"label": "BYTES[]"})
>>> with FakeServer({"orientation": model}) as server, Client(server.endpoint) as client:
...     client.infer("orientation", {"image": b"jpeg", "threshold": 0.5}).text("label")
'upright'

The function is called as a bundle's pipeline is: inputs by name, a BYTES tensor of shape [] as
plain `bytes`, everything else as numpy arrays; it gives outputs by name. What it raises is answered
as an error: a `RequestError` as itself, anything else as INTERNAL. Requests are checked against
the declared interface as the real host does it. They are executed one after the other in a thread.
"""

from __future__ import annotations

import dataclasses
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec
import zmq

from superbrain.client.blocking import DEFAULT_TIMEOUT_S, Client
from superbrain.client.fake_model import FakeModel, Function, parse_tensor
from superbrain.wire import messages
from superbrain.wire.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    RequestError,
    Unavailable,
)
from superbrain.wire.trace_context import EXTENSION

__all__ = ["FakeClient", "FakeModel", "FakeServer", "SeenRequest", "parse_tensor"]

Reply = tuple[msgspec.Struct, Sequence[bytes | memoryview]]


@dataclasses.dataclass(frozen=True)
class SeenRequest:
    """One inference request as the server received it, for assertions."""

    model: str
    inputs: dict[str, Any]
    parameters: messages.RequestParameters
    id: str


class FakeServer:
    """A gateway in a thread of this process, on an `ipc://` socket of its own.

    Args:
        models: by name; a bare function stands for a model without a declared interface.
        endpoint: where to listen; default is a fresh path in the temporary folder.

    Attributes:
        endpoint: what to give to `Client`.
        models: may be changed between requests, to make one appear, vanish or become unready.
        requests: the inference requests received so far.
    """

    def __init__(
        self, models: Mapping[str, FakeModel | Function], endpoint: str | None = None
    ) -> None:
        self.models = {
            name: model if isinstance(model, FakeModel) else FakeModel(model)
            for name, model in models.items()
        }
        self.requests: list[SeenRequest] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if endpoint is None:
            self._folder = tempfile.TemporaryDirectory(prefix="superbrain-fake-")
            endpoint = f"ipc://{self._folder.name}/infer.sock"
        self.endpoint = endpoint
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.set(zmq.SNDHWM, 0)
        self._router.bind(self.endpoint)
        self._stop, self._stopped = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        self._stopped.bind("inproc://stop")
        self._stop.connect("inproc://stop")
        self._thread = threading.Thread(target=self._serve, name="superbrain-fake", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering and remove the socket; may be called twice."""
        if not self._context.closed:
            self._stop.send(b"")
            self._thread.join()
            self._context.destroy(linger=0)
            if self._folder is not None:
                self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._stopped, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._stopped in ready:
                return
            self._answer(self._router.recv_multipart())

    def _answer(self, frames: list[bytes]) -> None:
        """Send the reply, through the same delimiter as the request came with."""
        address, *message = frames
        route = [address]
        if message and not message[0]:
            route.append(message.pop(0))
        try:
            header, tensors = self._reply(message)
            first = messages.PROTOCOL + messages.RESULT
            self._router.send_multipart([*route, first, msgspec.json.encode(header), *tensors])
        except RequestError as error:
            first = messages.PROTOCOL + messages.ERROR
            request_id = messages.salvage_id(message[1]) if len(message) > 1 else ""
            error_header = messages.encode_error(error, request_id)
            self._router.send_multipart([*route, first, error_header])

    def _reply(self, message: list[bytes]) -> Reply:
        if len(message) < 2 or not message[0].startswith(messages.PROTOCOL):
            msg = f"expected {messages.PROTOCOL!r}+verb and a header, found {message[:1]!r}"
            raise InvalidArgument(msg)
        verb, header = message[0][len(messages.PROTOCOL) :], message[1]
        if verb == messages.INFER:
            request = messages.decode_header(header, _REQUEST, "an inference request")
            return self._infer(request, message[2:])
        if verb in {messages.MODEL_METADATA, messages.MODEL_READY}:
            query = messages.decode_header(header, _QUERY, "a question about a model")
            return self._about_model(verb, query), []
        server_query = messages.decode_header(header, _SERVER_QUERY, "a question to the server")
        return self._about_server(verb, server_query.id), []

    def _infer(self, request: messages.InferRequest, tensors: list[bytes]) -> Reply:
        started = time.monotonic()
        model = self._find(request.model_name, request.model_version)
        if not model.ready:
            msg = f"model {request.model_name!r} is not ready: {model.reason}"
            raise Unavailable(msg)
        inputs = model.decode(request, tensors)
        seen = SeenRequest(request.model_name, inputs, request.parameters, request.id)
        self.requests.append(seen)
        outputs = model.run(request.model_name, inputs)
        timeout_ms = request.parameters.timeout_ms
        if timeout_ms and time.monotonic() - started > timeout_ms / 1000:
            msg = f"expected an answer within {timeout_ms} ms, found more time gone"
            raise DeadlineExceeded(msg)
        return model.encode(request, outputs)

    def _about_model(self, verb: bytes, query: messages.ModelQuery) -> msgspec.Struct:
        model = self._find(query.model_name, query.model_version)
        if verb == messages.MODEL_READY:
            return messages.ModelReady(query.model_name, model.ready, model.reason, query.id)
        return msgspec.structs.replace(model.metadata(query.model_name), id=query.id)

    def _about_server(self, verb: bytes, request_id: str) -> msgspec.Struct:
        if verb == messages.SERVER_LIVE:
            return messages.ServerLive(live=True, id=request_id)
        if verb == messages.SERVER_METADATA:
            return messages.ServerMetadata("superbrain-fake", "0", [EXTENSION], request_id)
        if verb == messages.MODEL_LIST:
            summaries = [
                messages.ModelSummary(name, model.version, model.ready, model.reason)
                for name, model in self.models.items()
            ]
            return messages.ModelList(summaries, request_id)
        msg = f"expected a verb of this protocol, found {verb!r}"
        raise InvalidArgument(msg)

    def _find(self, name: str, version: str) -> FakeModel:
        model = self.models.get(name)
        if model is None or version not in {"", model.version}:
            known = ", ".join(f"{n} {m.version}" for n, m in self.models.items()) or "none"
            msg = f"expected a model this server has ({known}), found {name!r} {version}".rstrip()
            raise NotFound(msg)
        return model


class FakeClient(Client):
    """A `Client` that brings its own `FakeServer`, as `fake`.

    >>> with FakeClient({"double": lambda request: {"y": request["x"] * 2}}) as client:
    ...     client.infer("double", {"x": b"ab"}).text("y")
    'abab'
    """

    def __init__(
        self, models: Mapping[str, FakeModel | Function], timeout: float = DEFAULT_TIMEOUT_S
    ) -> None:
        self.fake = FakeServer(models)
        super().__init__(self.fake.endpoint, timeout)

    def close(self) -> None:
        super().close()
        self.fake.close()


_REQUEST = msgspec.json.Decoder(messages.InferRequest)
_QUERY = msgspec.json.Decoder(messages.ModelQuery)
_SERVER_QUERY = msgspec.json.Decoder(messages.ServerQuery)
