"""Control messages survive any split of the stream; garbage is a typed error."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superbrain.domain import ctl
from superbrain.domain.proof import OutputFigures, Proof

FROM_WORKER: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ctl.FromWorker)
MESSAGES = [
    ctl.Loaded("onnxruntime 1"),
    ctl.Proven(Proof("r", [OutputFigures("c", "y", "", True, "exact")], [])),
    ctl.Failed("INTERNAL", "expected, found", "mend", bundle_at_fault=True),
    ctl.Done(),
    ctl.WorkerPong(requests=3, latency_ms=ctl.Quantiles(1, 2, 3, 4)),
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(MESSAGES), max_size=8), st.integers(1, 50))
def test_any_split_gives_the_same_messages(messages: list[ctl.Message], step: int) -> None:
    stream = b"".join(map(ctl.encode_message, messages))
    buffer = ctl.MessageBuffer(FROM_WORKER)
    received: list[ctl.Message] = []
    for start in range(0, len(stream), step):
        received += buffer.feed(stream[start : start + step])
    assert received == messages


@pytest.mark.parametrize(
    "data",
    [
        ctl.LENGTH.pack(ctl.MAX_MESSAGE_BYTES + 1),
        ctl.LENGTH.pack(1) + b"\xc1",
        ctl.LENGTH.pack(0),
        ctl.encode_message(ctl.Unroute("m")),  # nothing that a worker says
    ],
)
def test_what_is_no_message_of_this_channel_is_refused(data: bytes) -> None:
    with pytest.raises(ctl.CtlError):
        ctl.MessageBuffer(FROM_WORKER).feed(data)
