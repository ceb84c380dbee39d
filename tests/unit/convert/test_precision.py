"""Other precisions: which are asked for, which hold, and what becomes of those that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from superbrain.convert import precision, reference
from superbrain.convert.in_a_child import ChildEnded
from superbrain.convert.parity import Pair, measure
from superbrain.convert.precision import LIMITS, MARGIN, Asked, make_variant, parse_precision
from superbrain.domain.manifest import Close, Graph, GraphTensor
from superbrain.engines import autocast
from superbrain.engines.conversion import Made
from superbrain.wire.errors import SuperbrainError
from tests.support.networks import classifier_network

Y = GraphTensor("y", "FP32", ["n"])


def pairs(error: float, name: str = "c0") -> list[Pair]:
    original = np.array([1, -1], np.float32)
    return [Pair(name, {"n": 2}, [original], [original * np.float32(1 + error)])]


def asked(folder: Path, error: float, held: float) -> Asked:
    file = folder / "model.onnx"
    file.write_bytes(b"graph")
    graph = Graph("", [], [Y])
    return Asked(file, graph, [], lambda _: pairs(error), lambda _: pairs(held, "typical"))


@pytest.fixture(autouse=True)
def converter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A converter that writes a file, and a host that has answered."""

    def converted(_precision: str, _asked: Asked, *rest: Any, light: bool) -> Made:  # noqa: ANN401
        rest[-1].write_bytes(b"half")
        return Made("rounding" if light else "AutoCast", "" if light else "with a note")

    monkeypatch.setattr(precision, "_converted", converted)
    monkeypatch.setattr(reference, "answer", lambda *_, **__: None)


def test_a_precision_has_a_limit_of_its_own_or_the_authors() -> None:
    assert parse_precision("fp16") == ("fp16", LIMITS["fp16"])
    assert parse_precision("int8=0.2") == ("int8", 0.2)


@pytest.mark.parametrize("text", ["", "int4", "int8=x", "int8=0", "int8=0.6", "fp16=nan"])
def test_what_is_no_precision_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_precision(text)


def test_one_that_holds_keeps_its_file_and_a_tolerance_of_twice_its_error(tmp_path: Path) -> None:
    found = make_variant("int8", 0.1, asked(tmp_path, 0.04, 0.03), [], tmp_path)
    assert (found.path, found.reason) == (tmp_path / "model.int8.onnx", "")
    assert found.figures[0].share == pytest.approx(0.02, rel=0.01)
    assert found.tolerances == {"y": Close(0.05, 0.05)}
    assert found.figures[0].held_share == pytest.approx(0.015, rel=0.01)


def test_one_beyond_its_limit_is_left_out_with_its_figures(tmp_path: Path) -> None:
    found = make_variant("fp16", 0.01, asked(tmp_path, 0.04, 0.03), [], tmp_path)
    assert found.path is None
    assert "errors of up to 0.02 of the values' size, expected 0.01 at most" in found.reason
    assert not found.figures[0].agrees
    assert not (tmp_path / "model.fp16.onnx").exists()


def test_one_that_does_not_hold_on_the_golden_cases_is_left_out(tmp_path: Path) -> None:
    found = make_variant("int8", 0.1, asked(tmp_path, 0.01, 0.09), [], tmp_path)
    assert found.path is None
    assert "to hold for others, found in typical" in found.reason
    assert not (tmp_path / "model.int8.onnx").exists()


def test_a_converter_that_fails_is_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:  # noqa: ANN401
        raise SuperbrainError("expected a graph that converts to fp16, found none")

    monkeypatch.setattr(precision, "_converted", fails)
    found = make_variant("fp16", 0.01, asked(tmp_path, 0.0, 0.0), [], tmp_path)
    assert (found.path, found.figures) == (None, [])
    assert found.reason == "expected a graph that converts to fp16, found none"


@pytest.mark.parametrize(
    ("light", "made"), [(False, Made("AutoCast", "with a note")), (True, Made("rounding"))]
)
@pytest.mark.parametrize("error", [0.0, 0.2])
def test_kept_or_harmful_it_is_told_what_made_it(
    tmp_path: Path, light: bool, made: Made, error: float
) -> None:
    found = make_variant("fp16", 0.01, asked(tmp_path, error, 0.0), [], tmp_path, light=light)
    assert found.made == made


def test_a_converter_that_dies_is_told_with_the_way_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any) -> None:  # noqa: ANN401
        raise ChildEnded("ended with status -11: Segmentation fault")

    monkeypatch.undo()
    monkeypatch.setattr(precision, "ask_child", dies)
    monkeypatch.setattr(autocast, "installed_version", lambda: "9.8.7")
    held = asked(tmp_path, 0.0, 0.0)
    onnx.save(classifier_network(), held.file)
    found = make_variant("fp16", 0.01, held, [], tmp_path / "work")
    assert found.path is None
    assert "ended with status -11: Segmentation fault" in found.reason
    assert found.reason.endswith("Make it without AutoCast: --light")


def test_equal_answers_leave_half_precision_its_own_room() -> None:
    found = measure("y", 0, pairs(0.0), 0.01, margin=MARGIN, least="fp16")
    assert found.tolerance == Close(2e-3, 2e-3)
