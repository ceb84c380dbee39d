"""The sandbox that a worker puts itself into before it meets a single byte of bundle code.

    sandbox = confine(policy, bundle=folder, scratch=scratch, gpu=False)
    sandbox.level                                    # "full" on Linux from 5.13 on

Layers, each for good: no privileges (`privileges`), files by place (`landlock`, `places`), system
calls (`filter`, `system_calls`), numbers of things (`privileges.limit`). A kernel that lacks one
still gets the others, and what was reached is told. Landlock binds the calling thread and those it
starts, so all of this happens while there is only one: before numpy is imported, which starts some.
docs/decisions/0011-sandbox.md says why it is built so.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from superbrain.domain.sandbox import Sandbox, SandboxPolicy, reached, suffices
from superbrain.host.sandbox import filter as seccomp
from superbrain.host.sandbox import landlock, places, privileges
from superbrain.wire.errors import SuperbrainError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class SandboxError(SuperbrainError):
    """The worker cannot be held as tightly as the operator demands."""

    code = "SANDBOX_UNAVAILABLE"


def confine(
    policy: SandboxPolicy,
    *,
    bundle: Path,
    scratch: Path | None,
    gpu: bool,
    readable: Sequence[Path] = (),
) -> Sandbox:
    """Confine this process for good, as far as its kernel can.

    Args:
        policy: limits, and the level that is demanded.
        bundle: the one folder of the store that may be read.
        scratch: the one folder that may be written; it becomes the current one.
        gpu: whether the engines need the devices of GPUs.
        readable: what may be read beyond that, such as built engines.

    Raises:
        SandboxError: the kernel grants less than `policy.require`.
    """
    if len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208 - a count
        raise SandboxError("expected one thread before the sandbox, found more")
    if scratch is not None:
        _move_to(scratch)
    privileges.limit(policy, gpu=gpu)
    sandbox = _reach(places.grants(bundle, scratch, gpu=gpu, readable=readable), gpu=gpu)
    if not suffices(sandbox.level, policy.require):
        raise SandboxError(
            f"expected the sandbox at level {policy.require}, found {sandbox.level}: "
            + "; ".join(sandbox.missing),
            mend="Use a kernel with Landlock (5.13) and seccomp, or lower sandbox.require",
        )
    return sandbox


def _reach(granted: Sequence[landlock.Grant], *, gpu: bool) -> Sandbox:
    given_up, version, filtered = False, 0, False
    with suppress(OSError):
        privileges.give_up()
        given_up = True
    with suppress(OSError):
        version = landlock.restrict(granted)
    machine = seccomp.this_machine()
    if machine is not None:
        with suppress(OSError):
            seccomp.apply(seccomp.program(seccomp.Scope(machine, os.getpid(), gpu)))
            filtered = True
    return reached(landlock_abi=version, system_calls=filtered, privileges=given_up, gpu=gpu)


def _move_to(scratch: Path) -> None:
    """Make the scratch folder the place where libraries put what they cannot keep in memory."""
    os.chdir(scratch)
    os.environ.update(_homes(scratch))


def _homes(scratch: Path) -> Mapping[str, str]:
    names = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "CUDA_CACHE_PATH")
    return dict.fromkeys(names, str(scratch))
