"""Reading a machine, from files made for it and from the one it runs on."""

from __future__ import annotations

import os
from pathlib import Path

from superbrain.domain.machine import machine_findings
from superbrain.host.machine import nvidia_hardware, read_disk, read_machine, read_processor

CPUINFO = """\
processor\t: 0
model name\t: Intel(R)  Xeon(R) Gold
flags\t\t: fpu avx2 sse avx512f fma

processor\t: 1
model name\t: another
"""


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_processor_is_read_with_the_flags_that_matter_and_its_limit(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", CPUINFO)
    write(tmp_path, "proc/self/cgroup", "0::/pod/box\n")
    write(tmp_path, "sys/fs/cgroup/pod/box/cpu.max", "150000 100000\n")
    found = read_processor(tmp_path, "x86_64")
    assert (found.model, found.quota) == ("Intel(R) Xeon(R) Gold", 1.5)
    assert found.flags == ["avx2", "fma", "avx512f"]


def test_a_board_is_named_by_its_device_tree(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    write(tmp_path, "proc/device-tree/model", "NVIDIA Jetson Orin Nano\0")
    write(tmp_path, "proc/device-tree/compatible", "nvidia,p3768\0nvidia,tegra234\0")
    found = read_processor(tmp_path, "aarch64")
    assert (found.model, found.flags) == ("NVIDIA Jetson Orin Nano", ["asimd", "asimddp"])
    assert nvidia_hardware(tmp_path).board


def test_a_machine_that_tells_nothing_is_read_all_the_same(tmp_path: Path) -> None:
    found = read_machine(tmp_path)
    assert found.processor.model.endswith("processor")
    assert (found.system, found.has_systemd, found.service) == ("unknown system", False, "")
    assert (found.inotify_watches, found.memory_limit_bytes) == (None, None)
    assert machine_findings(found)
    assert not nvidia_hardware(tmp_path).there


def test_gpus_are_counted_on_the_bus_with_the_driver_that_is_loaded(tmp_path: Path) -> None:
    for place, vendor, kind in (
        ("0000:01:00.0", "0x10de", "0x030000"),
        ("0000:01:00.1", "0x10de", "0x040300"),
        ("0000:02:00.0", "0x1002", "0x030000"),
    ):
        write(tmp_path, f"sys/bus/pci/devices/{place}/vendor", f"{vendor}\n")
        write(tmp_path, f"sys/bus/pci/devices/{place}/class", f"{kind}\n")
    assert nvidia_hardware(tmp_path).devices == 1, "its sound card is none, nor is another's"
    said = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Mon\n"
    write(tmp_path, "proc/driver/nvidia/version", said)
    assert nvidia_hardware(tmp_path).driver == "580.65.06"


def test_this_machine_is_read_whole() -> None:
    found = read_machine()
    assert found.processor.usable >= 1
    assert found.memory_total_bytes > 0
    assert found.kernel == os.uname().release
    assert len(machine_findings(found)) >= 10


def test_a_disk_is_that_of_the_longest_mount_point(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"a / ext4 rw 0 0\nb {tmp_path} tmpfs rw 0 0\nc {tmp_path}x nfs rw 0 0\n")
    found = read_disk(tmp_path / "not" / "yet", mounts)
    assert found is not None
    assert (found.kind, found.path) == ("tmpfs", str(tmp_path))
