"""What a worker serves, as the parts that serve see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from superbrain.domain.manifest import Batching
    from superbrain.domain.proof import Proof, Timing
    from superbrain.engines.port import Bound
    from superbrain.serve.stage_clock import StageClock
    from superbrain.wire.datatypes import Array

    Executing = Callable[[Sequence[int]], None]


class ServedModel(Protocol):
    """What a worker serves: an opened bundle on one rung."""

    @property
    def name(self) -> str:
        """Model name as callers address it."""

    @property
    def version(self) -> str:
        """Version that every answer bears."""

    @property
    def runtime(self) -> str:
        """Library and version that run the graphs."""

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the response tensors, in the manifest's order."""

    @property
    def queue_size(self) -> int:
        """How many requests may wait."""

    @property
    def request_timeout_ms(self) -> int:
        """How long a request may take that does not say so itself."""

    @property
    def batching(self) -> Batching:
        """How requests share runs."""

    @property
    def clock(self) -> StageClock:
        """Is told of every run of a graph."""

    def infer(self, request: dict[str, Array]) -> Mapping[str, Array]:
        """Answer one request.

        Raises:
            RequestError: the request does not fit, or the model failed on it.
        """

    def answer(self, request: dict[str, Array]) -> Mapping[str, Array]:
        """Answer one request whose names, datatypes and shapes are those of one that fits.

        Raises:
            RequestError: the model failed on it.
        """

    def bound(self) -> Bound | None:
        """Give the memory that is bound to the graph now, where a run on it is what `answer` does.

        The inputs are the request's, the outputs the response's. It may be used as long as the
        model is served. None where there is more to do.
        """

    def infer_together(
        self, requests: Sequence[dict[str, Array]], executing: Executing
    ) -> Sequence[Mapping[str, Array] | BaseException]:
        """Answer several requests, each by its response or what it failed with.

        `executing` is told before every step whose work it is, as positions in `requests`.
        """

    def prove(self) -> Proof:
        """Run every golden case through `infer`."""

    def time(self) -> Timing:
        """Run all golden cases through `infer` for a while, for their time.

        Raises:
            RequestError, StoreError: the model fails on one, or its files cannot be read any more.
        """

    def reprove(self, case: int) -> Proof:
        """Run golden case number `case` through `infer` again; it wraps around.

        Raises:
            StoreError: its files cannot be read any more, so nothing is said about the model.
        """
