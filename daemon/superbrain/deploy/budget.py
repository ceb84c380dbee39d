"""Looks whether a candidate fits beside what serves, before its processes are started.

The rule is `domain.budget`; here is where its figures come from: the manifest, the kernel, the
driver of the GPUs, and what the workers of the serving version are seen to hold.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import psutil

from superbrain.domain.budget import (
    Measured,
    Need,
    Room,
    fits_in_place,
    predict,
    refusal,
    weights_bytes,
)
from superbrain.domain.deployment import Reason
from superbrain.domain.rungs import uses_gpu
from superbrain.host.facts import held_by

if TYPE_CHECKING:
    from superbrain.deploy.crew import Bringup, Crew
    from superbrain.deploy.service import ModelService
    from superbrain.deploy.services import Services
    from superbrain.domain.health import GpuFacts
    from superbrain.host.gpu_watch import GpuWatch

_DRIVER_S = 2.0


class NoRoom(NamedTuple):
    """Why a candidate does not fit, and whether it would if what serves were gone."""

    reason: Reason
    fits_in_place: bool


class MemoryBudget:
    """What fits on this host.

    Args:
        services: everything that serves.
        gpus: what the driver says of them.
        limit_bytes: what all models may hold of the host's memory; 0 for all there is.
    """

    def __init__(self, services: Services, gpus: GpuWatch, limit_bytes: int = 0) -> None:
        self._services = services
        self._gpus = gpus
        self._limit_bytes = limit_bytes

    async def refusal(self, bringup: Bringup) -> NoRoom | None:
        """Say why a candidate does not fit beside what serves; None when it does, or may."""
        manifest, rung = bringup.manifest, bringup.rung
        named = f"{manifest.name} {manifest.version} on {rung}"
        service = self._services.of(manifest.name)
        need = predict(manifest, rung, on_gpu=False)
        refused = _no_room(need, self._host_room(service), named)
        if refused is not None or not uses_gpu(rung):
            return refused
        await asyncio.to_thread(self._gpus.look, _DRIVER_S)
        return self._gpu_refusal(bringup, service, named)

    def held_bytes(self, model: str) -> int:
        """Give what the workers of a model hold of the host's memory."""
        return sum(_in_memory(self._services.of(model)))

    def _host_room(self, service: ModelService) -> Room:
        memory = psutil.virtual_memory()
        total, free, where = memory.total, memory.available, "this host's memory"
        if self._limit_bytes and self._limit_bytes < total:
            held = sum(size for one in self._services.all() for size in _in_memory(one))
            total, free = self._limit_bytes, min(free, max(0, self._limit_bytes - held))
            where = "the memory that deploy.memory_mib gives to models"
        return Room(where, total, free, sum(_in_memory(service)), _name_of(service.current))

    def _gpu_refusal(self, bringup: Bringup, service: ModelService, named: str) -> NoRoom | None:
        """It is enough that it fits on one of the GPUs: which it gets, its runtime decides."""
        refused: NoRoom | None = None
        for gpu, room in _gpu_rooms(self._gpus.facts, service):
            found = _no_room(_gpu_need(bringup, service.current, gpu), room, named)
            if found is None:
                return None
            if refused is None or not refused.fits_in_place:
                refused = found
        return refused


def _no_room(need: Need, room: Room, named: str) -> NoRoom | None:
    reason = refusal(need, room, named)
    return NoRoom(reason, fits_in_place(need, room)) if reason is not None else None


def _gpu_need(bringup: Bringup, serving: Crew | None, gpu: GpuFacts) -> Need:
    measured = _held_on_gpu(serving, gpu)
    return predict(bringup.manifest, bringup.rung, measured=measured, on_gpu=True)


def _gpu_rooms(gpus: list[GpuFacts], service: ModelService) -> list[tuple[GpuFacts, Room]]:
    """Give the GPUs whose memory is known; of one that is partitioned nobody tells it."""
    rooms = []
    for gpu in gpus:
        total, used = gpu.memory_total_bytes, gpu.memory_used_bytes
        if total is None or used is None or gpu.lost or gpu.mig:
            continue
        held = sum(sum(_on_gpu(crew, gpu)) for crew in (service.current, service.warm))
        where = f"the memory of GPU {gpu.index} ({gpu.name})"
        rooms.append(
            (gpu, Room(where, total, max(0, total - used), held, _name_of(service.current)))
        )
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


def _in_memory(service: ModelService) -> list[int]:
    """Give what each worker of a model holds, those of its warm predecessor included."""
    crews = [crew for crew in (service.current, service.warm) if crew is not None]
    pids = [worker.child.pid for crew in crews for worker in crew.workers]
    return [held.memory_bytes for held in map(held_by, pids) if held is not None]


def _name_of(serving: Crew | None) -> str:
    if serving is None:
        return ""
    return f"{serving.bringup.manifest.name} {serving.bringup.manifest.version}"
