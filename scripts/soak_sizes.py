"""What must not grow in a soak: memory, descriptors, threads, processes and files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import psutil

from tests.corpus.every_case import CASES, EXECUTED
from tests.support.appliance import Appliance

GROWTH_BYTES = 24 << 20
GROWTH_FDS = 8
GROWTH_THREADS = 4
JOURNAL_BYTES = 64 << 20
#: The newest of each model stays, however it ended: three of the adder, one of each bad model that
#: was bad enough only once it was executed.
STORED_BUNDLES = 5 + sum(case.section in EXECUTED for case in CASES.values())


class Size(msgspec.Struct, frozen=True):
    """What may not keep growing: of the processes, and of what they leave on the disk."""

    descriptors: int
    threads: int
    memory_bytes: int
    gateway_descriptors: int
    gateway_threads: int
    gateway_memory_bytes: int
    worker_descriptors: int
    worker_threads: int
    worker_memory_bytes: int
    journal_bytes: int
    children: int
    run_files: int
    stored_bundles: int
    staging: int


def measure(appliance: Appliance) -> Size:
    """Count everything once; the appliance must be at rest, answering requests at most."""
    health = appliance.health()
    model = next(model for model in health.models if model.name == "adder")
    gateway_pid = health.gateway.process.pid if health.gateway.process else 0
    pids = (health.process.pid, gateway_pid, model.workers[0].pid)
    daemon, gateway, worker = (psutil.Process(pid) for pid in pids)
    state = appliance.root / "state"
    return Size(
        descriptors=daemon.num_fds(),
        threads=daemon.num_threads(),
        memory_bytes=daemon.memory_info().rss,
        gateway_descriptors=gateway.num_fds(),
        gateway_threads=gateway.num_threads(),
        gateway_memory_bytes=gateway.memory_info().rss,
        worker_descriptors=worker.num_fds(),
        worker_threads=worker.num_threads(),
        worker_memory_bytes=worker.memory_info().rss,
        journal_bytes=sum(path.stat().st_size for path in state.glob("journal*")),
        children=len(appliance.at_work()),
        run_files=len(list((appliance.root / "run").rglob("*"))),
        stored_bundles=len(list((state / "store/bundles").iterdir())),
        staging=len(left_in_staging(appliance)),
    )


def left_in_staging(appliance: Appliance) -> set[Path]:
    """Give what stays there; a copy or removal that is under way ends by itself."""

    def staged() -> set[Path]:
        return set((appliance.root / "state/store/.staging").iterdir())

    seen = staged()
    with contextlib.suppress(AssertionError):
        appliance.wait_for(lambda: not seen & staged(), "the end of copying")
    return seen & staged()


def growth(sizes: Sequence[Size]) -> Iterator[str]:
    """Say what is larger at the end than it may be, compared with the first measurement."""
    if len(sizes) < 2:
        yield "it was not measured at the end"
        return
    before, after = sizes[0], sizes[-1]
    for name, limit in _limits(before).items():
        found = getattr(after, name)
        if found > limit:
            was = getattr(before, name)
            yield f"{name}: expected at most {limit}, found {found} (was {was})"


def _limits(before: Size) -> dict[str, int]:
    allowed = {"memory_bytes": GROWTH_BYTES, "descriptors": GROWTH_FDS, "threads": GROWTH_THREADS}
    growing = {
        f"{process}{what}": getattr(before, f"{process}{what}") + more
        for process in ("", "gateway_", "worker_")
        for what, more in allowed.items()
    }
    return growing | {
        "journal_bytes": before.journal_bytes + JOURNAL_BYTES,
        "children": 2,
        "run_files": before.run_files + 2,
        "stored_bundles": STORED_BUNDLES,
        "staging": 0,
    }


def size_table(sizes: Sequence[Size]) -> list[str]:
    """Give lines with one column for each measurement."""
    heads = ["start", *("middle" for _ in sizes[2:]), "end"][: len(sizes)]
    lines = [f"{'':<24}" + "".join(f"{head:>12}" for head in heads)]
    for field in Size.__struct_fields__:
        in_mib = field.endswith("_bytes")
        name = field.removesuffix("_bytes") + (" MiB" if in_mib else "")
        name = f"daemon {name}" if field in ("descriptors", "threads", "memory_bytes") else name
        values = [getattr(size, field) / (1 << 20 if in_mib else 1) for size in sizes]
        shown = "".join(f"{value:12.1f}" if in_mib else f"{value:12.0f}" for value in values)
        lines.append(f"{name.replace('_', ' '):<24}{shown}")
    return lines
