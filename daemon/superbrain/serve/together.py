"""Several requests through one run of the graph: concatenated along axis 0, split by their rows.

Each request is prepared and finished by itself, so that one whose pre- or postprocessing fails
harms nobody else. A shared run that fails is done again one by one, and only who fails then is
answered with the failure.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from superbrain.domain.batching import Part, partition
from superbrain.wire.errors import Internal

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from superbrain.serve.served import Executing
    from superbrain.serve.steps import GraphSteps, Prepared

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Array]
T = TypeVar("T")


class Together:
    """Answers many requests with few runs. Not thread-safe.

    Args:
        steps: around the graph.
        max_size: rows of one run.
        check: raises InvalidArgument for a request that does not fit the interface.

    Attributes:
        runs: how often the graph was run.
        failure: why the last shared run that failed did so; empty while none has.
    """

    def __init__(self, steps: GraphSteps, max_size: int, check: Callable[[Arrays], None]) -> None:
        self._steps = steps
        self._max_size = max_size
        self._check = check
        self.runs = 0
        self.failure = ""

    def answer(
        self, requests: Sequence[Arrays], executing: Executing
    ) -> list[Arrays | BaseException]:
        """Answer every request, by its response or by what it failed with.

        Args:
            requests: to answer.
            executing: is told before every step whose work it is, as positions in `requests`.
        """
        answers: list[Arrays | BaseException] = []
        ready: dict[int, Prepared] = {}
        for position, request in enumerate(requests):
            executing((position,))
            prepared = _attempt(self._prepare, request)
            if isinstance(prepared, BaseException):
                answers.append(prepared)
            else:
                answers.append({})
                ready[position] = prepared
        positions = list(ready)
        parts = [_part(one.inputs) for one in ready.values()]
        for group in partition(parts, self._max_size):
            members = {positions[n]: ready[positions[n]] for n in group}
            for position, outputs in self._run(members, [parts[n].rows for n in group], executing):
                executing((position,))
                answers[position] = (
                    outputs
                    if isinstance(outputs, BaseException)
                    else _attempt(self._steps.finish, outputs, ready[position])
                )
        return answers

    def _prepare(self, request: Arrays) -> Prepared:
        self._check(request)
        return self._steps.prepare(request)

    def _run(
        self, members: dict[int, Prepared], rows: Sequence[int], executing: Executing
    ) -> Iterator[tuple[int, Arrays | BaseException]]:
        """Give the graph outputs of each member, from one run if that works."""
        if len(members) > 1:
            executing(tuple(members))
            shared = _attempt(self._run_shared, [one.inputs for one in members.values()], rows)
            if not isinstance(shared, BaseException):
                yield from zip(members, shared, strict=True)
                return
            self.failure = str(shared)
        for position, prepared in members.items():
            executing((position,))
            self.runs += 1
            yield position, _attempt(self._steps.run, prepared.inputs)

    def _run_shared(self, inputs: Sequence[Arrays], rows: Sequence[int]) -> list[Arrays]:
        self.runs += 1
        outputs = self._steps.run(
            {name: np.concatenate([one[name] for one in inputs]) for name in inputs[0]}
        )
        bounds = [0, *accumulate(rows)]
        for name, array in outputs.items():
            if array.shape[:1] != (bounds[-1],):
                raise Internal(
                    f"graph output {name!r}: expected {bounds[-1]} rows for as many of input, "
                    f"found shape {list(array.shape)}"
                )
        return [
            {name: array[start:end] for name, array in outputs.items()}
            for start, end in pairwise(bounds)
        ]


def _attempt(step: Callable[..., T], *arguments: object) -> T | BaseException:
    """Take one step; SystemExit of bundle code too ends one request and no more."""
    try:
        return step(*arguments)
    except BaseException as error:  # noqa: BLE001 - becomes this request's answer
        return error


def _part(inputs: Arrays) -> Part:
    """Say what may share a run with these graph inputs; what the graph would refuse runs alone."""
    rows: set[int] = set()
    signature: list[Hashable] = []
    for name, array in inputs.items():
        if not isinstance(array, np.ndarray) or not array.ndim:
            return Part(None, 1)
        rows.add(len(array))
        signature.append((name, array.dtype, array.shape[1:]))
    if len(rows) != 1:
        return Part(None, 1)
    return Part(frozenset(signature), rows.pop())
