"""What is wrong with a GPU, and which models have to leave it."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from superbrain.domain import gpu_rules
from superbrain.domain.gpu_rules import must_leave, rungs_without_gpu, troubles, unusable
from superbrain.domain.health import GpuFacts, GpuProcess, GpuXid
from tests.support.reports import NOON

GOOD = GpuFacts(0, "NVIDIA L4", temperature_celsius=51.0, ecc_uncorrected=0, throttled_by=[])
OTHER = GpuFacts(1, "NVIDIA T4")
LOST = msgspec.structs.replace(GOOD, lost="it has fallen off the bus")


def with_xid(code: int, age: dt.timedelta = dt.timedelta(0)) -> GpuFacts:
    return msgspec.structs.replace(GOOD, xids=[GpuXid(NOON - age, code)])


def test_a_gpu_that_is_well_and_one_that_tells_nothing_are_no_trouble() -> None:
    assert troubles([GOOD, OTHER], NOON) == []
    assert troubles([], NOON) == []


@pytest.mark.parametrize(
    ("gpu", "leave", "said"),
    [
        (LOST, True, "fallen off the bus"),
        (with_xid(79), True, "Xid 79: it has fallen off the bus"),
        (with_xid(48, dt.timedelta(days=3)), True, "cannot correct"),
        (with_xid(999), True, "Xid 999: the driver reported an error of the device"),
        (with_xid(31), False, "a program used memory"),
        (with_xid(45), False, "a program was ended"),
        (with_xid(94), False, "contained"),
        (msgspec.structs.replace(GOOD, ecc_uncorrected=3), False, "3 memory errors"),
        (
            msgspec.structs.replace(GOOD, throttled_by=["power limit", "temperature"]),
            False,
            "slowed down by its temperature at 51 °C",
        ),
    ],
)
def test_each_trouble_says_what_it_is_and_what_to_do(gpu: GpuFacts, leave: bool, said: str) -> None:
    (found,) = troubles([gpu], NOON)
    assert (found.gpu, found.leave) == (0, leave)
    assert said in found.message
    assert found.mend
    (problem,) = gpu_rules.problems([found])
    assert (problem.severity, problem.subject) == ("warning", "GPU 0")


def test_a_programs_error_is_forgotten_after_a_while() -> None:
    assert troubles([with_xid(13, dt.timedelta(hours=2))], NOON) == []


def test_the_same_error_again_and_again_is_one_trouble() -> None:
    gpu = msgspec.structs.replace(GOOD, xids=[GpuXid(NOON, 48)] * 3)
    assert len(troubles([gpu], NOON)) == 1


def test_a_driver_that_does_not_answer_concerns_every_gpu() -> None:
    assert troubles([GOOD], NOON, silent_s=5.0) == []
    (found,) = troubles([GOOD], NOON, silent_s=61.0)
    assert (found.gpu, found.leave) == (None, True)
    assert must_leave("tensorrt:fp16", [1], [GOOD], [found]) is found


MINE = msgspec.structs.replace(LOST, processes=[GpuProcess(7, 1)])
YOURS = msgspec.structs.replace(OTHER, processes=[GpuProcess(8, 1)])


@pytest.mark.parametrize(
    ("rung", "pids", "gpus", "leaves"),
    [
        ("onnxruntime:cpu", [7], [MINE, YOURS], False),
        ("tensorrt:fp16", [7], [MINE, YOURS], True),
        ("tensorrt:fp16", [8], [MINE, YOURS], False),
        ("onnxruntime:cuda", [9], [MINE, YOURS], True),
        ("onnxruntime:cuda", [9], [GOOD, YOURS], False),
    ],
    ids=["on the processor", "on the lost one", "on the other one", "nobody knows", "none is lost"],
)
def test_a_model_leaves_a_lost_gpu_if_it_is_the_one_it_runs_on(
    rung: str, pids: list[int], gpus: list[GpuFacts], leaves: bool
) -> None:
    assert (must_leave(rung, pids, gpus, troubles(gpus, NOON)) is not None) == leaves


@pytest.mark.parametrize(
    ("rung", "gpus", "refused"),
    [
        ("onnxruntime:cpu", [LOST], False),
        ("tensorrt:fp16", [LOST], True),
        ("tensorrt:fp16", [LOST, OTHER], False),
        ("tensorrt:fp16", [with_xid(45)], False),
        ("tensorrt:fp16", [], False),
    ],
)
def test_nothing_begins_where_no_gpu_can_be_believed(
    rung: str, gpus: list[GpuFacts], refused: bool
) -> None:
    found = troubles(gpus, NOON)
    assert (unusable(rung, gpus, found) is not None) == refused


@pytest.mark.parametrize(
    ("steps", "place"),
    [
        ([], None),
        ([("Stable", "tensorrt:fp16")], None),
        ([("Noted", "onnxruntime:cpu"), ("RungLost", "tensorrt:fp16")], 0),
        ([("RungRegained", "onnxruntime:cpu"), ("RungLost", "tensorrt:fp16")], None),
        ([("RungChanged", "tensorrt:fp16")], None),
        ([("RungLost", "no longer in the ladder")], None),
    ],
)
def test_what_left_a_gpu_has_a_rung_to_return_to(
    steps: list[tuple[str, str]], place: int | None
) -> None:
    assert gpu_rules.home(("tensorrt:fp16", "onnxruntime:cpu"), steps) == place


def test_a_rung_that_lacks_its_gpu_at_the_start_is_one_to_return_to() -> None:
    assert gpu_rules.lost_gpu("tensorrt:fp16", "RungUnavailable")
    assert not gpu_rules.lost_gpu("tensorrt:fp16", "GOLDEN_MISMATCH")
    assert not gpu_rules.lost_gpu("onnxruntime:cpu", "RungUnavailable")


def test_the_way_down_skips_rungs_that_need_a_gpu() -> None:
    ladder = ("tensorrt:fp16", "onnxruntime:cpu", "onnxruntime:cuda", "onnxruntime-int8:cpu")
    assert rungs_without_gpu(ladder, 0) == [1, 3]
    assert rungs_without_gpu(ladder, 3) == []
