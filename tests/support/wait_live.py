"""`wait-live MODEL VERSION`: waits until a version serves and is past its probation."""

from __future__ import annotations

import os
import sys
import time

from superbrain.cli.control import ControlClient, ControlError
from superbrain.domain.health import Health
from superbrain.domain.operations import GetHealth, HealthReply

PATIENCE_S = 60.0


def main(name: str, version: str) -> int:
    """Look until it is so."""
    client = ControlClient(os.environ["SUPERBRAIN_CONTROL"])
    end = time.monotonic() + PATIENCE_S
    health: Health | None = None
    while time.monotonic() < end:
        try:
            health = client.ask(GetHealth(), HealthReply).health
        except ControlError:
            health = None
        models = health.models if health else []
        if any(
            (model.name, model.version, model.state, model.deployment_state)
            == (name, version, "ready", "LIVE")
            for model in models
        ):
            return 0
        time.sleep(0.05)
    print(f"waited in vain for {name} {version}: {health}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
