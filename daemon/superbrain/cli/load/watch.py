"""Who uses processor and memory while a load test runs: read beside it, from /proc.

Which processes there are comes from the daemon, over its control socket. Without it (another host,
no permission) the figures of the host are still there.
"""

from __future__ import annotations

import os
from pathlib import Path

from superbrain.cli.control import ControlClient, ControlError
from superbrain.cli.load.figures import Usage
from superbrain.domain.health import Health
from superbrain.domain.operations import GetHealth, HealthReply

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_UTIME = 11  # in /proc/PID/stat behind the name, which may hold spaces


class Watch:
    """Processor and memory of the appliance's processes, from one look to the next."""

    def __init__(self, control: ControlClient, model: str) -> None:
        self._control = control
        self._model = model
        self.why_not = ""
        self._pids: dict[str, int] = {}
        self._before: dict[str, float] = {}
        self._host_before = 0.0
        self._gpu: float | None = None

    def begin(self) -> None:
        """Begin to count."""
        self._look()
        self._before = {name: _cpu_s(pid) for name, pid in self._pids.items()}
        self._host_before = _host_cpu_s()

    def end(self, took_s: float) -> tuple[list[Usage], float, float | None]:
        """Give what was used since `begin`: by process, cores busy of the host, GPU in percent."""
        usage = [
            Usage(name, max(0.0, _cpu_s(pid) - self._before[name]) / took_s, _memory_bytes(pid))
            for name, pid in self._pids.items()
        ]
        busy = max(0.0, _host_cpu_s() - self._host_before) / took_s
        if self._pids:
            self._look()
        return usage, busy, self._gpu

    def _look(self) -> None:
        try:
            health = self._control.ask(GetHealth(), HealthReply).health
        except ControlError as error:
            self.why_not, self._pids, self._gpu = error.message, {}, None
            return
        self._pids = _processes(health, self._model)
        percents = [gpu.utilization_percent for gpu in health.gpus]
        self._gpu = max((one for one in percents if one is not None), default=None)


def _processes(health: Health, model: str) -> dict[str, int]:
    pids = {"daemon": health.process.pid}
    if health.gateway.process is not None:
        pids["gateway"] = health.gateway.process.pid
    workers = [worker for one in health.models if one.name == model for worker in one.workers]
    for number, worker in enumerate(workers, 1):
        pids["worker" if len(workers) == 1 else f"worker {number}"] = worker.pid
    return pids


def _cpu_s(pid: int) -> float:
    """Processor time of a process; 0.0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()
    return (int(fields[_UTIME]) + int(fields[_UTIME + 1])) / _TICKS


def _memory_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def _host_cpu_s() -> float:
    """Processor time of the whole host, without what was idle or waited for disks."""
    times = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(times) - times[3] - times[4]) / _TICKS
