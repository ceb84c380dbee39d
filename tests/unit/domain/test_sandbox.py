"""What layers add up to, and which limit is exceeded first."""

from __future__ import annotations

import pytest

from superbrain.domain.sandbox import (
    MAX_ENTRIES,
    Level,
    SandboxPolicy,
    Usage,
    excess,
    reached,
    suffices,
    with_memory,
)

POLICY = SandboxPolicy(memory_mib=100, threads=20, scratch_mib=10)


@pytest.mark.parametrize(
    ("abi", "filtered", "given_up", "level", "sentences"),
    [
        (7, True, True, "full", 0),
        (1, True, True, "full", 0),
        (0, True, True, "partial", 1),
        (7, False, True, "partial", 1),
        (1, False, True, "partial", 3),
        (7, True, False, "partial", 1),
        (0, False, True, "none", 4),
    ],
)
def test_the_level_says_what_holds(
    abi: int,
    filtered: bool,
    given_up: bool,
    level: Level,
    sentences: int,
) -> None:
    found = reached(landlock_abi=abi, system_calls=filtered, privileges=given_up, gpu=False)
    assert found.level == level
    assert len(found.missing) == sentences


def test_a_level_suffices_when_it_is_no_lower() -> None:
    assert suffices("full", "full")
    assert suffices("partial", "none")
    assert not suffices("partial", "full")


@pytest.mark.parametrize(
    ("usage", "code"),
    [
        (Usage(memory_bytes=100 << 20, threads=20, scratch_bytes=10 << 20), None),
        (Usage(memory_bytes=101 << 20), "MEMORY_LIMIT"),
        (Usage(threads=21), "THREAD_LIMIT"),
        (Usage(scratch_bytes=11 << 20), "SCRATCH_LIMIT"),
        (Usage(entries=MAX_ENTRIES + 1), "SCRATCH_LIMIT"),
    ],
)
def test_beyond_a_limit_its_own_code_is_given(usage: Usage, code: str | None) -> None:
    found = excess(POLICY, usage)
    assert (found.code if found else None) == code


def test_the_sentence_says_what_was_expected_and_found() -> None:
    found = excess(POLICY, Usage(memory_bytes=130 << 20))
    assert found is not None
    assert found.message == "expected at most 100 MiB of memory, found 130 MiB"
    assert "sandbox.memory_mib" in found.mend


def test_without_a_number_a_worker_may_use_three_quarters_of_the_host() -> None:
    assert with_memory(SandboxPolicy(), 8 << 30).memory_mib == 6 << 10
    assert with_memory(POLICY, 8 << 30) == POLICY
