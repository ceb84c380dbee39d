"""What a worker is found to use: this process and a folder, looked at from outside."""

from __future__ import annotations

import os
from pathlib import Path

from superbrain.host.usage import scratch_usage, usage


def test_memory_and_threads_of_a_process_are_counted() -> None:
    before = usage(os.getpid())
    kept = b"x" * (64 << 20)
    after = usage(os.getpid())
    assert after.memory_bytes - before.memory_bytes > 48 << 20
    assert after.threads >= 1
    assert len(kept)


def test_a_process_that_is_gone_uses_nothing() -> None:
    assert usage(1 << 30).memory_bytes == 0


def test_a_folder_is_counted_with_what_is_open_and_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one").write_bytes(b"x" * (1 << 20))
    (tmp_path / "loop").symlink_to(tmp_path)
    named = scratch_usage(tmp_path, os.getpid())
    assert named.entries == 3
    with (tmp_path / "two").open("wb") as file:
        file.write(b"x" * (4 << 20))
        file.flush()
        (tmp_path / "two").unlink()
        unnamed = scratch_usage(tmp_path, os.getpid())
    assert unnamed.entries == 3
    assert unnamed.scratch_bytes - named.scratch_bytes >= 3 << 20
