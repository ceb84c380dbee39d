"""Code that takes too much, and kernels that cannot hold it: the rest of the appliance goes on.

What reaches for files, networks and processes of others is in tests/corpus/trespasses.py.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from superbrain.deploy.journal import Journal
from superbrain.domain import operations as op
from superbrain.domain.deployment import Reason
from superbrain.host.sandbox import filter as seccomp
from superbrain.host.sandbox import landlock
from superbrain.wire.errors import SuperbrainError
from tests.support.appliance import Appliance
from tests.support.load import Load
from tests.support.releases import go_live, release

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

OLD_KERNEL_DAEMON = str(Path(__file__).parents[1] / "support" / "old_kernel_daemon.py")
HOLDS = bool(landlock.abi()) and seccomp.this_machine() is not None
LIMITS = "[sandbox]\nmemory_mib = 500\nthreads = 60\nscratch_mib = 8\n"
CODE = """\
import itertools, os, threading, time

def take():
{take}

class Pipeline:
    def __init__(self, bundle):
        {init}
    def preprocess(self, request):
        {before}
        return request
    def postprocess(self, outputs, request):
        return outputs
"""
EAT = """
kept = []
while True:
    try:
        kept.append(b"x" * (8 << 20))
    except MemoryError:
        time.sleep(0.01)
"""
THREADS = """
while True:
    try:
        threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
    except RuntimeError:
        time.sleep(0.01)
"""
FILL = """
for number in itertools.count():
    with open(f"file-{number}", "wb") as file:
        file.write(bytes(1 << 20))
    time.sleep(0.02)
"""
FILL_UNSEEN = """
kept = []
for number in itertools.count():
    kept.append(open("file", "wb"))
    os.unlink("file")
    kept[-1].write(bytes(1 << 20))
    kept[-1].flush()
    time.sleep(0.02)
"""
ONE_FILE = 'open("file", "wb").write(bytes(9 << 20))'


def code(take: str, init: str = "pass", before: str = "pass") -> str:
    body = textwrap.indent(textwrap.dedent(take).strip(), "    ")
    return CODE.format(take=body, init=init, before=before)


def held_appliance(folder: Path, settings: str) -> Appliance:
    appliance = Appliance(folder, start=False)
    with (appliance.root / "superbrain.toml").open("a") as config:
        config.write(settings)
    return appliance


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """Keep one appliance with small limits, whose live model must not notice any of this."""
    with held_appliance(tmp_path_factory.mktemp("held"), LIMITS) as held:
        held.start()
        go_live(held, 1)
        pid = held.health().process.pid
        with Load(held.client, clients=1) as load:
            yield held
            assert held.health().process.pid == pid
        load.assert_flawless()


def end_of(appliance: Appliance, name: str, state: str, **options: Any) -> Reason:  # noqa: ANN401
    """Drop a bundle and wait for its bad end; why."""
    appliance.drop(release(appliance, 1, name=name, **options))
    appliance.wait_ended(name, "1.0.0", state)
    journal = Journal(appliance.root / "state/journal.sqlite")
    try:
        (newest,) = journal.of_model(name, 1)
    finally:
        journal.close()
    assert newest.reason is not None
    return newest.reason


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("eats", code(EAT, init="take()"), "MEMORY_LIMIT"),
        ("threads", code(THREADS) + "take()\n", "THREAD_LIMIT"),
        ("fills", code(FILL, before="take()"), "SCRATCH_LIMIT"),
        ("fills-unseen", code(FILL_UNSEEN, init="take()"), "SCRATCH_LIMIT"),
    ],
)
def test_code_that_takes_too_much_is_ended_and_the_limit_named(
    appliance: Appliance, name: str, source: str, expected: str
) -> None:
    reason = end_of(appliance, name, "FAILED", pipeline=source)
    assert reason.code == expected, reason
    assert "expected at most" in reason.message
    assert "worker_over_limit" in appliance.log_text()


def test_a_file_beyond_the_limit_is_an_error_of_the_code(appliance: Appliance) -> None:
    reason = end_of(appliance, "big", "REJECTED", pipeline=code(ONE_FILE, before="take()"))
    assert reason.code == "GOLDEN_MISMATCH"
    assert "File too large" in reason.message


def test_a_serving_worker_that_takes_too_much_is_replaced(appliance: Appliance) -> None:
    eater = code(EAT, before="take() if request['x'][0, 0] == 99 else None")
    appliance.drop(release(appliance, 1, name="eater", pipeline=eater))
    appliance.wait_live("eater", "1.0.0")
    with appliance.client() as client:
        with pytest.raises(SuperbrainError):
            client.infer("eater", {"x": np.full((1, 4), 99, np.float32)})
        model = appliance.model("eater")
        assert model is not None
        assert "of memory" in model.last_error
        assert client.infer("eater", {"x": np.zeros((1, 4), np.float32)})["y"][0, 0] == 1


def test_nothing_of_an_ended_worker_is_left(appliance: Appliance) -> None:
    end_of(appliance, "fails", "REJECTED", pipeline=code("1 / 0", init="take()"))
    for folder, pattern in (("state/scratch", "*"), ("run/lanes", "*.lane")):

        def one_each(folder: str = folder, pattern: str = pattern) -> bool:
            models = [model for model in appliance.health().models if model.workers]
            return len(list((appliance.root / folder).glob(pattern))) == len(models)

        appliance.wait_for(one_each, f"one entry of {folder} for each worker")


# --- the level ------------------------------------------------------------------------------------


def test_the_level_is_in_health_and_report(appliance: Appliance) -> None:
    if not HOLDS:
        pytest.skip("this kernel or processor cannot hold a worker fully")
    model = appliance.model("adder")
    assert model is not None
    assert model.sandbox is not None
    assert (model.sandbox.level, model.sandbox.missing) == ("full", [])
    report = appliance.ask(op.GetReport("adder"), op.ReportReply)
    assert [one.value for one in report.settings if one.name == "sandbox"] == ["full"]
    assert "worker_confined" in appliance.log.read_text()


def test_a_worker_keeps_no_privilege_and_goes_first_when_memory_is_out(
    appliance: Appliance,
) -> None:
    model = appliance.model("adder")
    assert model is not None
    process = Path(f"/proc/{model.workers[0].pid}")
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    assert {status[name] for name in ("CapPrm", "CapEff", "CapAmb")} <= {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert int((process / "oom_score_adj").read_text()) >= 300


def test_a_kernel_that_holds_less_serves_all_the_same_and_says_so(tmp_path: Path) -> None:
    with held_appliance(tmp_path, "") as appliance:
        appliance.start(OLD_KERNEL_DAEMON)
        go_live(appliance, 1)
        model = appliance.model("adder")
        assert model is not None
        assert model.sandbox is not None
        assert model.sandbox.level == "partial"
        assert model.sandbox.missing == ["files of its user can be read and written"]


def test_below_the_level_that_is_demanded_nothing_is_loaded(tmp_path: Path) -> None:
    with held_appliance(tmp_path, '[sandbox]\nrequire = "full"\n') as appliance:
        appliance.start(OLD_KERNEL_DAEMON)
        reason = end_of(appliance, "adder", "FAILED")
        assert reason.code == "SANDBOX_UNAVAILABLE"
        assert "expected the sandbox at level full, found partial" in reason.message
