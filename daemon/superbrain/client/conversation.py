"""What takes more than one question: interfaces, retries, waiting until a model is ready. No I/O.

A conversation is a generator. It yields a `Call` and is sent the answer, or thrown the
`RequestError` it ended with; or it yields a `Pause` and is sent whether the deadline leaves time
for more. `Client` and `AsyncClient` each drive the same conversations in their own way.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from superbrain.client import calls
from superbrain.client.arrays import Unsendable, check_inputs, needs_interface
from superbrain.client.result import Result
from superbrain.wire.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    RequestError,
    Unavailable,
)
from superbrain.wire.messages import ModelMetadata, ServerMetadata
from superbrain.wire.trace_context import EXTENSION

T = TypeVar("T")

FIRST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 0.5


class Pause(NamedTuple):
    """Let `seconds` pass."""

    seconds: float


Conversation: TypeAlias = Generator[calls.Call[Any] | Pause, Any, T]


class Inference(NamedTuple):
    """What a caller wants inferred, as the caller gave it."""

    model: str
    inputs: Mapping[str, Any]
    version: str = ""
    outputs: Sequence[str] | None = None
    priority: int = 0
    traceparent: str = ""

    def call(self, interface: ModelMetadata | None = None) -> calls.Call[Result]:
        """Build the call; see `calls.infer`."""
        return calls.infer(
            self.model,
            self.inputs,
            version=self.version,
            outputs=self.outputs,
            priority=self.priority,
            interface=interface,
            traceparent=self.traceparent,
        )


class Interfaces:
    """What is known of the host, until it is outdated.

    The interfaces of models that inputs had to be converted by; and whether it takes traces, which
    hosts before `traceparent` refuse.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], ModelMetadata] = {}
        self._takes_traces: bool | None = None

    @property
    def takes_traces(self) -> bool:
        """Whether the host is known to take `traceparent`."""
        return self._takes_traces is True

    def trace(self, traceparent: str, *, anew: bool = False) -> Conversation[str]:
        """Give the `traceparent` to send: none to a host that would refuse the request for it."""
        if traceparent and (self._takes_traces is None or anew):
            server: ServerMetadata = yield calls.server_metadata()
            self._takes_traces = EXTENSION in server.extensions
        return traceparent if self._takes_traces else ""

    def prepare(self, wanted: Inference) -> Conversation[calls.Call[Result]]:
        """Build the call, asking for the model's interface where a value needs it."""
        if wanted.traceparent:
            traceparent = yield from self.trace(wanted.traceparent)
            wanted = wanted._replace(traceparent=traceparent)
        check_inputs(wanted.inputs)
        key = (wanted.model, wanted.version)
        if not needs_interface(wanted.inputs.values()):
            try:
                return wanted.call()
            except Unsendable as error:
                try:
                    interface = yield calls.model_metadata(*key)
                except RequestError:
                    raise error from None
                return wanted.call(interface)
        interface = self._known.get(key)
        if interface is None:
            interface = yield calls.model_metadata(*key)
            self._known[key] = interface
        return wanted.call(interface)

    def infer(self, wanted: Inference) -> Conversation[Result]:
        """Ask; if inputs converted by a remembered interface do not fit, ask by a fresh one."""
        key = (wanted.model, wanted.version)
        remembered = self._known.get(key)
        try:
            result: Result = yield (yield from self.prepare(wanted))
            return result
        except InvalidArgument:
            if (
                wanted.traceparent
                and self._takes_traces
                and not (yield from self.trace(wanted.traceparent, anew=True))
            ):  # another host, before traces, is behind the endpoint now
                return (yield from self.infer(wanted._replace(traceparent="")))
            if remembered is None or not needs_interface(wanted.inputs.values()):
                raise
            self._known[key] = yield calls.model_metadata(*key)
            if _same_inputs(self._known[key], remembered):
                raise
        result = yield (yield from self.prepare(wanted))
        return result


def retry_unavailable(wanted: Inference, interfaces: Interfaces) -> Conversation[Result]:
    """Infer, and as long as nobody can answer, again; the last `Unavailable` is raised."""
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return (yield from interfaces.infer(wanted))
        except Unavailable:
            if not (yield Pause(pause_s)):
                raise
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def live() -> Conversation[bool]:
    """Ask whether a gateway answers."""
    try:
        return bool((yield calls.server_live()).live)
    except (Unavailable, DeadlineExceeded):
        return False


def ready(model: str | None, version: str = "") -> Conversation[bool]:
    """Ask whether a model, or without one every model there is, is served by a proven process."""
    try:
        if model is None:
            return all(summary.ready for summary in (yield calls.model_list()).models)
        return bool((yield calls.model_ready(model, version)).ready)
    except (Unavailable, NotFound, DeadlineExceeded):
        return False


def wait_ready(model: str, version: str = "") -> Conversation[None]:
    """Ask until the model is ready; `DeadlineExceeded` says why it is not."""
    pause_s, reason = FIRST_PAUSE_S, ""
    while True:
        try:
            answer = yield calls.model_ready(model, version)
        except DeadlineExceeded as error:  # the last question came too late to be answered
            if not reason:
                raise
            raise _not_ready(model, reason) from error
        except (Unavailable, NotFound) as error:
            reason = str(error)
        else:
            if answer.ready:
                return
            reason = answer.reason or "the server gives no reason"
        if not (yield Pause(pause_s)):
            raise _not_ready(model, reason)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _not_ready(model: str, reason: str) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"model {model!r} was not ready in time: {reason}",
        mend="`superbrain status` shows where its rollout stands",
    )


def _same_inputs(one: ModelMetadata, other: ModelMetadata) -> bool:
    return one.inputs == other.inputs
