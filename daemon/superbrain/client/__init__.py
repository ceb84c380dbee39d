"""Ask a superbrain host for answers.

>>> from pathlib import Path
>>> from superbrain.client import Client
>>> with Client() as client:                                            # doctest: +SKIP
...     result = client.infer("orientation", {"image": Path("page.jpg")})
...     print(result.model_version, result.text("label"), result["scores"])
1.2.0 upright [0.97 0.01 0.01 0.01]

`AsyncClient` is the same for asyncio; `superbrain.client.fake` has a server for your own tests.
Every error is a `SuperbrainError` that says what was expected, what was found, and what to do.
The protocol itself is short: docs/protocol.md. It stands on `superbrain.wire` and
`superbrain.transport` alone.
"""

from superbrain.client.asynchronous import AsyncClient
from superbrain.client.blocking import Client
from superbrain.client.buffers import AsyncBuffers, Buffers
from superbrain.client.connection import Cancelled, ClientClosed, Pending
from superbrain.client.endpoint import CurveKeys
from superbrain.client.result import Result
from superbrain.wire.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    RequestError,
    ResourceExhausted,
    SuperbrainError,
    Unavailable,
)
from superbrain.wire.messages import InterfaceTensor, ModelMetadata, ModelSummary, ServerMetadata

__all__ = [
    "AsyncBuffers",
    "AsyncClient",
    "Buffers",
    "Cancelled",
    "Client",
    "ClientClosed",
    "CurveKeys",
    "DeadlineExceeded",
    "InterfaceTensor",
    "Internal",
    "InvalidArgument",
    "ModelMetadata",
    "ModelSummary",
    "NotFound",
    "Pending",
    "RequestError",
    "ResourceExhausted",
    "Result",
    "ServerMetadata",
    "SuperbrainError",
    "Unavailable",
]
