"""Who may allow a brief outage, and what is told of one."""

from __future__ import annotations

import pytest

from superbrain.domain.deployment import Deployment, Reason
from superbrain.domain.outage import OutagePolicy, cut_short, told_how_to_allow, too_long

CANDIDATE = Deployment(1, "ocr", "3.1.0", 7, "ab", ("tensorrt:fp16",))


@pytest.mark.parametrize(
    ("allow", "asked", "may"),
    [
        ("bundle", True, True),
        ("bundle", False, False),
        ("never", True, False),
        ("always", False, True),
    ],
)
def test_the_bundle_says_whether_it_may_stop_and_the_sites_word_wins(
    allow: str, asked: bool, may: bool
) -> None:
    assert OutagePolicy(allow=allow).allows(asked=asked) is may  # type: ignore[arg-type]


def test_a_refusal_says_who_could_allow_an_outage_unless_the_site_has_said_never() -> None:
    refused = Reason("NOT_ENOUGH_MEMORY", "it needs 3 GiB", "free 1 GiB")
    mend = told_how_to_allow(OutagePolicy(), refused).mend
    assert mend.startswith("free 1 GiB; or allow a brief outage")
    assert "serving.brief_outage" in mend
    assert 'outage.allow = "always"' in mend
    assert told_how_to_allow(OutagePolicy(allow="never"), refused) == refused


def test_what_ended_an_outage_names_the_candidate_and_what_to_do() -> None:
    assert "ocr 3.1.0 did not serve within outage.limit_s" in too_long("ocr 3.1.0").message
    reason = cut_short(CANDIDATE)
    assert "for 3.1.0 on tensorrt:fp16" in reason.message
    assert "superbrain retry" in reason.mend
