"""docs/trust.md: every command on that page, typed in its order on a host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from superbrain.domain import operations as op
from tests.support.appliance import Appliance

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DOCUMENT = Path(__file__).parents[2] / "docs" / "trust.md"
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


def test_every_command_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        here = {
            "/etc/superbrain/trust": f"{appliance.root}/trust",
            "/var/lib/superbrain/inbox": str(appliance.inbox),
            "/var/lib/superbrain/state": f"{appliance.root}/state",
            "sudo ": "",
        }
        script = "".join(BLOCKS)
        for there, place in here.items():
            script = script.replace(there, place)
        # each update counts before the next step is taken, as on any other day
        script = re.sub(
            r"^cp trust-(\d).sbt .*$",
            r"\g<0>\nsuperbrain trust import trust-\1.sbt",
            script,
            flags=re.MULTILINE,
        )
        environment = os.environ | {
            "SUPERBRAIN_CONTROL": appliance.control_endpoint,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DIGEST": "ab" * 32,
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        trust = appliance.ask(op.GetTrust(), op.TrustReply).trust
        assert (trust.sequence, trust.threshold, trust.security_floors) == (4, 2, {"ocr": 31})
        assert sorted(key.who for key in trust.keys) == ["Anna", "spare1", "spare2"]
        assert {item.digest for item in trust.revoked} > {"ab" * 32}
        appliance.wait_for(lambda: not list(appliance.inbox.iterdir()), "an empty inbox")
        assert "entries 1 to" in done.stdout
