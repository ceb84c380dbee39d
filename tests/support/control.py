"""A control server for tests: the real socket and the real structures, with prepared answers.

with ControlServer(tmp_path / "control.sock", {GetHealth: HealthReply(health)}) as server:
    ControlClient(server.endpoint).ask(GetHealth(), HealthReply)
assert server.asked == [GetHealth()]
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import zmq

from superbrain.domain.operations import AnyOperation, AnyReply, Operation, Refusal, Reply

Answer = Reply | bytes | Callable[[AnyOperation], AnyReply]


class ControlServer:
    """Answers each kind of operation with what was prepared for it; everything else is refused.

    An answer is a reply, a function from the operation to one, or raw bytes to misbehave with.
    """

    def __init__(self, path: Path, answers: Mapping[type[Operation], Answer]) -> None:
        self.endpoint = f"ipc://{path}"
        self.asked: list[AnyOperation] = []
        self._answers = answers
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(self.endpoint)
        self._thread = threading.Thread(target=self._serve, name="control-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it; doing so twice does no harm."""
        self._context.term()  # returns once the thread has closed its socket
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                question = self._socket.recv()
            except zmq.ContextTerminated:
                self._socket.close()
                return
            self._socket.send(self._answer(question))

    def _answer(self, question: bytes) -> bytes:
        operation: AnyOperation = msgspec.json.decode(question, type=AnyOperation)
        self.asked.append(operation)
        refusal = Refusal("NOT_FOUND", f"no answer is prepared for {operation!r}")
        answer = self._answers.get(type(operation), refusal)
        if isinstance(answer, bytes):
            return answer
        return msgspec.json.encode(answer(operation) if callable(answer) else answer)
