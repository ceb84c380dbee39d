"""`superbrain doctor` on hosts made of files, with a probe that says what it is told to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from scripts.generated_docs import doctor_schema
from superbrain.cli import doctor
from superbrain.cli.main import main
from superbrain.domain.health import GpuFacts
from superbrain.domain.probe import (
    Cuda,
    Engines,
    GpuFigures,
    Library,
    OnnxRuntimeBuild,
    ProviderTrial,
    Unanswered,
)
from tests.support.bundles import make_trust_folder, sign_key

CPU = "CPUExecutionProvider"
PLAIN = Engines(
    packages={"onnxruntime": "1.31.1"},
    cuda=Cuda(found=False),
    tensorrt=Library(missing=True),
    tensorrt_rtx=Library(missing=True),
    onnxruntime=OnnxRuntimeBuild("1.31.1", listed=[CPU]),
    providers={CPU: ProviderTrial(CPU, CPU)},
    rungs={"onnxruntime:cuda": "no CUDA device is there", "onnxruntime:cpu": ""},
)


class Host:
    """Folders below a root, and what the probe finds."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.engines = PLAIN
        self.figures: GpuFigures | Unanswered = GpuFigures([])
        monkeypatch.delenv("SUPERBRAIN_CONTROL", raising=False)
        monkeypatch.setattr(doctor, "probe_engines", lambda _timeout_s, **_: self.engines)
        monkeypatch.setattr(doctor, "ask_child", lambda *_, **__: self.figures)
        for name in ("inbox", "state", "state/store", "run"):
            (root / name).mkdir(parents=True, mode=0o750)
        make_trust_folder(root / "trust", sign_key(root / "keys"))

    def doctor(self, *options: str) -> int:
        return main(["doctor", "--root", str(self.root), *options])


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path / "root", monkeypatch)


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """Give the findings by their id."""
    diagnosis = json.loads(capsys.readouterr().out)
    jsonschema.validate(diagnosis, json.loads(doctor_schema()))
    return {one["id"]: one for part in diagnosis["sections"] for one in part["findings"]}


def test_a_host_that_is_fit_ends_with_zero_and_notes_are_no_problems(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.doctor("--json") == 0
    found = told(capsys)
    assert "problem" not in {one["verdict"] for one in found.values()}
    assert found["trust"]["found"].startswith("1 in ")
    assert found["daemon"]["verdict"] == "note"
    assert "is not running" in found["daemon"]["found"]


def test_the_table_fits_80_columns_and_every_verdict_has_its_mend(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    host.engines = msgspec.structs.replace(
        PLAIN, packages={"onnxruntime": "1", "onnxruntime-gpu": "1"}
    )
    assert host.doctor() == 1
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    words = " ".join(out.split())
    for said in (
        "problem ONNX Runtime onnxruntime and onnxruntime-gpu are installed over each other",
        "-> pip uninstall -y onnxruntime onnxruntime-gpu",
        "note onnxruntime cuda: not here. no CUDA device is there",
        "ok onnxruntime cpu: possible",
        "1 problem,",
        "1 of 2 rungs possible",
    ):
        assert said in words
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("path", "mode", "finding", "said"),
    [
        ("state", 0o755, "state", "others get at it"),
        ("state/store", 0o770, "store", "others get at it"),
        ("inbox", 0o777, "inbox", "everybody on this host may drop"),
        ("trust", 0o777, "trust", "writable by its owner only"),
    ],
)
def test_a_folder_that_the_wrong_people_may_use_is_a_problem_with_its_mend(
    host: Host, capsys: pytest.CaptureFixture[str], path: str, mode: int, finding: str, said: str
) -> None:
    (host.root / path).chmod(mode)
    assert host.doctor("--json") == 1
    found = told(capsys)[finding]
    assert found["verdict"] == "problem"
    assert said in found["found"]
    assert "chmod" in found["mend"]


def test_folders_that_are_not_there_yet_are_notes(
    tmp_path: Path, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--root", str(tmp_path / "fresh"), "--json"]) == 0
    found = told(capsys)
    assert {found[name]["verdict"] for name in ("state", "store", "inbox", "trust")} == {"note"}
    assert host.root.exists()


def test_a_host_without_keys_that_is_installed_has_a_problem(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in (host.root / "trust" / "keys").iterdir():
        key.unlink()
    assert host.doctor("--json") == 1
    assert "found none" in told(capsys)["trust"]["found"]


def test_a_configuration_that_does_not_fit_is_said_and_the_rest_is_looked_at(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = host.root / "wrong.toml"
    wrong.write_text("[deploy]\nprobation = 1\n")
    assert host.doctor("--config", str(wrong), "--json") == 1
    found = told(capsys)
    assert "did you mean deploy.probation_s" in found["configuration"]["found"]
    assert found["trust"]["verdict"] == "ok"


def test_a_gpu_that_is_lost_and_a_driver_that_hangs_are_problems(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.figures = GpuFigures([GpuFacts(0, "NVIDIA L4", lost="it has fallen off the bus")])
    assert host.doctor("--json") == 1
    assert "fallen off the bus" in told(capsys)["gpu_0"]["found"]
    host.figures = Unanswered("did not answer within 60 s")
    assert host.doctor("--json") == 1
    assert "did not answer" in told(capsys)["nvml"]["found"]
