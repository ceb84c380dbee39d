"""Somebody who asks a fresh host all the time, by both roads, while something happens to it."""

from __future__ import annotations

import re
import subprocess
from typing import Final

from scripts.acceptance_host import CommandFailed, Host

# Asks until it is told to stop, and says how often, what failed and which versions answered.
PATIENCE_S: Final = 90.0
ASKING: Final = """
import sys, threading, time, numpy as np
from superbrain.client import Client
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
asked, failed, seen = 0, [], []
x = np.zeros((1, 4), np.float32)
with Client(lanes=sys.argv[1] == "lanes") as client:
    client.infer("adder", {"x": x}, timeout=80)
    print("asks", flush=True)
    while not stop.is_set():
        asked += 1
        time.sleep(0.005)
        try:
            answer = client.infer("adder", {"x": x}, timeout=80)
        except Exception as error:
            failed.append(repr(error))
        else:
            if not seen or seen[-1] != answer.model_version:
                seen.append(answer.model_version)
            assert float(answer["y"][0, 0]) == float(answer.model_version.split(".")[0]), answer
print(asked, len(failed), " ".join(seen), *failed[:3])
"""


class Asked:
    """bob's two programs, one through the gateway and one by lanes; no request may fail."""

    def __init__(self, host: Host, during: str, versions: str) -> None:
        self._host = host
        self._during = during
        self._versions = versions

    def __enter__(self) -> None:
        python = "/opt/superbrain/current/bin/python"
        self._programs = [
            subprocess.Popen(
                self._host.entering((python, "-c", ASKING, road), "bob"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for road in ("gateway", "lanes")
        ]
        for program in self._programs:
            assert program.stdout is not None  # noqa: S101 - a pipe
            if (said := program.stdout.readline()) != "asks\n":
                raise CommandFailed(f"before {self._during}: {said}{program.communicate()[0]}")

    def __exit__(self, kind: object, *_: object) -> None:
        for program in self._programs:
            said = program.communicate(timeout=PATIENCE_S)[0]
            found = re.match(r"(\d+) (\d+) ([\d. ]*)", said)
            good = found is not None and int(found[1]) > 0 and found[2] == "0"
            if good and found and self._versions:
                good = found[3].strip() == self._versions
            if kind is None and not good:
                raise CommandFailed(f"during {self._during}: {said[-3000:]}")
