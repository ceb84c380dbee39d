"""A whole appliance for integration tests: a real `superbraind` below a folder of its own.

>>> with Appliance(tmp_path) as appliance:
...     appliance.drop(make_bundle(tmp_path, appliance.author))
...     appliance.wait_live("adder", "1.0.0")
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
import psutil
import zmq

from superbrain.bundle.folder import BuiltBundle
from superbrain.client import Client
from superbrain.deploy.fork_server import FORK_SERVER_MODULE
from superbrain.domain import operations as op
from superbrain.domain.health import Health, InboxFile, ModelFacts, Problem
from tests.support.bundles import KeyPair, make_trust_folder, sign_key

PATIENCE_S = 60.0
LOOK_AGAIN_S = 0.02
PAUSE_PER_LOOK = 3.0  # who looks all the time takes the processor from what is waited for
CONFIG = """\
[deploy]
rescan_s = {rescan_s}
settle_s = 0.3
probation_s = {probation_s}
[health]
interval_s = 0.2
[budget]
crashes = {crashes}
"""
R = TypeVar("R", bound=op.Reply)
T = TypeVar("T")


class Appliance:
    """One daemon with its folders; sockets lie below a short path, whatever `folder` is."""

    def __init__(
        self,
        folder: Path,
        *,
        probation_s: float = 0.2,
        rescan_s: float = 0.2,
        crashes: int = 50,
        threshold: int = 1,
        settings: str = "",
        start: bool = True,
    ) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="sb-"))
        self.work = folder
        self.author: KeyPair = sign_key(folder / "keys")
        self.inbox = self.root / "inbox"
        self.log = self.root / "daemon.log"
        self.endpoint = f"ipc://{self.root}/run/infer.sock"
        self.control_endpoint = f"ipc://{self.root}/run/control.sock"
        self.process: subprocess.Popen[bytes] | None = None
        self.python = sys.executable
        self._context = zmq.Context()
        self._start = start
        make_trust_folder(self.root / "trust", self.author, threshold=threshold)
        self.inbox.mkdir()
        (self.root / "superbrain.toml").write_text(
            CONFIG.format(probation_s=probation_s, rescan_s=rescan_s, crashes=crashes) + settings
        )

    def __enter__(self) -> Self:
        if self._start:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._context.destroy(linger=0)
        shutil.rmtree(self.root, ignore_errors=True)

    def configure(self, section: str, key: str, value: object) -> None:
        """Set a key of the configuration, for the next start."""
        path = self.root / "superbrain.toml"
        sections = tomllib.loads(path.read_text())
        sections.setdefault(section, {})[key] = value
        lines = []
        for name, keys in sections.items():
            lines += [f"[{name}]", *(f"{one} = {json.dumps(said)}" for one, said in keys.items())]
        path.write_text("\n".join(lines) + "\n")

    # --- the process --------------------------------------------------------------------------

    @property
    def arguments(self) -> list[str]:
        """Give the daemon's own arguments."""
        return ["--root", str(self.root), "--config", str(self.root / "superbrain.toml")]

    def start(self, *program: str) -> None:
        """Start the daemon (or `program` with its arguments) and wait until it answers."""
        self.launch(*program)
        self.wait_for(self._answers, "the daemon to answer")

    def launch(self, *program: str) -> None:
        """Start the daemon (or `program` with its arguments) and wait for nothing."""
        command = [self.python, *(program or ("-m", "superbrain.app.main")), *self.arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def start_another(self) -> subprocess.CompletedProcess[str]:
        """Start one more daemon on the same folders, and wait until it gives up."""
        command = [sys.executable, "-m", "superbrain.app.main", *self.arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )

    def stop(self) -> int:
        """Stop the daemon in an orderly way; its exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the daemon did not stop:\n{self.log_text()}") from None
        self.process = None
        return status

    def kill(self) -> None:
        """End the daemon with SIGKILL and wait until all its children are gone too."""
        assert self.process is not None
        children = self.children()
        self.process.kill()
        self.process.wait()
        self.process = None
        _, alive = psutil.wait_procs(children, PATIENCE_S)
        assert not alive, f"orphans: {alive}"

    def children(self) -> list[psutil.Process]:
        """Give the daemon's child processes."""
        assert self.process is not None
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def at_work(self) -> list[psutil.Process]:
        """Give the gateway, workers and builders: all children but the one that forks workers."""
        return [one for one in self.children() if FORK_SERVER_MODULE not in words(one)]

    def log_text(self) -> str:
        """Give everything the daemon logged, shortened."""
        return self.log.read_text()[-20_000:] if self.log.exists() else ""

    # --- what an operator does ----------------------------------------------------------------

    def drop(self, bundle: BuiltBundle | Path) -> Path:
        """Copy a built bundle into the inbox as a person would."""
        path = bundle if isinstance(bundle, Path) else bundle.path
        return Path(shutil.copy(path, self.inbox / path.name))

    def ask(self, operation: op.Operation, expected: type[R], timeout_s: float = PATIENCE_S) -> R:
        """Send one operation and give its reply, which must be of the expected kind."""
        with contextlib.closing(self._context.socket(zmq.REQ)) as socket:
            socket.linger = 0
            socket.connect(self.control_endpoint)
            socket.send(msgspec.json.encode(operation))
            if not socket.poll(int(timeout_s * 1000)):
                raise AssertionError(f"no answer to {operation}:\n{self.log_text()}")
            reply = msgspec.json.decode(socket.recv(), type=op.AnyReply)
        assert isinstance(reply, expected), reply
        return reply

    def health(self) -> Health:
        """Give the health report."""
        return self.ask(op.GetHealth(), op.HealthReply).health

    def logged(self, name: str) -> list[dict[str, Any]]:
        """Give the events of this name that the daemon and its children have logged."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return [fields for fields in events if fields.get("event") == name]

    def model(self, name: str) -> ModelFacts | None:
        """Give what the report says of one model."""
        return next((model for model in self.health().models if model.name == name), None)

    def problem(self, subject: str) -> Problem | None:
        """Give what the report says is wrong with something."""
        return next((one for one in self.health().problems if one.subject == subject), None)

    def wait_noted(self, message: str) -> InboxFile:
        """Wait until the one file in the inbox is noted with a message that contains this."""

        def noted() -> InboxFile | None:
            return next((one for one in self.health().inbox if message in one.message), None)

        return self.wait_for(noted, f"a file to be noted with {message!r}")

    def history(self, name: str) -> list[op.Transition]:
        """Give a model's transitions, oldest first."""
        reply = self.ask(op.GetHistory(name, 10_000), op.HistoryReply)
        return list(reversed(reply.transitions))

    def client(self, *, lanes: bool = True) -> Client:
        """Give a client of this appliance."""
        return Client(self.endpoint, lanes=lanes)

    # --- waiting ------------------------------------------------------------------------------

    def wait_for(
        self,
        condition: Callable[[], T | None],
        what: str,
        patience_s: float = PATIENCE_S,
        *,
        look_again_s: float = LOOK_AGAIN_S,
    ) -> T:
        """Look until `condition` gives something true; what it gave."""
        end = time.monotonic() + patience_s
        while (began := time.monotonic()) < end:
            if self.process is not None and self.process.poll() is not None:
                break
            if found := condition():
                return found
            time.sleep(max(look_again_s, PAUSE_PER_LOOK * (time.monotonic() - began)))
        raise AssertionError(f"waited in vain for {what}:\n{self.log_text()}")

    def wait_live(
        self, name: str, version: str, state: str = "ready", *, patience_s: float = PATIENCE_S
    ) -> ModelFacts:
        """Wait until a version serves and is past its probation."""

        def there() -> ModelFacts | None:
            if not self._was_live(name, version):
                return None
            model = self.model(name)
            good = model is not None and (model.version, model.state) == (version, state)
            return model if good and model and model.deployment_state == "LIVE" else None

        return self.wait_for(there, f"{name} {version} to be live", patience_s)

    def _was_live(self, name: str, version: str) -> bool:
        """Whether it ever was: that takes the daemon a fifth of what a report takes."""
        return any((one.version, one.state_to) == (version, "LIVE") for one in self.history(name))

    def wait_ended(self, name: str, version: str, state: str) -> op.Transition:
        """Wait until a version's deployment has ended in `state`; the step that led there."""

        def ended() -> op.Transition | None:
            steps = [step for step in self.history(name) if step.version == version]
            return steps[-1] if steps and steps[-1].state_to == state else None

        return self.wait_for(ended, f"{name} {version} to be {state}")

    def refusal(self, name: str) -> str:
        """Wait for the note on why a file was refused; one that was not taken is moved after it."""
        note = self.inbox / f"{name}.refused.txt"
        self.wait_for(note.exists, f"{name} to be refused")
        return note.read_text()

    def _answers(self) -> bool:
        path = Path(self.control_endpoint.removeprefix("ipc://"))
        if not path.exists():
            return False
        with contextlib.suppress(AssertionError):
            self.ask(op.GetHealth(), op.HealthReply, timeout_s=2)
            return True
        return False


def words(process: psutil.Process) -> list[str]:
    """Give the command line of a process; nothing when it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return process.cmdline()
    return []
