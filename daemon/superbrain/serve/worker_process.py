"""The worker's process: what it does before it becomes a worker that can meet bundle code.

    python -I -m superbrain.serve.worker_process --ctl-fd N

It is forked by `fork_server`, with numpy and ONNX Runtime imported, or started by itself. The first
`Load` says which bundle and which limits. While there is still one thread, and nothing of a bundle
is read, the lane is bound and the flight page made, which the sandbox would refuse later; then the
sandbox closes, and what is not yet imported is imported inside it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import msgspec

from superbrain.domain import ctl
from superbrain.domain.rungs import uses_gpu
from superbrain.host import scheduling
from superbrain.host.sandbox import SandboxError, confine
from superbrain.serve import child
from superbrain.serve.ctl_channel import CtlChannel
from superbrain.transport.flight import FlightPage
from superbrain.transport.listener import bind_lane

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from superbrain.domain.sandbox import Sandbox

    Close = Callable[[ctl.Load], Sandbox]


class Beginning(NamedTuple):
    """What a worker begins with: its first order, what was made before the sandbox, the sandbox."""

    load: ctl.Load
    listener: socket.socket
    flight: FlightPage
    sandbox: Sandbox


def begin(channel: CtlChannel[ctl.ToWorker], close: Close) -> Beginning:
    """Obey nothing but the first `Load`: prepare what it needs and `close` the sandbox around it.

    A process that cannot be prepared says why and ends.
    """
    while True:
        for message in channel.listen(wait=True):
            if isinstance(message, ctl.Load):
                return _prepare(channel, message, close)
            if isinstance(message, ctl.Ping):
                channel.send(ctl.WorkerPong())
            else:
                name = type(message).__name__
                found = f"expected Load before {name}, found no model loaded"
                channel.send(ctl.Failed("OrderRefused", found))


def _prepare(channel: CtlChannel[ctl.ToWorker], load: ctl.Load, close: Close) -> Beginning:
    try:
        listener, flight = bind_lane(load.lane_path), FlightPage()
        return Beginning(load, listener, flight, close(load))
    except SandboxError as error:
        _end_with(channel, ctl.Failed(error.code, error.message, error.mend))
    except OSError as error:
        found = f"the worker cannot be prepared: {error}"
        _end_with(channel, ctl.Failed("SPAWN_FAILED", found))


def _end_with(channel: CtlChannel[ctl.ToWorker], failed: ctl.Failed) -> NoReturn:
    channel.send(failed)
    child.end(1)


def close_sandbox(load: ctl.Load) -> Sandbox:
    """Confine this process to what one bundle needs, and log how far the kernel went.

    Raises:
        SandboxError: the kernel grants less than is demanded.
    """
    sandbox = confine(
        load.sandbox,
        bundle=Path(load.bundle_path),
        scratch=Path(load.scratch_path) if load.scratch_path else None,
        gpu=uses_gpu(load.rung),
        readable=[Path(engine.path) for engine in load.engines],
    )
    lacking = "; ".join(sandbox.missing)
    child.log(
        "worker_confined",
        level=sandbox.level,
        landlock_abi=sandbox.landlock_abi,
        missing=lacking,
    )
    return sandbox


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the process."""
    parser = child.argument_parser("superbrain-worker", "Hold and serve one deployment.")
    options = parser.parse_args(arguments)
    channel: CtlChannel[Any] = CtlChannel(
        child.adopt(options.ctl_fd), msgspec.msgpack.Decoder(ctl.ToWorker)
    )
    scheduling.give_way()  # until it serves, others go first
    beginning = begin(channel, close_sandbox)
    # Not above: numpy starts threads, and all must be started inside. A fork has none.
    from superbrain.serve.served_bundle import ServedBundle
    from superbrain.serve.worker import Worker

    Worker(channel, ServedBundle.open, beginning).run()


if __name__ == "__main__":
    main(sys.argv[1:])
