"""Every setting is told with its reason."""

from __future__ import annotations

import msgspec

from superbrain.domain.manifest import Batching, Manifest, Serving
from superbrain.domain.proof import CaseTime, Proof
from superbrain.domain.settings import explain
from tests.support.manifests import valid_manifest as valid


def told(manifest: Manifest, name: str, proof: Proof | None = None, cores: int = 4) -> str:
    (setting,) = [one for one in explain(manifest, proof, cores) if one.name == name]
    return f"{setting.value}: {setting.why}"


def served(serving: Serving) -> Manifest:
    return msgspec.structs.replace(valid(), serving=serving)


def test_without_batching_it_says_whose_decision_that_is() -> None:
    assert told(valid(), "batching") == (
        "off: every request has a run of its own: the manifest's max_size is 1"
    )


def test_batching_says_who_waits_and_how_long() -> None:
    assert "none is ever held" in told(served(Serving(batching=Batching(8))), "batching")
    assert "never on an idle worker" in told(served(Serving(batching=Batching(8, 2))), "batching")
    stubborn = served(Serving(batching=Batching(8, 2, adaptive=False)))
    assert "always held up to 2 ms" in told(stubborn, "batching")


def test_more_threads_than_cores_are_remarked_upon() -> None:
    assert "take turns" in told(served(Serving(instances=5)), "threads")
    assert "take turns" not in told(served(Serving(instances=4)), "threads")


def test_the_window_of_a_fast_model_names_the_time_it_comes_from() -> None:
    proof = Proof("onnxruntime:cpu", [], [CaseTime("a", 0.7), CaseTime("b", 0.2)])
    assert told(valid(), "window", proof) == (
        "10 requests: travel at once: 2 ms of work at 0.2 ms each, as proven here"
    )


def test_the_window_of_a_slow_model_is_one_ahead() -> None:
    proof = Proof("onnxruntime:cpu", [], [CaseTime("a", 7.0)])
    assert told(valid(), "window", proof).startswith("2 requests: travel at once: one request")
    batched = served(Serving(batching=Batching(8)))
    assert told(batched, "window", proof).startswith("16 requests: travel at once: one batch")
