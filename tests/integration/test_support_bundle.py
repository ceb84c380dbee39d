"""`superbrain support-bundle`: what is in it, and that no secret is, wherever it was planted."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from superbrain.domain.deployment import State
from tests.support.appliance import Appliance
from tests.support.releases import go_live, release

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

PLANTED = {
    name: f"planted-{name}-4711"
    for name in ("environment", "unit", "log", "inbox", "note", "trust", "state", "config")
}
SPEAKING = """
import logging
class Pipeline:
    def __init__(self, bundle): pass
    def preprocess(self, request):
        print("the request is", float(request["x"][0, 0]), flush=True)
        logging.getLogger("mine").warning("it is %s", float(request["x"][0, 0]))
        return {"x": request["x"]}
    def postprocess(self, outputs, request):
        return {"y": outputs["y"]}
"""
PAYLOAD = 271828.0
INFERENCE_LOG = '[inference_log]\nto = "file"\nshare = 1.0\npayload_bytes = 100\n'
BASE64 = base64.b64encode(np.full((1, 4), PAYLOAD, np.float32).tobytes()).decode()
SYSTEMCTL = f"""#!/bin/sh
case $1 in
show) echo ActiveState=active ;;
cat) cat <<'UNIT'
[Service]
Environment=X={PLANTED["unit"]} \\
  Y=more{PLANTED["unit"]}
User=superbrain
UNIT
;;
esac
"""
PEM = "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n"
STRANGER = 54321
_AS_STRANGER = """
import os, sys
sys.path.insert(0, sys.argv[1])
import gzip
import superbrain.cli.support.command, superbrain.cli.main
superbrain.cli.support.system.versions()  # whoever it is may not read this Python's own library
os.chdir(sys.argv[2])
os.setgroups([]); os.setresgid(*[54321] * 3); os.setresuid(*[54321] * 3)
sys.exit(superbrain.cli.main.main(sys.argv[3:]))
"""


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """A host with a model that talks, a refused bundle, and secrets in many places."""
    folder = tmp_path_factory.mktemp("support")
    key = folder / "server.key"
    settings = f'[tcp]\nsecret_key = "{key}"\n{INFERENCE_LOG}'
    with Appliance(folder, settings=settings) as appliance:
        generate = ("access", "generate", "server", "--directory", str(folder))
        subprocess.run([sys.executable, "-m", "superbrain.cli.main", *generate], check=True)
        (appliance.root / "trust" / "keys" / "author.key").write_text(PEM.format(PLANTED["trust"]))
        (appliance.root / "state" / "left.pem").write_text(PEM.format(PLANTED["state"]))
        (appliance.inbox / "author.key").write_text(PEM.format(PLANTED["inbox"]))
        note = appliance.inbox / "mine.sbb.refused.txt"
        note.write_text(f"password={PLANTED['note']}\n" + PEM.format("MC4CAQ"))
        go_live(appliance, 1, pipeline=SPEAKING)
        appliance.drop(release(appliance, 2, golden_error=1.0))
        appliance.wait_ended("adder", "2.0.0", State.REJECTED)
        with appliance.client() as client:
            client.infer("adder", {"x": np.full((1, 4), PAYLOAD, np.float32)})
        appliance.wait_for(lambda: str(PAYLOAD) in appliance.log.read_text(), "what it prints")
        inference_log = appliance.root / "state/inference/inference.jsonl"
        appliance.wait_for(inference_log.exists, "the inference log")
        appliance.wait_for(lambda: BASE64 in inference_log.read_text(), "its payload")
        with appliance.log.open("a") as log:
            log.write(f'{{"event": "log", "token": "{PLANTED["log"]}"}}\n')
            log.write(PEM.format("MC4CAQAwBQ"))
        yield appliance


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with a systemctl that knows the service."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "systemctl").write_text(SYSTEMCTL)
    (folder / "systemctl").chmod(0o755)
    return folder


def collect(appliance: Appliance, programs: Path, *words: str) -> tuple[dict[str, bytes], bytes]:
    """The files of a support bundle by name, and what was printed."""
    path = programs / "bundle.tar.gz"
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "UPLOAD_TOKEN": PLANTED["environment"],
    }
    command = [sys.executable, "-m", "superbrain.cli.main", "support-bundle"]
    done = subprocess.run(
        [
            *command,
            *appliance.arguments,
            "--output",
            str(path),
            "--log",
            str(appliance.log),
            *words,
        ],
        env=environment,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    return unpacked(path.read_bytes()), done.stdout + done.stderr


def unpacked(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {member.name.partition("/")[2]: tar.extractfile(member) for member in tar}
        return {name: file.read() if file else b"" for name, file in found.items()}


def test_everything_is_in_it_and_nothing_secret(appliance: Appliance, programs: Path) -> None:
    files, printed = collect(appliance, programs, "--json")
    assert files["MISSING.txt"].startswith(
        b"doctor.json: this version has no superbrain doctor"
    ) or ("doctor.json" in files and files["MISSING.txt"] == b"nothing is missing\n")
    status = json.loads(files["status.json"])
    assert [model["version"] for model in status["models"]] == ["1.0.0"]
    assert json.loads(files["health.json"])["version"] == status["version"]
    assert json.loads(files["reports/adder-2.0.0.json"])["state"] == "REJECTED"
    assert {step["version"] for step in json.loads(files["history.json"])} == {"1.0.0", "2.0.0"}
    deployments = json.loads(files["journal/deployments.json"])
    assert {row["state"] for row in deployments} == {"LIVE", "REJECTED"}
    assert json.loads(files["audit.json"])[-1]["action"] == "trail_begun"
    assert json.loads(files["trust.json"])["keys"][0]["key_id"] == appliance.author.key_id
    assert json.loads(files["versions.json"])["packages"]["numpy"]
    assert json.loads(files["configuration.json"])["values"]["deploy.settle_s"] == 0.3
    assert b"deployment_advanced" in files["log.jsonl"]
    assert b"User=superbrain" in files["unit.txt"]
    assert b"ActiveState=active" in files["service.txt"]
    assert b"drwxr-xr-x 0755" in files["permissions.txt"]
    assert b"infer.sock" in files["sockets.txt"]
    assert json.loads(files["processes.json"])
    assert b"author.key" in files["inbox/listing.json"]
    assert b"[left out]" in files["inbox/mine.sbb.refused.txt"]
    (line,) = files["inference.jsonl"].splitlines()
    assert json.loads(line)["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [1, 4]}]
    assert b"log.jsonl" in files["README.txt"]
    assert {part["name"] for part in json.loads(printed)["parts"]} > {"journal/", "log.jsonl"}

    everything = b"\0".join([*files.values(), *map(str.encode, files), printed])
    secret = (appliance.work / "server.key").read_text().split('secret-key = "')[1].split('"')[0]
    author = appliance.author.private.read_text().splitlines()[1]
    for planted in (
        *PLANTED.values(),
        secret,
        author,
        "MC4CAQ",
        str(PAYLOAD),
        BASE64,
        "PRIVATE KEY",
    ):
        assert planted.encode() not in everything, planted
    assert np.full(2, PAYLOAD, np.float32).tobytes() not in everything


def test_what_models_print_comes_only_when_it_is_asked_for(
    appliance: Appliance, programs: Path
) -> None:
    files, _ = collect(appliance, programs, "--with-output")
    assert str(PAYLOAD).encode() in files["log.jsonl"]
    assert PLANTED["log"].encode() not in files["log.jsonl"]


def test_its_time_is_bounded_and_what_found_none_is_named(
    appliance: Appliance, programs: Path
) -> None:
    files, _ = collect(appliance, programs, "--time-limit", "0.000001")
    assert {"MISSING.txt", "README.txt"} == {*files}
    assert b"status.json: no time was left for it" in files["MISSING.txt"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_an_ordinary_user_gets_less_and_is_told_what(appliance: Appliance) -> None:
    appliance.root.chmod(0o755)
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        _collects_as_a_stranger(appliance, Path(place))


def _collects_as_a_stranger(appliance: Appliance, tmp_path: Path) -> None:
    path = tmp_path / "less.tar.gz"
    source = Path(__file__).resolve().parents[2] / "daemon"
    words = ("support-bundle", *appliance.arguments, "--output", str(path))
    done = subprocess.run(
        [sys.executable, "-c", _AS_STRANGER, str(source), str(tmp_path), *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert path.stat().st_uid == STRANGER
    files = unpacked(path.read_bytes())
    missing = files["MISSING.txt"].decode()
    assert "status.json: this user may not use the control socket" in missing
    assert "journal/: " in missing
    assert {"versions.json", "host.json", "permissions.txt"} <= {*files}


def test_no_file_is_written_over(appliance: Appliance, programs: Path) -> None:
    (programs / "there").write_text("mine")
    command = [sys.executable, "-m", "superbrain.cli.main", "support-bundle"]
    done = subprocess.run(
        [*command, "--output", str(programs / "there")], capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"Name another file by --output, or move it away" in done.stderr
    assert (programs / "there").read_text() == "mine"
