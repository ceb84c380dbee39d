"""The operator's pages: every command on them, typed in its order on one host with a model `ocr`.

docs/install.md, access.md, operations.md, log-events.md, troubleshooting.md and backup.md; what
only a real systemd or a root's machine can do is noted, and scripts/acceptance does it.
"""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.appliance import Appliance
from tests.support.bundles import make_bundle
from tests.support.documents import ROOT, Typist, installed_places
from tests.support.tcp import free_endpoint

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DOCS = ROOT / "docs"
DRILL = "until [[ -S drill/run/control.sock ]]; do sleep 0.1; done"
JUDGED = r"\g<0> || [[ $? -lt 3 ]] "  # 1: somebody should look, for a version was rolled back
NUMBERS = itertools.count(1)
SUPERBRAIN = Path(sys.executable).with_name("superbrain")
# These look for folders where an installation has them.
COMMAND = """\
case $1 in backup | restore | support-bundle)
    case " $* " in *" --root "*) ;; *) set -- "$@" {where} ;; esac ;;
esac
exec {command} "$@"
"""


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """A host where ocr 3.0.0 serves, and that would listen for TCP if it had a key."""
    folder = tmp_path_factory.mktemp("operations")
    tcp = folder / "etc" / "tcp"
    (tcp / "clients").mkdir(parents=True)
    settings = (
        f'[tcp]\nendpoints = ["{free_endpoint()}"]\nsecret_key = "{tcp}/server.key"\n'
        f'clients = "{tcp}/clients"\n'
    )
    with Appliance(folder, settings=settings) as appliance:
        ocr(appliance, "3.0.0", 1)
        appliance.drop(folder / "ocr-3.0.0.sbb")
        appliance.wait_live("ocr", "3.0.0")
        yield appliance


def ocr(appliance: Appliance, version: str, sequence: int) -> Path:
    """Build a version of the model that the pages are about."""
    made: dict[str, Any] = {"name": "ocr", "version": version, "sequence": sequence}
    return make_bundle(appliance.work, appliance.author, **made).path


@pytest.fixture
def typist(appliance: Appliance) -> Iterator[Typist]:
    """Somebody at that host, with the files that the pages speak of."""
    folder = Path(tempfile.mkdtemp(prefix="sb-"))
    tcp = appliance.work / "etc" / "tcp"
    places = {
        "/etc/superbrain/tcp": str(tcp),
        **installed_places(appliance.root),
        "tcp://192.0.2.10:5555": address(appliance),
        "/media/usb/superbrain": str(folder),
    }
    environment = {
        "SUPERBRAIN_CONTROL": appliance.control_endpoint,
        "SUPERBRAIN_ENDPOINT": appliance.endpoint,
        "SUPERBRAIN__TCP__CLIENTS": f"{tcp}/clients",
        "SUPERBRAIN__TCP__SECRET_KEY": f"{tcp}/server.key",
    }
    typist = Typist(folder, places, environment)
    typist.program(
        "superbrain", COMMAND.format(command=SUPERBRAIN, where=" ".join(appliance.arguments))
    )
    np.save(folder / "x.npy", np.zeros((1, 4), np.float32))
    shutil.copy(appliance.author.public, folder / "author.pub")
    (folder / "scripts").mkdir()
    (folder / "install.sh").symlink_to("programs/install.sh")
    (folder / "scripts" / "wheelhouse").symlink_to("../programs/wheelhouse")
    yield typist
    shutil.rmtree(folder, ignore_errors=True)


def address(appliance: Appliance) -> str:
    """Where that host listens for TCP."""
    return (appliance.root / "superbrain.toml").read_text().split('endpoints = ["')[1].split('"')[0]


def deploy(appliance: Appliance, typist: Typist, name: str) -> str:
    """Lay a new version into the folder under this name; its number."""
    number = next(NUMBERS)
    version = f"3.{number}.0"
    shutil.copy(ocr(appliance, version, number + 1), typist.folder / name)
    return version


def test_every_command_of_install_is_typed(appliance: Appliance, typist: Typist) -> None:
    version = deploy(appliance, typist, "model-1.0.0.sbb")
    typist.type(
        DOCS / "install.md",
        after={r"^cp model-1.0.0.sbb": f"wait-live ocr {version}"},
        instead={"^sudo superbrain doctor[^#]*": JUDGED},
    )
    noted = typist.noted.read_text()
    assert "install.sh --trust author.pub" in noted
    assert "install.sh --uninstall --purge" in noted
    assert "systemctl reload superbraind" in noted


def test_every_command_of_who_may_ask_does_what_it_says(
    appliance: Appliance, typist: Typist
) -> None:
    port = address(appliance).rpartition(":")[2]
    opened = f"until (: </dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.1; done"
    done = typist.type(DOCS / "access.md", before={r"^superbrain infer": opened})
    assert "camera may connect" in done.stdout
    assert "ocr" in done.stdout
    assert "camera is cut" in done.stdout
    assert "nft add rule" in typist.noted.read_text()


def test_every_command_of_operations_does_what_it_says(
    appliance: Appliance, typist: Typist
) -> None:
    version = deploy(appliance, typist, "ocr-3.1.0.sbb")
    done = typist.type(
        DOCS / "operations.md",
        after={r"^cp ocr-": f"wait-live ocr {version}"},
        instead={
            r"^superbrain load[^#]*": r"\g<0> --duration 0.1 --warmup 0.1 ",
            "=250ms": "=30s",
            "^superbrain health[^#]*": JUDGED,
        },
    )
    assert "models=1 ready=1" in done.stdout
    (typist.folder / "daemon.log").symlink_to(appliance.log)
    assert '"happened"' in typist.type(DOCS / "log-events.md").stdout
    model = appliance.model("ocr")
    assert model is not None
    assert model.version != version  # it was rolled back


def test_every_command_of_troubleshooting_and_backup_does_what_it_says(
    appliance: Appliance, typist: Typist
) -> None:
    model = appliance.model("ocr")
    assert model is not None
    appliance.stop()
    started = f"superbraind {' '.join(appliance.arguments)} >>{appliance.log} 2>&1 &\necho $! >pid"
    stopped = f"kill $(cat pid) && flock --wait 60 {appliance.root}/state/daemon.lock true"
    typist.program(
        "systemctl",
        f"case $1 in\nstart) {started}\nwait-live ocr {model.version} ;;\nstop) {stopped} ;;\nesac",
    )
    typist.run("systemctl start superbraind")
    try:
        typist.type(DOCS / "troubleshooting.md")
        assert (typist.folder / "ticket.tar.gz").exists()
        done = typist.type(
            DOCS / "backup.md",
            before={
                r"restore host.sbbackup$": f"mv {appliance.root}/state lost",
                r"^superbraind --root": "trap 'kill %1 2>/dev/null || true; wait' EXIT",
                r"^superbrain status --control": DRILL,
            },
        )
        restored = appliance.model("ocr")
    finally:
        typist.run("systemctl stop superbraind")
        appliance.start()
        appliance.wait_live("ocr", model.version)
    assert restored is not None
    assert restored.version == model.version
    assert "restored" in done.stdout
    assert (typist.folder / "drill" / "state" / "journal.sqlite").exists()
