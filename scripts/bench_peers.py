"""`scripts/bench peers`: superbrain and other servers around the same ONNX file, in one run.

Each server is started, asked, measured and stopped in turn, round after round, so that a machine
that becomes slower becomes slower for all. One load generator asks them all: raw non-blocking
sockets in one epoll, requests encoded beforehand, every answer checked. So what differs is the
server.
"""

from __future__ import annotations

import argparse
import collections
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from scripts.bench_overhead import bare_session, machine, quantile
from scripts.peers_load import Load, closed_loop
from scripts.peers_models import MODELS, BenchModel, make_model
from scripts.peers_plot import plot
from scripts.peers_servers import SERVERS, Server, ServerFailed, prepared

CONCURRENCY = (1, 8, 32)
WARM_UP_S = 0.5
TURN_S = 2.0
RELOADS = 5
RELOAD_CLIENTS = 8


class Row(msgspec.Struct, frozen=True):
    """One server with one model and so many clients; medians over the rounds, ms and MiB."""

    server: str
    model: str
    clients: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    memory_mib: float
    start_s: float


class Reload(msgspec.Struct, frozen=True):
    """What five reloads under load cost: requests that failed, and the longest silence."""

    server: str
    how: str
    answered: int
    failed: int
    worst_gap_ms: float


class Report(msgspec.Struct, frozen=True):
    """Everything that was measured."""

    machine: str
    rows: list[Row]
    reloads: list[Reload]
    missing: dict[str, str]


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", metavar="NAME,NAME", help="of " + ", ".join(SERVERS))
    parser.add_argument("--models", default=",".join(MODELS), metavar="NAME,NAME")
    parser.add_argument("--no-reloads", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw a plot here")
    options = parser.parse_args(arguments)
    names = options.only.split(",") if options.only else list(SERVERS)
    with tempfile.TemporaryDirectory() as work:
        models = [make_model(Path(work), name) for name in options.models.split(",")]
        report = measure(names, models, options.rounds, reloads=not options.no_reloads)
    show(report)
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    if options.svg:
        options.svg.write_text(plot(report), encoding="utf-8")
    return 0


def measure(names: list[str], models: list[BenchModel], rounds: int, *, reloads: bool) -> Report:
    """Measure every server, in turn."""
    missing: dict[str, str] = {}
    servers = [server for name in names if (server := _installed(name, missing))]
    taken: dict[tuple[str, str, int], list[Row]] = collections.defaultdict(list)
    for number in range(rounds):
        for model in models:
            for row in in_process(model):
                taken[row.server, row.model, row.clients].append(row)
            for server in servers:
                if server.name in missing:
                    continue
                _say(f"round {number + 1} of {rounds}: {model.name}, {server.name}")
                try:
                    for row in one_server(server, model):
                        taken[row.server, row.model, row.clients].append(row)
                except (ServerFailed, OSError) as error:
                    missing[server.name] = str(error)
                    _say(f"{server.name}: left out: {error}")
    rows = [_median(rows) for rows in taken.values()]
    told = []
    if reloads:
        tiny = models[0]
        told = [reload(server, tiny) for server in servers if server.name not in missing]
    return Report(machine(), rows, told, missing)


def _installed(name: str, missing: dict[str, str]) -> Server | None:
    try:
        return prepared(name)
    except ServerFailed as error:
        missing[name] = str(error)
        _say(f"{name}: left out: {error}")
        return None


def in_process(model: BenchModel) -> list[Row]:
    """Call ONNX Runtime here, in a loop: what no server can be faster than."""
    session = bare_session(model.path)
    times: list[float] = []
    end = time.perf_counter() + WARM_UP_S + TURN_S / 2
    while (now := time.perf_counter()) < end:
        session.run(None, {model.input: model.x})
        times.append((time.perf_counter() - now) * 1000)
    times = times[len(times) // 3 :]
    p50, p99 = statistics.median(times), quantile(times, 0.99)
    return [Row("in-process", model.name, 1, 1000 / statistics.mean(times), p50, p99, 0, 0)]


def one_server(server: Server, model: BenchModel) -> list[Row]:
    """Start a server, ask it, and stop it."""
    rows = []
    with server.started(model) as running:
        for clients in CONCURRENCY if model.concurrent else CONCURRENCY[:1]:
            closed_loop(running.road, clients, WARM_UP_S)
            load = closed_loop(running.road, clients, TURN_S)
            if load.failed:
                raise ServerFailed(f"{load.failed} requests failed, the first: {load.failure}")
            rows.append(_row(server, model, clients, load, running.memory_mib(), running.start_s))
    return rows


def _row(
    server: Server, model: BenchModel, clients: int, load: Load, memory: float, start_s: float
) -> Row:
    times = load.latencies_ms
    return Row(
        server.name,
        model.name,
        clients,
        len(times) / load.took_s,
        statistics.median(times),
        quantile(times, 0.99),
        memory,
        start_s,
    )


def _median(rows: list[Row]) -> Row:
    first = rows[0]
    medians = {
        field: statistics.median(getattr(row, field) for row in rows)
        for field in ("requests_per_second", "p50_ms", "p99_ms", "memory_mib", "start_s")
    }
    return msgspec.structs.replace(first, **medians)


def reload(server: Server, model: BenchModel) -> Reload:
    """Reload a server five times under load, in the way that it offers."""
    _say(f"reloads: {server.name}")
    with server.started(model) as running:
        closed_loop(running.road, RELOAD_CLIENTS, WARM_UP_S)
        load = closed_loop(
            running.road, RELOAD_CLIENTS, 60, until=running.reloading(RELOADS), survive=True
        )
    return Reload(
        server.name, server.reload_how, len(load.latencies_ms), load.failed, load.worst_gap_ms
    )


def show(report: Report) -> None:
    """Print the tables."""
    print(f"{report.machine}; medians of one run\n")
    models = list(dict.fromkeys(row.model for row in report.rows))
    for model in models:
        print(f"{model}")
        numbers = ("clients", "requests/s", "p50 ms", "p99 ms", "MiB", "start s")
        print(f"{'':<22}" + "".join(f"{number:>12}" for number in numbers))
        rows = [row for row in report.rows if row.model == model]
        for row in sorted(rows, key=lambda row: (row.clients, row.p50_ms)):
            cells = f"{row.clients:>12}{row.requests_per_second:>12,.0f}{row.p50_ms:>12.3f}"
            cells += f"{row.p99_ms:>12.3f}{row.memory_mib:>12.0f}{row.start_s:>12.1f}"
            print(f"{row.server:<22}{cells}")
        print()
    if report.reloads:
        print(f"five reloads under load of {RELOAD_CLIENTS} clients")
        print(f"{'':<22}{'answered':>12}{'lost':>12}{'worst gap ms':>14}  how")
        for one in sorted(report.reloads, key=lambda one: (one.failed, one.worst_gap_ms)):
            cells = f"{one.answered:>12,}{one.failed:>12,}{one.worst_gap_ms:>14.0f}"
            print(f"{one.server:<22}{cells}  {one.how}")
    for name, why in report.missing.items():
        print(f"left out: {name}: {why}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
