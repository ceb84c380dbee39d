"""The verbs that the gateway answers itself: who is served here, and is it ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

import msgspec

import superbrain
from superbrain.serve.directory import Directory, ModelRoute, SlotT
from superbrain.wire import trace_context
from superbrain.wire.errors import InvalidArgument, NotFound, RequestError
from superbrain.wire.messages import (
    ERROR,
    INFER,
    MODEL_LIST,
    MODEL_METADATA,
    MODEL_READY,
    RESOLVE,
    RESULT,
    SERVER_LIVE,
    SERVER_METADATA,
    ModelList,
    ModelQuery,
    ModelReady,
    ModelSummary,
    Resolved,
    ServerLive,
    ServerMetadata,
    ServerQuery,
    decode_header,
    encode_error,
    salvage_id,
)

if TYPE_CHECKING:
    from superbrain.serve.peer import ClientMessage
    from superbrain.wire.lane import Data

_MODEL = msgspec.json.Decoder(ModelQuery)
_SERVER = msgspec.json.Decoder(ServerQuery)
_EXTENSIONS = ["binary_tensor_data", "lanes", trace_context.EXTENSION]
_VERBS = b" ".join(
    (INFER, MODEL_METADATA, MODEL_LIST, SERVER_METADATA, SERVER_LIVE, MODEL_READY, RESOLVE)
)
_NO_WORKER = "no proven worker is connected right now"


class Queries(Generic[SlotT]):
    """Answers about the directory."""

    def __init__(self, directory: Directory[SlotT]) -> None:
        self._directory = directory

    def answer(self, message: ClientMessage) -> tuple[bytes, bytes]:
        """Give verb and header of the reply."""
        try:
            return RESULT, self._answer(message.verb, message.header)
        except RequestError as error:
            return ERROR, encode_error(error, salvage_id(message.header))

    def _answer(self, verb: bytes, header: Data) -> bytes:
        if verb == MODEL_METADATA:
            query = decode_header(header, _MODEL, "a model metadata request")
            metadata = self._find(query).metadata
            return msgspec.json.encode(msgspec.structs.replace(metadata, id=query.id))
        if verb == MODEL_READY:
            query = decode_header(header, _MODEL, "a model ready request")
            route = self._find(query)
            ready = ModelReady(route.name, route.ready, _reason(route), query.id)
            return msgspec.json.encode(ready)
        if verb == RESOLVE:
            query = decode_header(header, _MODEL, "a resolve request")
            route = self._find(query)
            return msgspec.json.encode(Resolved(route.name, route.version, _lanes(route), query.id))
        if verb not in {SERVER_LIVE, SERVER_METADATA, MODEL_LIST}:
            raise InvalidArgument(f"expected a verb among {_VERBS!r}, found {verb!r}")
        request_id = decode_header(header, _SERVER, "a server request").id
        if verb == SERVER_LIVE:
            return msgspec.json.encode(ServerLive(live=True, id=request_id))
        if verb == SERVER_METADATA:
            return msgspec.json.encode(
                ServerMetadata("superbrain", superbrain.__version__, _EXTENSIONS, request_id)
            )
        models = [
            ModelSummary(route.name, route.version, route.ready, _reason(route))
            for route in self._directory
        ]
        return msgspec.json.encode(ModelList(models, request_id))

    def _find(self, query: ModelQuery) -> ModelRoute[SlotT]:
        route = self._directory.find(query.model_name)
        if query.model_version and query.model_version != route.version:
            raise NotFound(
                f"model {route.name!r}: expected version {route.version!r}, the one that serves, "
                f"found {query.model_version[:100]!r}"
            )
        return route


def _lanes(route: ModelRoute[SlotT]) -> list[str]:
    """Give the lanes that callers may use: none of a version that is being left, or not served."""
    return [slot.address.path for slot in route.slots if slot.ready and not route.reason]


def _reason(route: ModelRoute[SlotT]) -> str:
    return "" if route.ready else route.reason or route.why_waiting or _NO_WORKER
