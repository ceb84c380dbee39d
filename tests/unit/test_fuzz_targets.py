"""Whatever bytes come, good ones bent or none that ever were: a typed error, or an answer.

`scripts/soak --fuzz SECONDS` goes on from here, led by coverage.
"""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fuzz_targets import TARGETS

MOST_BYTES = 64 << 20
EXAMPLES = settings(max_examples=60, deadline=None)


@pytest.mark.parametrize("name", TARGETS)
@EXAMPLES
@given(st.binary(max_size=600))
def test_arbitrary_bytes_do_no_harm(name: str, data: bytes) -> None:
    TARGETS[name].run(data)


@pytest.mark.parametrize("name", TARGETS)
@EXAMPLES
@given(st.data())
def test_good_bytes_that_were_bent_do_no_harm(name: str, data: st.DataObject) -> None:
    good = data.draw(st.sampled_from(TARGETS[name].seeds()))
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 40)))
    TARGETS[name].run(good[:start] + data.draw(st.binary(max_size=40)) + good[end:])


@pytest.mark.parametrize("name", TARGETS)
def test_good_bytes_and_what_claims_to_be_large_take_little_memory(name: str) -> None:
    target = TARGETS[name]
    claims = [seed.replace(b"\0", b"\x7f")[:100_000] for seed in target.seeds()]
    deep = [b"\0" + b"[" * 200_000, b'\0{"z":' + b"[" * 200_000, b"\xff" * 200_000]
    tracemalloc.start()
    try:
        for data in (*target.seeds(), *claims, *deep):
            target.run(data)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
