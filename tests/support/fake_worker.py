"""A real worker process around a fake model: the loop, lanes and orders are the genuine ones.

python -m tests.support.fake_worker --ctl-fd N

The rung in `Load` is the recipe, as `key=value` pairs: `name=m,version=1,queue_size=8`. The model
adds one to the FP32 tensor `x`. The first element of `x` may ask for something special:

    -1   sleep `slow_ms`, then answer       -4   answer `big_mb` MiB
    -2   raise SystemExit                   -5   raise ValueError
    -3   end the process                    -6   refuse with InvalidArgument

`execution_ms` is how long an answer takes, as the proof says. With `batch=N` up to N requests are
answered together, and say in `mates` how many they were.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import msgspec
import numpy as np

from superbrain.domain.ctl import Load, ToWorker
from superbrain.domain.manifest import Batching
from superbrain.domain.proof import CaseTime, OutputFigures, Proof, Timing
from superbrain.domain.sandbox import Sandbox
from superbrain.serve import child
from superbrain.serve.ctl_channel import CtlChannel
from superbrain.serve.stage_clock import StageClock
from superbrain.serve.worker import Worker
from superbrain.serve.worker_process import begin
from superbrain.wire.datatypes import Array
from superbrain.wire.errors import InvalidArgument

SLOW, EXIT, DIE, BIG, BREAK, REFUSE = -1.0, -2.0, -3.0, -4.0, -5.0, -6.0


class FakeModel:
    """Adds one, or misbehaves as asked."""

    runtime = "fake 1"
    outputs = ("y", "version", "mates")

    def __init__(self, order: Load) -> None:
        options = dict(pair.split("=") for pair in order.rung.split(",") if pair)
        self.name = options.get("name", "adder")
        self.version = options.get("version", "1")
        self.queue_size = int(options.get("queue_size", "64"))
        self.request_timeout_ms = int(options.get("timeout_ms", "30000"))
        self.batching = Batching(
            int(options.get("batch", "1")),
            int(options.get("delay_ms", "0")),
            options.get("adaptive", "yes") == "yes",
        )
        self.clock = StageClock()
        self._mates = 1
        self._proves = options.get("proves", "yes") == "yes"
        self._slow_s = float(options.get("slow_ms", "100")) / 1000
        self._execution_ms = float(options.get("execution_ms", "0"))
        self._big_mb = int(options.get("big_mb", "8"))
        if options.get("load") == "fails":
            raise InvalidArgument("expected a model that loads, found one that does not")
        self._special: dict[float, Callable[[], None]] = {
            SLOW: lambda: time.sleep(self._slow_s),
            EXIT: _exit,
            DIE: lambda: os._exit(9),
            BREAK: _break,
            REFUSE: _refuse,
        }

    def infer(self, request: dict[str, Array]) -> dict[str, Array]:
        x = request["x"]
        version = np.array([int(self.version)], np.int64)
        mates = np.array([self._mates], np.int64)
        if x.size and float(x.flat[0]) < 0:
            if x.flat[0] == BIG:
                big = np.zeros(self._big_mb << 18, np.float32)
                return {"y": big, "version": version, "mates": mates}
            self._special[float(x.flat[0])]()
        return {"y": x + np.float32(1), "version": version, "mates": mates}

    def answer(self, request: dict[str, Array]) -> dict[str, Array]:
        return self.infer(request)

    def bound(self) -> None:
        """Nothing is bound."""

    def infer_together(
        self, requests: Sequence[dict[str, Array]], executing: Callable[[Sequence[int]], None]
    ) -> list[dict[str, Array] | BaseException]:
        executing(range(len(requests)))
        self._mates = len(requests)
        answers: list[dict[str, Array] | BaseException] = []
        for request in requests:
            try:
                answers.append(self.infer(request))
            except BaseException as error:  # noqa: BLE001 - the answer
                answers.append(error)
        self._mates = 1
        return answers

    def prove(self) -> Proof:
        reason = "" if self._proves else "fake drift"
        figure = OutputFigures("case", "y", "", self._proves, "exact", reason)
        return Proof("fake", [figure], [CaseTime("case", self._execution_ms)], self.runtime)

    def time(self) -> Timing:
        return Timing(rounds=3, median_ms=2.0, fastest_ms=1.0, slowest_ms=3.0)

    def reprove(self, case: int) -> Proof:
        del case
        return self.prove()


def _exit() -> NoReturn:
    raise SystemExit(5)


def _break() -> NoReturn:
    raise ValueError("bundle code is broken")


def _refuse() -> NoReturn:
    raise InvalidArgument("expected numbers of zero or more")


if __name__ == "__main__":
    parser = child.argument_parser("fake-worker", __doc__ or "")
    fd = parser.parse_args().ctl_fd
    control: CtlChannel[Any] = CtlChannel(child.adopt(fd), msgspec.msgpack.Decoder(ToWorker))
    Worker(control, FakeModel, begin(control, lambda _: Sandbox())).run()
