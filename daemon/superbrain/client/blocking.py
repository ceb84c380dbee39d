"""`Client`: ask a superbrain host for answers from ordinary, possibly many-threaded, code."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from superbrain.client import calls, conversation, tracing
from superbrain.client.alike import Alike, LastShared
from superbrain.client.arrays import Unsendable, check_inputs, needs_interface
from superbrain.client.buffers import Buffers
from superbrain.client.connection import Begun, ClientClosed, Connection, Pending
from superbrain.client.conversation import Conversation, Inference, Interfaces, Pause
from superbrain.client.endpoint import CurveKeys, choose_endpoint
from superbrain.client.region import Region
from superbrain.client.result import Result
from superbrain.wire.errors import InvalidArgument, RequestError
from superbrain.wire.messages import ModelMetadata, ModelSummary, ServerMetadata
from superbrain.wire.trace_context import NOT_RECORDED

T = TypeVar("T")

DEFAULT_TIMEOUT_S = 30.0


class Client:
    """One program's way to its superbrain host; safe to share between threads and across forks.

    All threads share one connection, on which any number of requests may be under way. No thread is
    started and nothing is connected before the first request; a forked process gets a connection of
    its own. Numpy arrays, bytes, str, paths and (lists of) numbers go in, numpy arrays come out:
    see `client.arrays`.

    When the gateway goes away, requests without an answer are sent again as soon as it is back,
    until their deadline: an inference has no side effects. An answer `UNAVAILABLE` is raised, or
    with `retry_unavailable` asked again by `infer`; `RESOURCE_EXHAUSTED` is always raised, because
    asking again is what a full queue needs least.

    What a signal's handler raises, such as `KeyboardInterrupt`, ends the request that it meets and
    no other; where that was in the middle of something, the client connects anew.

    Args:
        endpoint: `ipc://PATH` or `tcp://HOST:PORT`; default is the environment's
            `SUPERBRAIN_ENDPOINT`, else `ipc:///run/superbrain/infer.sock`.
        timeout: seconds a request may take where a call names none; `math.inf` for no limit of
            this side.
        retry_unavailable: let `infer` wait through "nobody can answer now", also at the start.
        lanes: ask workers directly, around the gateway, where the endpoint is of this host.
        curve: keys, for a gateway behind TCP.

    Raises (every method that asks):
        InvalidArgument: an input does not fit; another request would not help.
        NotFound: no such model or version.
        Unavailable: nobody listens at the endpoint, or nobody serves the model now.
        ResourceExhausted: a queue is full.
        DeadlineExceeded: the timeout has passed.
        Internal: the model or the host failed on this request.
        ClientClosed: this client is closed.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
        *,
        retry_unavailable: bool = False,
        lanes: bool = True,
        curve: CurveKeys | None = None,
    ) -> None:
        self.endpoint = choose_endpoint(endpoint)
        self.timeout = checked_timeout(timeout)
        self._retry_unavailable = retry_unavailable
        self._curve = curve
        self._lanes = lanes
        self._closed = False
        self._interfaces = Interfaces()
        self._alike = Alike()
        self._alike_untraced = Alike()  # of traces that are not recorded
        # By process: a child keeps its parent's entry untouched and adds its own.
        self._connections: dict[int, Connection] = {}
        self._latest: Connection | None = None

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        version: str = "",
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        traceparent: str | None = None,
    ) -> Result:
        """Ask for one inference and wait for it.

        Args:
            model: the model's name.
            inputs: every input by name: an array; bytes, str or a Path for BYTES (a Path sends the
                file's contents); a number or list, which takes the datatype of the interface.
            version: insist on this version; default is the one that serves.
            outputs: names of the outputs wanted; default is all.
            timeout: seconds; it travels with the request, and the host drops what is overdue.
            priority: 0 to 9; higher is served first among those waiting.
            traceparent: the trace it belongs to (W3C Trace Context); default is OpenTelemetry's
                current one, where the program uses that. Empty for none.
        """
        if not (version or outputs or priority or traceparent):  # the usual case
            again = self._ask_again(model, inputs, timeout)
            if again is not None:
                return again
        check_inputs(inputs)
        if traceparent or tracing.in_use():
            with tracing.asking(model, traceparent) as trace:
                wanted = Inference(model, inputs, version, outputs, priority, trace)
                return self._infer(wanted, timeout)
        plain = not (version or outputs or priority or self._retry_unavailable)
        if plain and (last := self._alike.last(model)) is not None:
            connection = self._connection()
            answer = connection.ask_alike(last, inputs, self._deadline(timeout), again=True)
            if answer is not None:
                return answer
        return self._infer(Inference(model, inputs, version, outputs, priority), timeout)

    def _infer(self, wanted: Inference, timeout: float | None) -> Result:
        """Ask the long way, or as before where it may be the same but for the trace."""
        model, inputs, version, outputs, priority, trace = wanted
        if trace and (trace != NOT_RECORDED or not self._interfaces.takes_traces):
            return self._drive(self._long_way(wanted), timeout)
        alike = self._alike_untraced if trace else self._alike
        plain = not (version or outputs or priority or self._retry_unavailable)
        if plain and (last := alike.last(model)) is not None:
            result = self._connection().ask_alike(last, inputs, self._deadline(timeout))
            if result is not None:
                return result
        if self._retry_unavailable or needs_interface(inputs.values()):
            return self._drive(self._long_way(wanted), timeout)
        try:
            call = wanted.call()
        except Unsendable:  # by the interface it can be said what should be
            return self._drive(self._long_way(wanted), timeout)
        if plain:
            alike.remember(call, inputs)
        return self._ask(call, self._deadline(timeout))

    def _long_way(self, wanted: Inference) -> Conversation[Result]:
        if self._retry_unavailable:
            return conversation.retry_unavailable(wanted, self._interfaces)
        return self._interfaces.infer(wanted)

    def submit(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        version: str = "",
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        traceparent: str | None = None,
    ) -> Pending[Result]:
        """Start an inference as `infer` would, and give the handle to its answer.

        The inputs are copied: the caller may change its arrays at once. The timeout counts from
        now. Answers are read while any thread waits on, looks at or sends through this client.
        It is part of the trace of `traceparent`, or of OpenTelemetry's current span.
        """
        deadline = self._deadline(timeout)
        trace = tracing.current() if traceparent is None else traceparent
        wanted = Inference(model, inputs, version, outputs, priority, trace)
        call = self._run(self._interfaces.prepare(wanted), deadline)
        return Pending(self._connection(), call.detached(), deadline)

    def infer_many(
        self,
        model: str,
        inputs: Iterable[Mapping[str, Any]],
        *,
        window: int = 16,
        version: str = "",
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int = 0,
    ) -> Iterator[Result]:
        """Infer for each item, up to `window` at once; yield the results in the items' order.

        The first request that ends with an error ends the iteration with it.
        """
        pending: deque[Pending[Result]] = deque()
        try:
            for item in inputs:
                pending.append(
                    self.submit(
                        model,
                        item,
                        version=version,
                        outputs=outputs,
                        timeout=timeout,
                        priority=priority,
                    )
                )
                if len(pending) >= window:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for rest in pending:
                rest.cancel()

    def buffers(
        self,
        model: str,
        *,
        outputs: bool = True,
        timeout: float | None = None,
        **shapes: Sequence[int],
    ) -> Buffers:
        """Give arrays in shared memory for the inputs of `model`, and the way to infer on them.

        Pays for tensors beyond some 100 KB; see `client.buffers`.

        Args:
            model: the model's name.
            outputs: whether outputs of fixed size come by shared memory too.
            timeout: seconds to ask for the interface.
            shapes: of inputs whose interface leaves a size open.

        Raises:
            InvalidArgument: a shape is missing or does not fit the interface.
        """
        interface = self.metadata(model, timeout=timeout)
        return Buffers(self, interface, shapes, outputs=outputs)

    def ask_shared(
        self, call: calls.Call[Result], last: LastShared | None, timeout: float | None
    ) -> Result:
        """Ask what `Buffers` has prepared; `last` if that may be the same again."""
        if last is not None:
            result = self._ask_again(last, None, timeout)
            if result is not None:
                return result
        return self._connection().ask(call, self._deadline(timeout), last)

    def _ask_again(
        self, key: object, inputs: Mapping[str, Any] | None, timeout: float | None
    ) -> Result | None:
        """Ask by the shortcut of that key; None where there is none, or it has asked nothing."""
        latest = self._latest
        shortcut = latest.shortcuts.get(key) if latest is not None else None
        if shortcut is None or latest is None or tracing.in_use():
            return None
        seconds = self.timeout if timeout is None else checked_timeout(timeout)
        result: object = None
        try:
            result = shortcut.ask(latest, inputs, seconds)
            if isinstance(result, Begun):
                latest.settle(result)
        except BaseException:
            latest.break_off(result.exchange if isinstance(result, Begun) else None)
            raise
        return cast("Result", result.exchange.outcome() if isinstance(result, Begun) else result)

    def trace(self, traceparent: str, timeout: float | None) -> str:
        """Give the `traceparent` that `Buffers` may send to this host."""
        return self._drive(self._interfaces.trace(traceparent), timeout) if traceparent else ""

    def release(self, regions: Sequence[Region]) -> None:
        """Let go of shared memory of `Buffers`."""
        connection = self._connections.get(os.getpid())
        if connection is not None:
            connection.release(regions)
        else:  # a fork: its parent's lanes are not its own
            for region in regions:
                region.close()

    def models(self, *, timeout: float | None = None) -> list[ModelSummary]:
        """List the models: name, version, whether ready, and if not why."""
        return self._ask(calls.model_list(), self._deadline(timeout)).models

    def metadata(
        self, model: str, *, version: str = "", timeout: float | None = None
    ) -> ModelMetadata:
        """Give the model's interface: names, datatypes and shapes (-1: any size) of its tensors."""
        return self._ask(calls.model_metadata(model, version), self._deadline(timeout))

    def server(self, *, timeout: float | None = None) -> ServerMetadata:
        """Give the server's name, version and protocol extensions."""
        return self._ask(calls.server_metadata(), self._deadline(timeout))

    def live(self, *, timeout: float | None = None) -> bool:
        """Tell whether a gateway answers; false also when nobody listens."""
        return self._drive(conversation.live(), timeout)

    def ready(
        self, model: str | None = None, *, version: str = "", timeout: float | None = None
    ) -> bool:
        """Tell whether a proven process serves `model` now; without a name, whether all are ready.

        False, not an error, when there is no such model or nobody answers.
        """
        return self._drive(conversation.ready(model, version), timeout)

    def wait_ready(self, model: str, timeout: float | None = None, *, version: str = "") -> None:
        """Return when `model` is ready; its daemon need not even be running yet.

        Raises:
            DeadlineExceeded: it was not ready in time; the message has the reason.
        """
        self._drive(conversation.wait_ready(model, version), timeout)

    def close(self) -> None:
        """End what is under way with `ClientClosed` and release the socket; may be called twice."""
        self._closed = True
        connection = self._connections.get(os.getpid())
        if connection is not None:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.endpoint}{', closed' if self._closed else ''}>"

    def _drive(self, talk: Conversation[T], timeout: float | None) -> T:
        return self._run(talk, self._deadline(timeout))

    def _run(self, talk: Conversation[T], deadline: float) -> T:
        try:
            step = next(talk)
            while True:
                if isinstance(step, Pause):
                    step = talk.send(_pause(step.seconds, deadline))
                    continue
                try:
                    answer = self._ask(step, deadline)
                except RequestError as error:
                    step = talk.throw(error)
                else:
                    step = talk.send(answer)
        except StopIteration as end:
            value: T = end.value
            return value

    def _ask(self, call: calls.Call[T], deadline: float) -> T:
        return self._connection().ask(call, deadline)

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self.timeout if timeout is None else checked_timeout(timeout))

    def _connection(self) -> Connection:
        pid = os.getpid()
        connection = self._connections.get(pid)
        if connection is None:
            if self._closed:
                raise ClientClosed("the client is closed", mend="Make a new Client")
            # setdefault is atomic, and a connection that loses this race has opened nothing.
            fresh = Connection(self.endpoint, self._curve, lanes=self._lanes)
            connection = self._connections.setdefault(pid, fresh)
        self._latest = connection
        return connection


def checked_timeout(timeout: float) -> float:
    """Give `timeout` (seconds) back.

    Raises:
        InvalidArgument: it is no number above zero.
    """
    try:
        if timeout > 0:
            return float(timeout)
    except (
        TypeError,
        ValueError,
        OverflowError,
    ):  # text, none, an array, a whole number beyond all
        pass
    msg = f"expected a timeout above 0 seconds (math.inf for none), found {timeout!r:.80}"
    raise InvalidArgument(msg)


def _pause(seconds: float, deadline: float) -> bool:
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    time.sleep(min(seconds, left))
    return left > seconds
