"""GPUs that fail under a real daemon; the driver's library is made here, and the GPU's rung too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from superbrain.cli.main import main
from superbrain.domain.diagnosis import Diagnosis
from superbrain.domain.health import Health, ModelFacts, Problem
from superbrain.wire.errors import Internal
from tests.support.appliance import Appliance
from tests.support.fake_driver import L4, FakeDriver
from tests.support.gpu_python import BREAKS, BROKEN, RUNG
from tests.support.load import Load
from tests.support.releases import answer, go_live, release

pytestmark = pytest.mark.integration

DAEMON = str(Path(__file__).parents[1] / "support" / "gpu_daemon.py")
LADDER = (RUNG, "onnxruntime:cpu")


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    made = FakeDriver(tmp_path)
    made.say(**L4)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def appliance(tmp_path: Path, driver: FakeDriver) -> Iterator[Appliance]:
    assert driver
    with Appliance(tmp_path, start=False) as running:
        running.start(DAEMON)
        yield running


def gpu_problem(health: Health) -> Problem | None:
    return next((one for one in health.problems if one.subject == "GPU 0"), None)


def faulty(appliance: Appliance) -> ModelFacts | None:
    model = appliance.model("adder")
    return model if model is not None and model.fault else None


def incidents(appliance: Appliance) -> list[str]:
    model = appliance.model("adder")
    return [str(incident.kind) for incident in model.incidents] if model else []


def details(appliance: Appliance, version: str) -> list[str]:
    return [step.detail for step in appliance.history("adder") if step.version == version]


def wait_on(appliance: Appliance, rung: str) -> None:
    def there() -> bool:
        model = appliance.model("adder")
        return model is not None and (model.rung, model.state) == (rung, "ready")

    appliance.wait_for(there, f"the adder to serve on {rung}")


def test_a_gpu_that_falls_off_the_bus_costs_no_answer(
    appliance: Appliance, driver: FakeDriver, capsys: pytest.CaptureFixture[str]
) -> None:
    go_live(appliance, 1, ladder=LADDER)
    wait_on(appliance, RUNG)
    (gpu,) = appliance.wait_for(lambda: appliance.health().gpus, "the GPU's figures")
    assert (gpu.name, gpu.temperature_celsius, gpu.lost) == ("Fake L4", 51.0, "")
    with Load(appliance.client) as load:
        driver.say(lost=1)
        wait_on(appliance, LADDER[1])
    load.assert_flawless()
    assert answer(appliance) == 1
    health = appliance.health()
    problem = gpu_problem(health)
    assert problem is not None
    assert "fallen off the bus" in problem.message
    assert problem.mend
    assert health.status == "warning"
    (model,) = health.models
    assert (model.state, model.version, model.fault) == ("ready", "1.0.0", "")
    appliance.wait_for(lambda: incidents(appliance) == ["LeftGpu"], "the incident to be told")
    step = next(step for step in appliance.history("adder") if step.event == "RungLost")
    assert (step.rung, step.state_from, step.state_to) == (RUNG, "LIVE", "LIVE"), "what it left"
    assert "fallen off the bus" in step.detail

    code = main(["doctor", "--root", str(appliance.root), "--json"])
    diagnosis = msgspec.json.decode(capsys.readouterr().out, type=Diagnosis)
    findings = {one.id: one for part in diagnosis.sections for one in part.findings}
    assert (code, diagnosis.verdict, findings["gpu_0"].verdict) == (1, "problem", "problem")
    assert "1 of 1 models ready" in findings["daemon"].found
    assert "1 in" in findings["trust"].found
    possible = [rung.rung for rung in diagnosis.rungs if rung.possible]
    assert "onnxruntime:cpu" in possible
    assert all(rung.startswith("onnxruntime:cpu") for rung in possible)

    appliance.drop(release(appliance, 2, ladder=LADDER))
    assert appliance.wait_live("adder", "2.0.0").rung == LADDER[1], "nothing new begins on it"
    assert any("fallen off the bus" in detail for detail in details(appliance, "2.0.0"))


def test_a_request_that_breaks_the_gpu_of_its_process_costs_nobody_else_anything(
    appliance: Appliance,
) -> None:
    go_live(appliance, 1, ladder=(RUNG,))
    with Load(appliance.client) as load, appliance.client() as client:
        breaking = np.full((1, 4), BREAKS, np.float32)
        with pytest.raises(Internal):
            client.infer("adder", {"x": breaking}, timeout=60)
        before = load.answered
        appliance.wait_for(lambda: load.answered > before, "answers after it")
    load.assert_flawless()
    wait_on(appliance, RUNG)
    said = [one["message"] for one in appliance.logged("worker_died")]
    assert len(said) == 2, "it is tried once more, alone"
    assert all("this process cannot use its GPU any more: " in one for one in said)
    assert all(BROKEN in one for one in said)


def test_what_a_model_does_about_a_gpu_depends_on_what_is_wrong(
    appliance: Appliance, driver: FakeDriver
) -> None:
    go_live(appliance, 1, ladder=(RUNG,))
    driver.say(lost=1)
    model = appliance.wait_for(lambda: faulty(appliance), "the fault to be told")
    assert (model.state, model.rung, model.fault) == ("degraded", RUNG, "GPU_LOST")
    assert "no rung without a GPU" in model.last_error
    assert answer(appliance) == 1, "as long as its process can"
    driver.say(**L4, xid=45, serial=1)
    wait_on(appliance, RUNG)
    problem = appliance.wait_for(lambda: gpu_problem(appliance.health()), "the error to be told")
    assert "Xid 45: a program was ended" in problem.message, "which moves nobody"

    driver.say(**{**L4, "used_mib": 23_000})
    appliance.drop(release(appliance, 2, ladder=LADDER))
    assert appliance.wait_live("adder", "2.0.0").rung == LADDER[1], "no room on the GPU"
    said = next(text for text in details(appliance, "2.0.0") if "needs at least" in text)
    assert "adder 2.0.0 on fake:gpu needs at least 150 MiB" in said
    assert "of the memory of GPU 0 (Fake L4), 34.0 MiB of 22.5 GiB are free" in said

    driver.say(**L4)
    go_live(appliance, 3, ladder=LADDER)
    wait_on(appliance, RUNG)
    appliance.stop()
    driver.say(lost=1)
    appliance.start(DAEMON)
    wait_on(appliance, LADDER[1])
    with Load(appliance.client) as load:
        driver.say(**L4)
        wait_on(appliance, RUNG)
    load.assert_flawless()
    driver.say(**L4, xid=48, serial=2)
    wait_on(appliance, LADDER[1])
    assert answer(appliance) == 3
    kept = [step.event for step in appliance.history("adder") if step.event.startswith("Rung")]
    assert kept == ["RungLost", "RungRegained", "RungLost"]
