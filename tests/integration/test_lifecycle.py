"""From a dropped file to a live version and away again, with a real daemon."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from superbrain.domain import operations as op
from superbrain.domain.health import InboxFile
from superbrain.wire.errors import NotFound, Unavailable
from tests.support.appliance import Appliance
from tests.support.bundles import make_bundle, sign_key
from tests.support.load import Load
from tests.support.processes import PATIENCE_S
from tests.support.releases import answer, go_live, release

pytestmark = pytest.mark.integration


@pytest.fixture
def appliance(tmp_path: Path) -> Iterator[Appliance]:
    with Appliance(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One for all that leaves no trace: adder 2.0.0 serves, and goes on to."""
    with Appliance(tmp_path_factory.mktemp("serving")) as running:
        go_live(running, 2)
        yield running


# --- arriving -------------------------------------------------------------------------------------


def test_a_dropped_bundle_answers_and_leaves_the_inbox(appliance: Appliance) -> None:
    go_live(appliance, 1)
    assert answer(appliance) == 1
    appliance.wait_for(lambda: not list(appliance.inbox.iterdir()), "an empty inbox")


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this host has an NVIDIA GPU")
def test_a_rung_without_its_gpu_says_so_and_the_next_one_serves(appliance: Appliance) -> None:
    go_live(appliance, 1, ladder=["tensorrt-rtx:fp32", "onnxruntime:cpu"])
    (failed,) = (one for one in appliance.history("adder") if one.event == "StageFailed")
    assert failed.detail.startswith("tensorrt-rtx:fp32: expected ")
    assert answer(appliance) == 1
    assert not list((appliance.root / "state" / "engines").glob("*/engine"))


def test_the_same_bundle_dropped_twice_is_taken_once(appliance: Appliance) -> None:
    go_live(appliance, 1)
    dropped = appliance.drop(release(appliance, 1))
    appliance.wait_for(lambda: not dropped.exists(), "the second copy to go")
    assert {step.deployment_id for step in appliance.history("adder")} == {1}


def test_a_slow_copy_waits_and_says_how_far_it_is(appliance: Appliance) -> None:
    data = release(appliance, 1).read_bytes()
    target = appliance.inbox / "adder-1.0.0.sbb"
    with target.open("wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        notes = appliance.wait_for(
            lambda: [note for note in appliance.health().inbox if note.have_bytes], "a look at it"
        )
        assert (notes[0].outcome, notes[0].have_bytes) == ("waiting", len(data) // 2)
        file.write(data[len(data) // 2 :])
    appliance.wait_live("adder", "1.0.0")


def test_a_preallocated_copy_is_not_held_against_its_author(appliance: Appliance) -> None:
    data = release(appliance, 1).read_bytes()
    target = appliance.inbox / "adder-1.0.0.sbb"
    with target.open("wb") as file:
        file.truncate(len(data))
        file.flush()
        file.seek(0)
        for start in range(0, len(data), 512):
            file.write(data[start : start + 512])
            file.flush()
            os.utime(target)
    appliance.wait_live("adder", "1.0.0")


def test_a_stray_file_is_ignored_and_said_to_be(serving: Appliance) -> None:
    stray = serving.inbox / "notes.txt"
    stray.write_text("hello")
    note = serving.wait_for(lambda: noted(serving, stray.name), "the file to be noticed")
    assert note.outcome == "ignored"
    stray.unlink()


def noted(appliance: Appliance, name: str) -> InboxFile | None:
    return next((one for one in appliance.health().inbox if one.name == name), None)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        ("stranger", "SIGNATURE"),
        ("flipped", "ARCHIVE"),
        ("longer", "ARCHIVE"),
        ("text", "ARCHIVE"),
    ],
)
def test_a_bad_file_is_put_aside_with_the_reason(
    serving: Appliance, tmp_path: Path, damage: str, code: str
) -> None:
    stranger = sign_key(tmp_path, "stranger")
    author = stranger if damage == "stranger" else serving.author
    built = make_bundle(tmp_path, author, version="3.0.0", sequence=3)
    data = bytearray(built.path.read_bytes())
    if damage == "flipped":
        data[-1500] ^= 1
    elif damage == "longer":
        data += b"more"
    elif damage == "text":
        data[:] = b"this is not a bundle\n" * 100
    name = f"{damage}.sbb"
    (serving.inbox / name).write_bytes(data)
    text = serving.refusal(name)
    assert f"was refused ({code}" in text
    assert "Traceback" not in text
    aside = serving.inbox / f"{name}.refused"
    serving.wait_for(aside.exists, "the file to be put aside")  # after its note
    assert answer(serving) == 2


def test_a_lower_sequence_is_refused_and_the_live_version_stays(serving: Appliance) -> None:
    serving.drop(release(serving, 1))
    assert "expected a sequence of 2" in serving.refusal("adder-1.0.0.sbb")
    assert answer(serving) == 2


# --- proving --------------------------------------------------------------------------------------


def test_a_bundle_that_does_not_reproduce_its_goldens_never_serves(appliance: Appliance) -> None:
    go_live(appliance, 1)
    with Load(appliance.client) as load:
        appliance.drop(release(appliance, 2, golden_error=0.5))
        step = appliance.wait_ended("adder", "2.0.0", "REJECTED")
    assert "largest" in step.detail
    assert load.versions == {"1.0.0"}
    load.assert_flawless()
    assert "GOLDEN_MISMATCH" in appliance.refusal("adder-2.0.0.sbb")


def test_the_figures_of_a_failed_proof_are_in_the_report(appliance: Appliance) -> None:
    appliance.drop(release(appliance, 1, golden_error=0.5))
    appliance.wait_ended("adder", "1.0.0", "REJECTED")
    report = appliance.ask(op.GetReport("adder", "1.0.0"), op.ReportReply)
    figure = report.proofs[-1].proof.figures[0]
    assert not figure.passed
    assert figure.max_abs_error == pytest.approx(0.5)


def test_a_rung_this_host_does_not_have_falls_to_the_next(appliance: Appliance) -> None:
    ladder = ["tensorrt:fp16", "onnxruntime:cpu"]
    go_live(appliance, 1, ladder=ladder)
    steps = [(step.event, step.rung) for step in appliance.history("adder")]
    assert ("StageFailed", "tensorrt:fp16") in steps
    model = appliance.model("adder")
    assert model is not None
    assert model.rung == "onnxruntime:cpu"


def test_code_that_does_not_import_is_the_bundles_fault(appliance: Appliance) -> None:
    appliance.drop(release(appliance, 1, pipeline="import no_such_module_anywhere"))
    step = appliance.wait_ended("adder", "1.0.0", "REJECTED")
    assert "no_such_module_anywhere" in step.detail


def test_code_that_ends_its_process_does_not_end_the_daemon(appliance: Appliance) -> None:
    go_live(appliance, 1)
    appliance.drop(release(appliance, 2, pipeline="import os\nos._exit(7)"))
    step = appliance.wait_ended("adder", "2.0.0", "FAILED")
    assert "exited with status 7" in step.detail
    assert answer(appliance) == 1


# --- swapping -------------------------------------------------------------------------------------


def test_a_second_version_takes_over_without_a_failed_request(appliance: Appliance) -> None:
    go_live(appliance, 1)
    with Load(appliance.client) as load:
        go_live(appliance, 2)
    load.assert_flawless()
    assert load.versions == {"1.0.0", "2.0.0"}


def test_the_replaced_version_is_retired_and_its_process_gone(appliance: Appliance) -> None:
    go_live(appliance, 1)
    go_live(appliance, 2)
    appliance.wait_ended("adder", "1.0.0", "RETIRED")
    appliance.wait_for(lambda: len(appliance.at_work()) == 2, "one gateway and one worker")


def test_a_newer_bundle_abandons_an_unfinished_older_one(appliance: Appliance) -> None:
    slow = "import time\ntime.sleep(30)\nclass Pipeline: pass"
    appliance.drop(release(appliance, 1, pipeline=slow))
    appliance.wait_for(
        lambda: [s for s in appliance.history("adder") if s.state_to == "BUILDING"], "a slow load"
    )
    go_live(appliance, 2)
    appliance.wait_ended("adder", "1.0.0", "ABANDONED")


def test_only_current_and_previous_bundles_are_kept(appliance: Appliance) -> None:
    for number in (1, 2, 3):
        go_live(appliance, number)
    appliance.wait_ended("adder", "2.0.0", "RETIRED")
    store = appliance.root / "state" / "store" / "bundles"
    appliance.wait_for(lambda: len(list(store.iterdir())) == 2, "the oldest bundle to go")


def test_several_instances_share_the_work(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1, more="", serving="instances = 2")
        model = appliance.model("adder")
        assert model is not None
        assert len(model.workers) == 2
        assert answer(appliance) == 1


# --- an operator's orders -------------------------------------------------------------------------


def test_rollback_brings_the_previous_version_back_under_load(appliance: Appliance) -> None:
    go_live(appliance, 1)
    go_live(appliance, 2)
    appliance.wait_ended("adder", "1.0.0", "RETIRED")
    with Load(appliance.client) as load:
        outcome = appliance.ask(op.Rollback("adder"), op.Outcome)
    assert outcome.message == "adder 1.0.0 serves again instead of 2.0.0"
    assert (load.failed, load.mixed) == ([], [])
    assert answer(appliance) == 1
    appliance.wait_ended("adder", "2.0.0", "ROLLED_BACK")


def test_rollback_during_probation_uses_the_warm_predecessor(tmp_path: Path) -> None:
    with Appliance(tmp_path, probation_s=60) as appliance:
        appliance.drop(release(appliance, 1))
        appliance.wait_ended("adder", "1.0.0", "PROBATION")
        first = appliance.model("adder")
        appliance.drop(release(appliance, 2))
        appliance.wait_ended("adder", "2.0.0", "PROBATION")
        appliance.ask(op.Rollback("adder"), op.Outcome)
        again = appliance.model("adder")
        assert first is not None
        assert again is not None
        assert [w.pid for w in again.workers] == [w.pid for w in first.workers]
        assert answer(appliance) == 1


def test_a_second_rollback_without_an_earlier_version_is_refused(appliance: Appliance) -> None:
    go_live(appliance, 1)
    go_live(appliance, 2)
    appliance.ask(op.Rollback("adder"), op.Outcome)
    refusal = appliance.ask(op.Rollback("adder"), op.Refusal)
    assert refusal.code == "NO_PREVIOUS"
    assert answer(appliance) == 1


def test_a_newer_version_may_follow_a_rollback(appliance: Appliance) -> None:
    go_live(appliance, 1)
    go_live(appliance, 2)
    appliance.ask(op.Rollback("adder"), op.Outcome)
    go_live(appliance, 3)
    assert answer(appliance) == 3


def test_a_retired_model_is_not_found_and_retry_brings_it_back(appliance: Appliance) -> None:
    go_live(appliance, 1)
    appliance.ask(op.Retire("adder"), op.Outcome)
    with pytest.raises(NotFound):
        answer(appliance)
    appliance.ask(op.Retry("adder"), op.Outcome)
    appliance.wait_live("adder", "1.0.0")
    assert answer(appliance) == 1


def test_orders_about_an_unknown_model_are_refused_by_name(serving: Appliance) -> None:
    for order in (op.Rollback("nobody"), op.Retire("nobody"), op.Retry("nobody")):
        assert "nobody" in serving.ask(order, op.Refusal).message


# --- starting again -------------------------------------------------------------------------------


def test_after_a_restart_the_same_version_serves_proven_again(appliance: Appliance) -> None:
    go_live(appliance, 1)
    appliance.stop()
    appliance.start()
    appliance.wait_live("adder", "1.0.0")
    assert answer(appliance) == 1
    report = appliance.ask(op.GetReport("adder"), op.ReportReply)
    assert len(report.proofs) == 2


def test_requests_wait_for_a_restarting_daemon_instead_of_failing(appliance: Appliance) -> None:
    go_live(appliance, 1)
    with Load(appliance.client, clients=2) as load:
        appliance.stop()
        appliance.start()
        appliance.wait_live("adder", "1.0.0")
    load.assert_flawless()


def test_a_damaged_store_falls_back_to_the_previous_version(appliance: Appliance) -> None:
    go_live(appliance, 1)
    go_live(appliance, 2)
    digest = appliance.model("adder").digest  # type: ignore[union-attr]
    appliance.stop()
    graph = appliance.root / "state/store/bundles" / digest / "graphs/main.onnx"
    graph.chmod(0o600)
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    appliance.start()
    appliance.wait_ended("adder", "2.0.0", "ROLLED_BACK")
    assert answer(appliance) == 1


def test_without_a_previous_version_a_damaged_store_is_said_to_be(appliance: Appliance) -> None:
    go_live(appliance, 1)
    digest = appliance.model("adder").digest  # type: ignore[union-attr]
    appliance.stop()
    shutil.rmtree(appliance.root / "state/store/bundles" / digest / "graphs")
    appliance.start()
    appliance.wait_for(lambda: appliance.health().status == "critical", "the truth")
    model = appliance.model("adder")
    assert model is not None
    assert "graphs/main.onnx" in model.last_error
    assert appliance.health().status == "critical"
    with pytest.raises(Unavailable):
        answer(appliance)


def test_a_second_daemon_on_the_same_folders_is_refused(serving: Appliance) -> None:
    other = serving.start_another()
    assert other.returncode == 1
    assert "another superbraind already uses" in other.stderr
    assert "Traceback" not in other.stderr


def test_an_orderly_stop_leaves_no_process_and_no_socket(appliance: Appliance) -> None:
    go_live(appliance, 1)
    children = appliance.children()
    assert appliance.stop() == 0
    assert not any(child.is_running() for child in children)


# --- nobody gets round the rules ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["infer.sock", "control.sock"])
def test_a_socket_whose_file_somebody_removes_is_there_again(
    appliance: Appliance, name: str
) -> None:
    go_live(appliance, 1)
    path = appliance.root / "run" / name
    with appliance.client(lanes=False) as asks_already:
        question = {"x": np.zeros((1, 4), np.float32)}
        asks_already.infer("adder", question, timeout=PATIENCE_S)
        mode = path.stat().st_mode
        path.unlink()
        appliance.wait_for(path.exists, f"another {name}")
        assert path.stat().st_mode == mode
        assert answer(appliance) == 1.0
        asks_already.infer("adder", question, timeout=PATIENCE_S)
    assert appliance.health().models[0].state == "ready"
    (told,) = appliance.logged("socket_made_again")
    assert str(path) in str(told)


def test_a_retained_older_bundle_cannot_come_back_through_the_inbox(appliance: Appliance) -> None:
    go_live(appliance, 1)
    go_live(appliance, 2)
    appliance.wait_ended("adder", "1.0.0", "RETIRED")
    appliance.drop(release(appliance, 1))
    assert "expected a sequence of 2" in appliance.refusal("adder-1.0.0.sbb")
    assert answer(appliance) == 2


def test_a_version_refused_before_it_was_taken_is_reported_from_the_journal(
    appliance: Appliance,
) -> None:
    go_live(appliance, 2)
    appliance.drop(release(appliance, 1))
    appliance.wait_ended("adder", "1.0.0", "REJECTED")
    report = appliance.ask(op.GetReport("adder", "1.0.0"), op.ReportReply)
    assert (report.state, report.stored, report.created) == ("REJECTED", False, None)
    assert report.reason is not None
    assert report.reason.code == "SEQUENCE_BELOW_FLOOR"
    assert {one.verdict for one in report.rungs} == {"not tried"}
    refusal = appliance.ask(op.Retry("adder", "1.0.0"), op.Refusal)
    assert refusal.code == "NOT_RETAINED"
    assert report.reason.message in refusal.message
    assert "Another file is needed" in refusal.mend


def test_a_bundle_revoked_since_cannot_be_retried(appliance: Appliance) -> None:
    go_live(appliance, 1)
    digest = appliance.model("adder").digest  # type: ignore[union-attr]
    appliance.ask(op.Retire("adder"), op.Outcome)
    trust = appliance.root / "trust" / "trust.toml"
    trust.write_text(f'threshold = 1\nrevoked_bundles = ["{digest}"]\n')
    appliance.ask(op.Reload(), op.Outcome)
    appliance.ask(op.Retry("adder"), op.Outcome)
    step = appliance.wait_ended("adder", "1.0.0", "REJECTED")
    assert "revoked" in step.detail


def test_without_a_trusted_key_nothing_is_taken_and_health_says_so(appliance: Appliance) -> None:
    for key in (appliance.root / "trust" / "keys").iterdir():
        key.unlink()
    appliance.ask(op.Reload(), op.Outcome)
    appliance.drop(release(appliance, 1))
    noted = appliance.wait_noted("it cannot be judged")
    assert (noted.outcome, noted.name) == ("waiting", "adder-1.0.0.sbb")
    assert any(problem.subject == "trust" for problem in appliance.health().problems)


def test_a_reload_says_what_keeps_new_bundles_out(appliance: Appliance) -> None:
    trust, inbox = appliance.root / "trust" / "trust.toml", appliance.inbox
    trust.write_text("threshold = 5\n")
    message = appliance.ask(op.Reload(), op.Outcome).message
    assert "read again (1 key) and the inbox is looked through. Warning: no new bundle" in message
    assert "expected at least 5 trusted keys" in message
    trust.write_text("threshold = 1\n")
    inbox.rmdir()
    inbox.touch()
    message = appliance.ask(op.Reload(), op.Outcome).message
    assert "looked through" not in message
    assert f"Warning: no new bundle is taken: the inbox {inbox} cannot be read" in message
    inbox.unlink()
    inbox.mkdir()
    assert "Warning" not in appliance.ask(op.Reload(), op.Outcome).message


def test_a_reload_applies_what_it_can_names_the_rest_and_refuses_what_does_not_fit(
    appliance: Appliance,
) -> None:
    file = appliance.root / "superbrain.toml"
    usual = file.read_text()
    file.write_text(f'{usual}[log]\nlevel = "debug"\n')
    file.write_text(file.read_text().replace("[deploy]\n", "[deploy]\nparallel = 3\n"))
    message = appliance.ask(op.Reload(), op.Outcome).message
    assert 'log.level = "debug" holds now' in message
    assert "deploy.parallel = 3 needs a restart" in message
    file.write_text("[deploy]\nparalel = 3\n")
    refusal = appliance.ask(op.Reload(), op.Refusal)
    assert "did you mean deploy.parallel?" in refusal.message
    assert any(problem.subject == "configuration" for problem in appliance.health().problems)
    file.write_text(usual)
    assert 'log.level = "info" holds now' in appliance.ask(op.Reload(), op.Outcome).message
    assert not any(problem.subject == "configuration" for problem in appliance.health().problems)
