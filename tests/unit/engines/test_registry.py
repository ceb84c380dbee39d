"""Which runtime makes which rung."""

from __future__ import annotations

import pytest

from superbrain.engines.port import RungUnavailable
from superbrain.engines.registry import available, known_rungs, runtime_for


def test_every_rung_is_made_by_exactly_one_runtime() -> None:
    assert len(set(known_rungs())) == len(known_rungs())


@pytest.mark.parametrize("rung", known_rungs())
def test_a_known_rung_leads_to_its_runtime(rung: str) -> None:
    assert rung in runtime_for(rung).rungs


def test_an_unknown_rung_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(RungUnavailable, match=r"onnxruntime:cpu.*found 'abacus:wood'"):
        runtime_for("abacus:wood")


def test_an_unknown_rung_is_not_available_and_the_reason_is_a_sentence() -> None:
    assert "found 'abacus:wood'" in available("abacus:wood")


def test_the_processor_is_always_there() -> None:
    assert available("onnxruntime:cpu") == ""
