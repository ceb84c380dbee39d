"""Which facts of a machine are worth a word, and how bad they are."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from superbrain.domain.diagnosis import Finding
from superbrain.domain.machine import Disk, Machine, Processor, disk_findings, machine_findings

GIB = 1 << 30
PROCESSOR = Processor("AMD Ryzen 7", cores=8, threads=16, usable=16, flags=["avx2", "fma"])
WELL = Machine(
    system="Debian GNU/Linux 12 (bookworm)",
    kernel="6.1.0",
    machine="x86_64",
    python="3.11.2",
    up_s=7200.0,
    processor=PROCESSOR,
    load_1m=1.0,
    memory_total_bytes=16 * GIB,
    memory_available_bytes=9 * GIB,
    memory_limit_bytes=None,
    swap_total_bytes=2 * GIB,
    swap_used_bytes=0,
    inotify_watches=65_536,
    inotify_instances=128,
    descriptors=1024,
    landlock_abi=2,
    system_call_filter=True,
    year=2026,
    clock_synchronised=True,
    has_systemd=True,
    service="active (running), starts with the host",
)


def finding(name: str, **changes: object) -> Finding:
    found = machine_findings(msgspec.structs.replace(WELL, **changes))
    return next(one for one in found if one.id == name)


def test_a_machine_that_is_well_needs_nothing() -> None:
    assert {one.verdict for one in machine_findings(WELL)} == {"ok"}
    assert not any(one.mend for one in machine_findings(WELL))
    assert finding("processor").found == "AMD Ryzen 7, 8 cores (16 threads)"


CASES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("system", "note", "riscv64", {"machine": "riscv64"}),
    ("processor", "note", "16 threads", {"load_1m": 99.0}),
    (
        "processor_flags",
        "note",
        "none",
        {"processor": msgspec.structs.replace(PROCESSOR, flags=[])},
    ),
    ("memory", "problem", "200 MiB", {"memory_available_bytes": 200 << 20}),
    ("memory", "ok", "limited to 4.0 GiB", {"memory_limit_bytes": 4 * GIB}),
    ("swap", "note", "1.8 GiB of 2.0 GiB used", {"swap_used_bytes": int(1.8 * GIB)}),
    ("swap", "ok", "none", {"swap_total_bytes": 0}),
    ("sandbox", "note", "no Landlock, seccomp", {"landlock_abi": 0}),
    ("sandbox", "note", "no seccomp", {"system_call_filter": False}),
    ("inotify", "note", "not to be seen", {"inotify_watches": None}),
    ("inotify", "note", "2 instances", {"inotify_instances": 2}),
    ("descriptors", "note", "256", {"descriptors": 256}),
    ("clock", "problem", "1970", {"year": 1970}),
    ("clock", "note", "nothing keeps it right", {"clock_synchronised": False}),
    ("clock", "ok", "does not tell", {"clock_synchronised": None}),
    ("service", "note", "not started by systemd", {"has_systemd": False}),
    ("service", "note", "not installed", {"service": ""}),
    ("service", "problem", "failed", {"service": "failed (failed), starts with the host"}),
]


@pytest.mark.parametrize(("name", "verdict", "said", "changes"), CASES)
def test_what_is_unusual_is_said_and_how_bad_it_is(
    name: str, verdict: str, said: str, changes: dict[str, Any]
) -> None:
    found = finding(name, **changes)
    assert found.verdict == verdict
    assert said in found.found
    assert found.mend or verdict == "ok" or "not to be seen" in said


def test_a_processor_that_may_not_be_used_whole_says_so() -> None:
    held = msgspec.structs.replace(PROCESSOR, usable=4, quota=1.5)
    said = finding("processor", processor=held).found
    assert "4 usable, limited to 1.5 by its control group" in said


DISK = Disk("/var/lib", "ext4", 100 * GIB, 60 * GIB, free_inodes=1000)


@pytest.mark.parametrize(
    ("changes", "verdict", "said"),
    [
        ({}, "ok", "60.0 GiB of 100 GiB free on ext4 at /var/lib"),
        ({"read_only": True}, "problem", "read-only"),
        ({"free_bytes": GIB // 2}, "problem", "full"),
        ({"free_inodes": 0}, "problem", "full"),
        ({"free_inodes": None}, "ok", "ext4"),
        ({"free_bytes": 3 * GIB}, "note", "3.0 GiB"),
        ({"kind": "tmpfs"}, "note", "tmpfs"),
        ({"kind": "nfs4"}, "note", "nfs4"),
    ],
)
def test_a_disk_is_judged_by_its_room_and_its_kind(
    changes: dict[str, Any], verdict: str, said: str
) -> None:
    (found,) = disk_findings("disk", "disk", msgspec.structs.replace(DISK, **changes))
    assert found.verdict == verdict
    assert said in found.found
    assert bool(found.mend) == (verdict != "ok")
