"""The metrics of the host as a whole: daemon, inbox, processes, machine, GPUs, TCP face."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, get_args

from superbrain.domain.health import Health, Severity
from superbrain.domain.metric import Metric, Row, of_gpu, of_host, of_process, of_tcp, ratio


def _build(health: Health) -> Iterator[Row]:
    yield (health.version,), 1


def _problems(health: Health) -> Iterator[Row]:
    for severity in get_args(Severity):
        if severity != "ok":
            yield (severity,), sum(one.severity == severity for one in health.problems)


def _inbox(health: Health) -> Iterator[Row]:
    for outcome in ("waiting", "stalled", "refused", "ignored"):
        listed = sum(file.outcome == outcome for file in health.inbox)
        yield (outcome,), listed + health.inbox_more.get(outcome, 0)


def _gpu_info(health: Health) -> Iterator[Row]:
    for gpu in health.gpus:
        yield (str(gpu.index), gpu.name, gpu.uuid or ""), 1


METRICS: Final[tuple[Metric, ...]] = (
    Metric("superbrain_build_info", "gauge", ("version",), "Always 1.", _build),
    of_host(
        "superbrain_start_time_seconds",
        "gauge",
        "When the daemon started, in seconds since 1970.",
        lambda health: health.started_at,
    ),
    of_host(
        "superbrain_report_timestamp_seconds",
        "gauge",
        "When these values were gathered; an old one means that the daemon hangs or is gone.",
        lambda health: health.at,
    ),
    of_host(
        "superbrain_ready",
        "gauge",
        "1 while a proven process answers for every model that should be served.",
        lambda health: health.ready,
    ),
    Metric(
        "superbrain_problems",
        "gauge",
        ("severity",),
        "What superbrain status lists as needing attention.",
        _problems,
    ),
    Metric(
        "superbrain_inbox_files",
        "gauge",
        ("outcome",),
        "Files in the inbox that are not taken.",
        _inbox,
    ),
    of_process(
        "superbrain_process_resident_memory_bytes",
        "gauge",
        "Memory of each process: daemon, gateway, tcp and worker.",
        lambda facts: facts.rss_bytes,
    ),
    of_process(
        "superbrain_process_cpu_seconds_total",
        "counter",
        "Processor time of each process.",
        lambda facts: facts.cpu_seconds,
    ),
    of_process(
        "superbrain_process_threads",
        "gauge",
        "Threads of each process.",
        lambda facts: facts.threads,
    ),
    of_process(
        "superbrain_process_open_fds",
        "gauge",
        "File descriptors of each process.",
        lambda facts: facts.open_files,
    ),
    of_host(
        "superbrain_host_cpu_ratio",
        "gauge",
        "How busy the host's processors are, 1 for all of them.",
        lambda health: ratio(health.host.cpu_percent),
    ),
    of_host(
        "superbrain_host_memory_size_bytes",
        "gauge",
        "Memory of the host.",
        lambda health: health.host.memory_total_bytes,
    ),
    of_host(
        "superbrain_host_memory_available_bytes",
        "gauge",
        "Memory of the host that can still be had.",
        lambda health: health.host.memory_available_bytes,
    ),
    of_host(
        "superbrain_store_filesystem_size_bytes",
        "gauge",
        "The file system that holds the store.",
        lambda health: health.host.disk_total_bytes or None,
    ),
    of_host(
        "superbrain_store_filesystem_free_bytes",
        "gauge",
        "What of it is free.",
        lambda h: h.host.disk_free_bytes if h.host.disk_total_bytes else None,
    ),
    Metric("superbrain_gpu_info", "gauge", ("gpu", "name", "uuid"), "Always 1.", _gpu_info),
    of_gpu(
        "superbrain_gpu_memory_size_bytes",
        "gauge",
        "Memory of the GPU.",
        lambda gpu: gpu.memory_total_bytes,
    ),
    of_gpu(
        "superbrain_gpu_memory_used_bytes",
        "gauge",
        "Memory of the GPU that is used, by whomever.",
        lambda gpu: gpu.memory_used_bytes,
    ),
    of_gpu(
        "superbrain_gpu_utilization_ratio",
        "gauge",
        "Share of the time in which the GPU was busy.",
        lambda gpu: ratio(gpu.utilization_percent),
    ),
    of_gpu(
        "superbrain_gpu_temperature_celsius",
        "gauge",
        "Temperature of the GPU.",
        lambda gpu: gpu.temperature_celsius,
    ),
    of_gpu(
        "superbrain_gpu_power_watts", "gauge", "What the GPU draws.", lambda gpu: gpu.power_watts
    ),
    of_tcp(
        "superbrain_tcp_up",
        "gauge",
        "1 while the TCP face runs; absent where TCP is off, as its other metrics.",
        lambda tcp: tcp.running,
    ),
    of_tcp(
        "superbrain_tcp_clients",
        "gauge",
        "Clients that are connected by TCP and have asked something.",
        lambda tcp: tcp.clients,
    ),
    of_tcp(
        "superbrain_tcp_restarts_total",
        "counter",
        "How often the TCP face was started again.",
        lambda tcp: tcp.restarts,
    ),
    of_tcp(
        "superbrain_tcp_refused_connections_total",
        "counter",
        "Connections by TCP that were not let in.",
        lambda tcp: tcp.refused,
    ),
)
