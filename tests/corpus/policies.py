"""Policy: a whole and rightly signed bundle that is not for this host now."""

from __future__ import annotations

from tests.corpus.cases import case
from tests.corpus.draft import Draft

SECTION = "policy"


@case(SECTION, "EXPIRED", "expire")
def expired(draft: Draft) -> None:
    """It was good until last year."""
    draft.manifest |= {"created": "2024-06-01T00:00:00Z", "expires": "2024-07-01T00:00:00Z"}


@case(SECTION, "CREATED_IN_FUTURE", "created")
def created_in_the_future(draft: Draft) -> None:
    """Made in a century that has not begun."""
    draft.manifest["created"] = "2199-01-01T00:00:00Z"


@case(SECTION, "TARGET_MEMORY", "memory")
def needs_more_memory_than_there_is(draft: Draft) -> None:
    """It needs ten terabytes."""
    draft.manifest["targets"] = {"memory_mb": 10_000_000}


@case(SECTION, "TARGET_RUNTIME", "onnxruntime")
def needs_another_runtime(draft: Draft) -> None:
    """It needs a runtime of tomorrow."""
    draft.manifest["targets"] = {"onnxruntime": ">=99"}
