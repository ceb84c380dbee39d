"""`AsyncClient`: the same questions with `await`, on the running event loop, without a thread."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from superbrain.client import calls, conversation, tracing
from superbrain.client.blocking import DEFAULT_TIMEOUT_S, checked_timeout
from superbrain.client.buffers import AsyncBuffers
from superbrain.client.connection import ClientClosed
from superbrain.client.conversation import Conversation, Inference, Interfaces, Pause
from superbrain.client.endpoint import CurveKeys, choose_endpoint
from superbrain.client.ledger import Exchange
from superbrain.client.link import Link
from superbrain.client.region import Region
from superbrain.client.result import Result
from superbrain.wire.errors import RequestError
from superbrain.wire.messages import ModelMetadata, ModelSummary, ServerMetadata

T = TypeVar("T")


class AsyncClient:
    """`Client` for asyncio: same arguments, methods, errors and resending after a lost connection.

    It belongs to the event loop of its first request. Any number of tasks may ask at once; start
    one with `asyncio.create_task(client.infer(...))` where `Client` would `submit`. A cancelled
    task forgets its request.

    >>> async with AsyncClient() as client:    # doctest: +SKIP
    ...     result = await client.infer("orientation", {"image": jpeg})
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
        self._interfaces = Interfaces()
        self._link = Link(self.endpoint, curve, lanes=lanes)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._waiting: dict[Exchange, asyncio.Future[None]] = {}
        self._closed = False
        self._retry: asyncio.TimerHandle | None = None

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        version: str = "",
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels to the server
        priority: int = 0,
        traceparent: str | None = None,
    ) -> Result:
        """Ask for one inference; arguments as for `Client.infer`.

        The inputs are copied when this is first awaited.
        """
        wanted = Inference(model, inputs, version, outputs, priority)
        if not (traceparent or tracing.in_use()):
            return await self._infer(wanted, timeout)
        with tracing.asking(model, traceparent) as trace:
            return await self._infer(wanted._replace(traceparent=trace), timeout)

    async def _infer(self, wanted: Inference, timeout: float | None) -> Result:  # noqa: ASYNC109
        if self._retry_unavailable:
            talk = conversation.retry_unavailable(wanted, self._interfaces)
        else:
            talk = self._interfaces.infer(wanted)
        return await self._drive(talk, timeout)

    async def infer_many(
        self,
        model: str,
        inputs: Iterable[Mapping[str, Any]],
        *,
        window: int = 16,
        version: str = "",
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
        priority: int = 0,
    ) -> AsyncIterator[Result]:
        """Infer for each item, up to `window` at once; yield the results in the items' order."""
        tasks: deque[asyncio.Task[Result]] = deque()
        try:
            for item in inputs:
                request = self.infer(
                    model,
                    item,
                    version=version,
                    outputs=outputs,
                    timeout=timeout,
                    priority=priority,
                )
                tasks.append(asyncio.create_task(request))
                if len(tasks) >= window:
                    yield await tasks.popleft()
            while tasks:
                yield await tasks.popleft()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def buffers(
        self,
        model: str,
        *,
        outputs: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109
        **shapes: Sequence[int],
    ) -> AsyncBuffers:
        """Give arrays in shared memory for the inputs of `model`; as `Client.buffers`."""
        interface = await self.metadata(model, timeout=timeout)
        return AsyncBuffers(self, interface, shapes, outputs=outputs)

    async def ask_shared(
        self,
        call: calls.Call[Result],
        timeout: float | None,  # noqa: ASYNC109
    ) -> Result:
        """Ask what `AsyncBuffers` has prepared."""
        return await self._ask(call, self._deadline(timeout))

    async def trace(self, traceparent: str, timeout: float | None) -> str:  # noqa: ASYNC109
        """Give the `traceparent` that `AsyncBuffers` may send to this host."""
        if not traceparent:
            return ""
        return await self._drive(self._interfaces.trace(traceparent), timeout)

    def release(self, regions: Sequence[Region]) -> None:
        """Let go of shared memory of `AsyncBuffers`."""
        self._used().release(regions)

    async def models(self, *, timeout: float | None = None) -> list[ModelSummary]:  # noqa: ASYNC109
        """List the models: name, version, whether ready, and if not why."""
        return (await self._ask(calls.model_list(), self._deadline(timeout))).models

    async def metadata(
        self,
        model: str,
        *,
        version: str = "",
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> ModelMetadata:
        """Give the model's interface: names, datatypes and shapes (-1: any size) of its tensors."""
        return await self._ask(calls.model_metadata(model, version), self._deadline(timeout))

    async def server(self, *, timeout: float | None = None) -> ServerMetadata:  # noqa: ASYNC109
        """Give the server's name, version and protocol extensions."""
        return await self._ask(calls.server_metadata(), self._deadline(timeout))

    async def live(self, *, timeout: float | None = None) -> bool:  # noqa: ASYNC109
        """Tell whether a gateway answers; false also when nobody listens."""
        return await self._drive(conversation.live(), timeout)

    async def ready(
        self,
        model: str | None = None,
        *,
        version: str = "",
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> bool:
        """Tell whether a proven process serves `model` now; without a name, all of them."""
        return await self._drive(conversation.ready(model, version), timeout)

    async def wait_ready(
        self,
        model: str,
        timeout: float | None = None,  # noqa: ASYNC109
        *,
        version: str = "",
    ) -> None:
        """Return when `model` is ready; `DeadlineExceeded` if it was not in time."""
        await self._drive(conversation.wait_ready(model, version), timeout)

    def close(self) -> None:
        """End what is under way with `ClientClosed` and release the socket; may be called twice."""
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        error = ClientClosed("the client was closed while the request was under way")
        self._wake(self._link.fail_all(error))
        if self._retry is not None:
            self._retry.cancel()
        if self._loop is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._link.fd)
            self._link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def _drive(self, talk: Conversation[T], timeout: float | None) -> T:  # noqa: ASYNC109
        deadline = self._deadline(timeout)
        try:
            step = next(talk)
            while True:
                if isinstance(step, Pause):
                    step = talk.send(await _pause(step.seconds, deadline))
                    continue
                try:
                    answer = await self._ask(step, deadline)
                except RequestError as error:
                    step = talk.throw(error)
                else:
                    step = talk.send(answer)
        except StopIteration as end:
            value: T = end.value
            return value

    async def _ask(self, call: calls.Call[T], deadline: float) -> T:
        loop = self._ready_loop()
        exchange = Exchange(call.detached(), deadline)
        future: asyncio.Future[None] = loop.create_future()
        self._waiting[exchange] = future
        timer: asyncio.TimerHandle | None = None
        try:
            self._send(loop, exchange)
            if not exchange.settled:
                timer = self._set_timer(loop, exchange)
                await future
        finally:
            if timer is not None:
                timer.cancel()
            self._waiting.pop(exchange, None)
            self._link.ledger.forget(exchange)
            exchange.settled = True  # also when the task was cancelled: a late answer is dropped
        answer: T = exchange.outcome()
        return answer

    def _ready_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._closed or self._pid != os.getpid() or self._loop not in {None, loop}:
            msg = "expected the open client's own process and event loop, found another or none"
            raise ClientClosed(msg, mend="Make a new AsyncClient there")
        if not self._link.ever_connected:
            self._link.open()
            self._loop = loop
            loop.add_reader(self._link.fd, self._on_news)
        return loop

    def _send(self, loop: asyncio.AbstractEventLoop, exchange: Exchange) -> None:
        try:
            self._wake(self._used().send(exchange))
        except BaseException:
            loop.call_soon(self._come_back)
            raise

    def _on_news(self) -> None:
        if self._closed:
            return
        try:
            self._wake(self._used().pump(self._link.poll(0)))
        except BaseException:
            if self._loop is not None:
                self._loop.call_soon(self._come_back)
            raise

    def _come_back(self) -> None:
        """Go on after an exception, which may have kept somebody from being woken."""
        self._wake([exchange for exchange in self._waiting if exchange.settled])
        self._on_news()

    def _used(self) -> Link:
        """Give the link to whoever uses it, which starts over where somebody was interrupted."""
        if self._link.torn:
            self._link.start_over()
        return self._link

    def _wake(self, settled: list[Exchange]) -> None:
        for exchange in settled:
            future = self._waiting.get(exchange)
            if future is not None and not future.done():
                future.set_result(None)
            self._waiting.pop(exchange, None)
        retry_at = self._link.retry_at
        if retry_at is not None and self._retry is None and self._loop is not None:
            self._retry = self._loop.call_later(retry_at - time.monotonic(), self._on_retry)

    def _on_retry(self) -> None:
        self._retry = None
        self._on_news()

    def _set_timer(
        self, loop: asyncio.AbstractEventLoop, exchange: Exchange
    ) -> asyncio.TimerHandle | None:
        left = exchange.deadline - time.monotonic()
        return loop.call_later(left, self._expire, exchange) if left < 1 << 31 else None

    def _expire(self, exchange: Exchange) -> None:
        if not exchange.settled:
            self._link.ledger.forget(exchange)
            exchange.fail(self._link.overdue(exchange))
            self._wake([exchange])

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self.timeout if timeout is None else checked_timeout(timeout))


async def _pause(seconds: float, deadline: float) -> bool:
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    await asyncio.sleep(min(seconds, left))
    return left > seconds
