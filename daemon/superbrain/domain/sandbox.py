"""What a worker may do to its host: the limits an operator sets, and the level a kernel reaches.

Bundle code is trusted to answer, not with the host. `host/sandbox` applies the layers to the
worker; here is what they add up to, so that health, journal and operator speak of the same thing.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Level = Literal["none", "partial", "full"]
LEVELS: Final[tuple[Level, ...]] = ("none", "partial", "full")
MEMORY_SHARE: Final = 0.75


class SandboxPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator sets for every worker: `[sandbox]` of the configuration.

    `require`: the least level at which a worker loads a bundle. `memory_mib`: private memory; 0
    stands for three quarters of the host's. `scratch_mib`: what the scratch folder may hold.
    """

    require: Level = "none"
    memory_mib: int = 0
    threads: int = 1024
    descriptors: int = 1024
    scratch_mib: int = 256

    @property
    def memory_bytes(self) -> int:
        """The memory limit; 0 for none."""
        return self.memory_mib << 20

    @property
    def scratch_bytes(self) -> int:
        """The limit of the scratch folder, and of each file in it."""
        return self.scratch_mib << 20


def with_memory(policy: SandboxPolicy, total_bytes: int) -> SandboxPolicy:
    """Put a number in the place of 0: the share of this host's memory that one worker may use."""
    if policy.memory_mib:
        return policy
    return msgspec.structs.replace(policy, memory_mib=int(total_bytes * MEMORY_SHARE) >> 20)


class Sandbox(msgspec.Struct, frozen=True):
    """What holds one worker, as its kernel granted it.

    `landlock_abi`: version of the kernel's Landlock, 0 where there is none; `system_calls`: whether
    the filter is in force; `privileges`: whether all are given up for good; `gpu`: whether devices
    of GPUs are within reach; `missing`: a sentence for each thing that nothing holds.
    """

    level: Level = "none"
    landlock_abi: int = 0
    system_calls: bool = False
    privileges: bool = False
    gpu: bool = False
    missing: list[str] = []


def reached(*, landlock_abi: int, system_calls: bool, privileges: bool, gpu: bool) -> Sandbox:
    """Judge what the layers that are in force add up to.

    Networks, signals and truncation are held by the filter alone as well, so an old Landlock lacks
    nothing beside it; without the filter they need the Landlock that has them.
    """
    missing = []
    if not privileges:
        missing.append("it could gain privileges")
    if not landlock_abi:
        missing.append("files of its user can be read and written")
    if not system_calls:
        missing.append("system calls are not filtered: it can start programs and processes")
        missing += [
            text
            for abi, text in ((4, "TCP is not refused"), (6, "it can signal its user's processes"))
            if landlock_abi < abi
        ]
    level: Level = "partial" if landlock_abi or system_calls else "none"
    if not missing:
        level = "full"
    return Sandbox(level, landlock_abi, system_calls, privileges, gpu, missing)


def suffices(level: Level, required: Level) -> bool:
    """Tell whether a level is at least the required one."""
    return LEVELS.index(level) >= LEVELS.index(required)


class Usage(msgspec.Struct, frozen=True):
    """What a worker uses of what is limited; `entries` are those of its scratch folder."""

    memory_bytes: int = 0
    threads: int = 0
    scratch_bytes: int = 0
    entries: int = 0


class Excess(msgspec.Struct, frozen=True):
    """A limit that a worker went beyond: a stable code, what was found, what to do."""

    code: str
    message: str
    mend: str


MAX_ENTRIES: Final = 10_000


def excess(policy: SandboxPolicy, usage: Usage) -> Excess | None:
    """Say which limit is exceeded; None when all are kept."""
    if policy.memory_bytes and usage.memory_bytes > policy.memory_bytes:
        return _over(
            "MEMORY_LIMIT", "memory", f"{usage.memory_bytes >> 20} MiB", "memory_mib", policy
        )
    if usage.threads > policy.threads:
        return _over("THREAD_LIMIT", "threads", str(usage.threads), "threads", policy)
    if usage.scratch_bytes > policy.scratch_bytes:
        found = f"{usage.scratch_bytes >> 20} MiB"
        return _over("SCRATCH_LIMIT", "scratch", found, "scratch_mib", policy)
    if usage.entries > MAX_ENTRIES:
        mend = "Write fewer files: the scratch folder is for small temporary ones"
        message = f"expected at most {MAX_ENTRIES} files in its scratch folder, found more"
        return Excess("SCRATCH_LIMIT", message, mend)
    return None


def _over(code: str, what: str, found: str, key: str, policy: SandboxPolicy) -> Excess:
    unit = " MiB" if key.endswith("_mib") else ""
    message = f"expected at most {getattr(policy, key)}{unit} of {what}, found {found}"
    return Excess(code, message, f"The bundle uses too much; or raise sandbox.{key}")
