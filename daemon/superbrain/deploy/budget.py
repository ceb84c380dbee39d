"""Looks whether a candidate fits beside what serves, before its processes are started.

The rule is `domain.budget`; here is where its figures come from: the manifest, the kernel, the
driver of the GPUs, and what the workers of the serving version are seen to hold.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psutil

from superbrain.domain.budget import Measured, Need, Room, predict, refusal, weights_bytes
from superbrain.domain.rungs import uses_gpu
from superbrain.host.facts import held_by

if TYPE_CHECKING:
    from superbrain.deploy.crew import Bringup, Crew
    from superbrain.deploy.services import Services
    from superbrain.domain.deployment import Reason
    from superbrain.domain.health import GpuFacts
    from superbrain.host.gpu_watch import GpuWatch

_DRIVER_S = 2.0


class MemoryBudget:
    """What fits on this host."""

    def __init__(self, services: Services, gpus: GpuWatch) -> None:
        self._services = services
        self._gpus = gpus

    async def refusal(self, bringup: Bringup) -> Reason | None:
        """Say why a candidate does not fit beside what serves; None when it does, or may."""
        manifest, rung = bringup.manifest, bringup.rung
        named = f"{manifest.name} {manifest.version} on {rung}"
        serving = self._services.of(manifest.name).current
        need = predict(manifest, rung, on_gpu=False)
        refused = refusal(need, _host_room(serving), named)
        if refused is not None or not uses_gpu(rung):
            return refused
        await asyncio.to_thread(self._gpus.look, _DRIVER_S)
        return self._gpu_refusal(bringup, serving, named)

    def _gpu_refusal(self, bringup: Bringup, serving: Crew | None, named: str) -> Reason | None:
        """It is enough that it fits on one of the GPUs: which it gets, its runtime decides."""
        refused: Reason | None = None
        for gpu, room in _gpu_rooms(self._gpus.facts, serving):
            refused = refusal(_gpu_need(bringup, serving, gpu), room, named)
            if refused is None:
                return None
        return refused


def _gpu_need(bringup: Bringup, serving: Crew | None, gpu: GpuFacts) -> Need:
    measured = _held_on_gpu(serving, gpu)
    return predict(bringup.manifest, bringup.rung, measured=measured, on_gpu=True)


def _gpu_rooms(gpus: list[GpuFacts], serving: Crew | None) -> list[tuple[GpuFacts, Room]]:
    """Give the GPUs whose memory is known; of one that is partitioned nobody tells it."""
    rooms = []
    for gpu in gpus:
        total, used = gpu.memory_total_bytes, gpu.memory_used_bytes
        if total is None or used is None or gpu.lost or gpu.mig:
            continue
        held = sum(_on_gpu(serving, gpu))
        where = f"the memory of GPU {gpu.index} ({gpu.name})"
        rooms.append((gpu, Room(where, total, max(0, total - used), held, _name_of(serving))))
    return rooms


def _held_on_gpu(serving: Crew | None, gpu: GpuFacts) -> Measured | None:
    held = _on_gpu(serving, gpu)
    if serving is None or not held:
        return None
    return Measured(min(held), weights_bytes(serving.bringup.manifest))


def _on_gpu(serving: Crew | None, gpu: GpuFacts) -> list[int]:
    pids = {worker.child.pid for worker in serving.workers} if serving else set()
    sizes = (one.memory_bytes for one in gpu.processes or () if one.pid in pids)
    return [size for size in sizes if size is not None]


def _host_room(serving: Crew | None) -> Room:
    memory = psutil.virtual_memory()
    held = sum(_in_memory(serving))
    where = "this host's memory"
    return Room(where, memory.total, memory.available, held, _name_of(serving))


def _in_memory(serving: Crew | None) -> list[int]:
    pids = [worker.child.pid for worker in serving.workers] if serving else []
    return [held.memory_bytes for held in map(held_by, pids) if held is not None]


def _name_of(serving: Crew | None) -> str:
    if serving is None:
        return ""
    return f"{serving.bringup.manifest.name} {serving.bringup.manifest.version}"
