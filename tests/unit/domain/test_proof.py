"""What a proof says of itself: whether it passed, and its most telling failure."""

from __future__ import annotations

from superbrain.domain.proof import EVERY_OUTPUT, OutputFigures, Proof


def wrong(case: str, output: str, tolerance: str = "exact", graph: str = "") -> OutputFigures:
    return OutputFigures(
        case, output, graph, passed=False, tolerance=tolerance, reason="it differs"
    )


RIGHT = OutputFigures("page", "label", "", passed=True, tolerance="exact")
CONFIDENCE = wrong("page", "confidence", "rtol 0.001, atol 0.0001")
LABEL = wrong("page", "label")


def proof(*figures: OutputFigures) -> Proof:
    return Proof("onnxruntime:cpu", list(figures), [])


def test_a_proof_without_a_failure_passed_and_says_nothing() -> None:
    assert (proof(RIGHT).passed, proof(RIGHT).first_failure) == (True, "")


def test_a_proof_that_compared_nothing_did_not_pass() -> None:
    nothing = proof()
    assert not nothing.passed
    assert nothing.first_failure == "no golden case produced anything to compare"


def test_a_wrong_label_is_told_before_the_confidence_of_its_case() -> None:
    found = proof(CONFIDENCE, LABEL)
    assert found.failures == [LABEL, CONFIDENCE]
    assert found.first_failure == "case 'page', output 'label': it differs"


def test_a_wrong_label_of_a_later_case_is_not_told_first() -> None:
    later = wrong("a-later-page", "label")
    assert proof(CONFIDENCE, later).failures == [CONFIDENCE, later]


def test_an_output_of_a_graph_is_told_with_its_graph() -> None:
    sentence = proof(wrong("page", "y", graph="det")).first_failure
    assert sentence == "case 'page', graph 'det', output 'y': it differs"


def test_a_case_that_had_no_output_is_told_without_one() -> None:
    assert proof(wrong("page", EVERY_OUTPUT)).first_failure == "case 'page': it differs"
