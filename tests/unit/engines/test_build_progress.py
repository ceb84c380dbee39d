"""How far a build is: of steps, nested, never backwards."""

from __future__ import annotations

from superbrain.engines.build_progress import BuildSteps


def test_a_phase_alone() -> None:
    steps = BuildSteps()
    steps.start("building", None, 4)
    assert (steps.phase, steps.percent) == ("building", 0.0)
    steps.step("building", 0)
    assert steps.percent == 25.0


def test_a_phase_inside_is_a_part_of_one_step() -> None:
    steps = BuildSteps()
    steps.start("building", None, 2)
    steps.step("building", 0)
    steps.start("timing", "building", 4)
    steps.step("timing", 0)
    assert (steps.phase, steps.percent) == ("timing", 62.5)
    steps.finish("timing")
    assert steps.phase == "building"


def test_it_never_goes_back() -> None:
    steps = BuildSteps()
    steps.start("building", None, 2)
    steps.step("building", 0)
    steps.start("another root", None, 10)
    steps.finish("building")
    steps.step("another root", 0)
    assert steps.percent == 50.0


def test_it_never_says_that_all_is_done() -> None:
    steps = BuildSteps()
    steps.start("building", None, 1)
    steps.step("building", 0)
    assert steps.percent == 99.0


def test_what_makes_no_sense_is_borne() -> None:
    steps = BuildSteps()
    steps.step("never begun", 3)
    steps.finish("never begun")
    steps.start("its own parent", "its own parent", 0)
    steps.step("its own parent", 7)
    assert 0 <= steps.percent <= 99
