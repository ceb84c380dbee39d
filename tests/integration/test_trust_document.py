"""docs/trust.md: every command on that page, typed in its order on a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from superbrain.domain import operations as op
from tests.support.appliance import Appliance
from tests.support.documents import ROOT, Typist, installed_places

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_every_command_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        digest = {"DIGEST": "ab" * 32, "SUPERBRAIN_CONTROL": appliance.control_endpoint}
        typist = Typist(tmp_path / "typed", installed_places(appliance.root), digest)
        # each update counts before the next step is taken, as on any other day
        imports = {
            rf"^cp trust-{number}.sbt ": f"superbrain trust import trust-{number}.sbt"
            for number in range(1, 5)
        }
        done = typist.type(ROOT / "docs" / "trust.md", after=imports)
        trust = appliance.ask(op.GetTrust(), op.TrustReply).trust
        assert (trust.sequence, trust.threshold, trust.security_floors) == (4, 2, {"ocr": 31})
        assert sorted(key.who for key in trust.keys) == ["Anna", "spare1", "spare2"]
        assert {item.digest for item in trust.revoked} > {"ab" * 32}
        appliance.wait_for(lambda: not list(appliance.inbox.iterdir()), "an empty inbox")
        assert "entries 1 to" in done.stdout
