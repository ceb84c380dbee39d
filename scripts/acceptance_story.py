"""What a fresh host must hold, claim by claim; acceptance_run.py prepares the host.

Each claim is a method of `Story`, in the order of `CLAIMS`; later ones build on earlier ones, so
the first that does not hold ends the run. alice and bob are ordinary users of the group
superbrain, mallory is not.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from scripts.acceptance_asking import Asked
from scripts.acceptance_documents import (
    Operator,
    opens_loopback,
    opens_tcp,
    selects,
    shows_metrics,
)
from scripts.acceptance_host import CommandFailed, Host
from tests.support.bundles import KeyPair

PATIENCE_S: Final = 90.0
FIRST_ANSWER_S: Final = 60.0
MAX_EXPOSURE: Final = 2.0
UNIT: Final = "/usr/local/lib/systemd/system/superbraind.service"
CONFIG: Final = "/etc/superbrain/superbrain.toml"
INBOX: Final = "/var/lib/superbrain/inbox"
STATE: Final = "/var/lib/superbrain/state"
BACKUP: Final = "/root/host.sbbackup"
INSTALL: Final = "/wheelhouse/install.sh"
T = TypeVar("T")


class Story:
    """One run on one host."""

    def __init__(self, host: Host, bundles: Path, author: KeyPair) -> None:
        self.host = host
        self._bundles = bundles
        self._author = author
        self._began = time.monotonic()

    # --- what holds ---------------------------------------------------------------------------

    def installs(self) -> str:
        """One command, offline."""
        for user in ("alice", "bob", "mallory"):
            self.host.run("useradd", "--create-home", user)
        self._began = time.monotonic()
        said = self.host.run(INSTALL, "--trust", "/bundles/author.pub", timeout_s=300)
        self.require("no models are installed" in said and "Next:" in said, said)
        self.host.run("systemctl", "is-enabled", "superbraind")
        for user in ("alice", "bob"):
            self.host.run("usermod", "-aG", "superbrain", user)
        return "a fresh Debian without network: one command installs and starts the service"

    def answers(self) -> str:
        """One file copy by an ordinary user, an answer for another."""
        self.drop("adder-1.0.0.sbb")
        self.until(lambda: self.version() == "1.0.0", "1.0.0 to answer")
        took = time.monotonic() - self._began
        idle = os.getloadavg()[0] < 2 * (os.cpu_count() or 1)
        self.require(took < FIRST_ANSWER_S or not idle, f"the first answer came after {took:.0f} s")
        busy = "" if idle else " on a machine with much else to do"
        return f"alice copies a bundle, bob has an answer {took:.0f} s after install.sh began{busy}"

    def refuses_strangers(self) -> str:
        """Neither socket nor inbox is for those outside the group; state is for nobody."""
        asking = ("superbrain", "infer", "adder", "--input", "x=[[0,0,0,0]]")
        said = self.host.run(*asking, user="mallory", status=1)
        self.require("group superbrain" in said, said)
        self.host.run("cp", "/bundles/adder-2.0.0.sbb", INBOX, user="mallory", status=1)
        self.host.run("ls", "/var/lib/superbrain/state", user="alice", status=2)
        self.host.run("rm", "-f", f"{INBOX}/adder-1.0.0.sbb", user="alice")
        self.host.run("touch", f"{INBOX}/mine", user="alice")
        self.host.run("rm", "-f", f"{INBOX}/mine", user="bob", status=1)
        self.host.run("rm", f"{INBOX}/mine", user="alice")
        return "mallory, outside the group, may neither ask nor drop; state is private"

    def verifies(self) -> str:
        """The unit is without a warning and well confined."""
        said = self.host.run("systemd-analyze", "verify", "--man=no", UNIT)
        self.require(not said, said)
        security = ("systemd-analyze", "security", "superbraind", "--no-pager")
        found = re.search(r"exposure level for \S+: ([\d.]+)", self.host.run(*security))
        exposure = float(found[1]) if found else 10.0
        self.require(exposure <= MAX_EXPOSURE, f"exposure {exposure}")
        return f"systemd-analyze verify is silent; exposure {exposure:g} of 10"

    def journals(self) -> str:
        """What happened can be read, and selected by its fields."""
        records = self.journal("SUPERBRAIN_EVENT=deployment_advanced", "SUPERBRAIN_MODEL=adder")
        states = [record["SUPERBRAIN_STATE"] for record in records]
        self.require(states[:3] == ["VERIFYING", "BUILDING", "PROVING"], str(states))
        (ready,) = self.journal("SUPERBRAIN_EVENT=daemon_ready")
        self.require(ready["MESSAGE"].startswith("daemon_ready (endpoint="), ready["MESSAGE"])
        self.require(ready["PRIORITY"] == "6", str(ready))
        return "the journal is readable, and selects by SUPERBRAIN_EVENT and SUPERBRAIN_MODEL"

    def configures(self) -> str:
        """A changed file is applied or named; one that does not fit changes nothing."""
        before = self.pid()
        self.write(CONFIG, '[deploy]\nprobation_s = 1.0\n[log]\nlevel = "debug"\n')
        said = self.host.run("superbrain", "reload")
        self.require('log.level = "debug" holds now' in said, said)
        self.require("deploy.probation_s = 1.0 needs a restart" in said, said)
        self.write("/tmp/bad.toml", "[deploy]\nprobation = 1\n")  # noqa: S108 - in the container
        said = self.host.run("superbrain", "config", "check", "--config", "/tmp/bad.toml", status=1)  # noqa: S108
        self.require("did you mean deploy.probation_s?" in said, said)
        self.host.run("cp", CONFIG, "/root/good.toml")
        self.host.run("cp", "/tmp/bad.toml", CONFIG)  # noqa: S108 - in the container
        self.host.run("systemctl", "reload", "superbraind", status=1)
        self.host.run("cp", "/root/good.toml", CONFIG)
        self.host.run("systemctl", "reload", "superbraind")
        self.require(self.pid() == before and self.version() == "1.0.0", "it was restarted")
        return "reload applies what it can and names what needs a restart; a bad file is refused"

    def restarts(self) -> str:
        """READY means that the models answer; who asked meanwhile got an answer."""
        with self.asked("the restart"):
            self.host.run("systemctl", "restart", "superbraind")
            self.require(self.version() == "1.0.0", "READY before the model answers")
        status = self.host.run("systemctl", "show", "superbraind", "-p", "StatusText")
        self.require("1 of 1 models ready" in status, status)
        return "a restart under load is READY when the model answers; no request failed"

    def swaps(self) -> str:
        """A new version takes over; nobody's request fails."""
        with self.asked("the swap", "1.0.0 2.0.0"):
            self.drop("adder-2.0.0.sbb")
            self.until(lambda: self.version() == "2.0.0", "2.0.0 to answer")
        return "2.0.0 takes over from 1.0.0 under load; no request failed"

    def survives_kill(self) -> str:
        """The daemon is killed."""
        before = self.processes()
        with self.asked("kill -9"):
            self.host.run("systemctl", "kill", "--kill-who=main", "-s", "KILL", "superbraind")
            self.until(lambda: not before & self.processes(), "all old processes to end")
            self.until(lambda: self.version() == "2.0.0", "2.0.0 to answer again")
        return "kill -9 of the daemon: all ends with it, all comes back; no request failed"

    def survives_hung_gateway(self) -> str:
        """The daemon ends a gateway that hangs."""
        daemon = self.pid()
        look = ("pgrep", "-f", "superbrain.serve.gateway")
        gateway = self.host.run(*look)
        self.host.run("kill", "-STOP", gateway)
        self.until(lambda: self.host.run(*look, status=None) not in ("", gateway), "a new gateway")
        self.until(lambda: self.version() == "2.0.0", "2.0.0 to answer by it")
        self.require(daemon == self.pid(), "the daemon was restarted")
        return "a gateway that hangs is ended and replaced by the daemon"

    def survives_hang(self) -> str:
        """A daemon that hangs is ended by systemd."""
        folder = "/run/systemd/system/superbraind.service.d"
        examples = "/opt/superbrain/current/share/systemd/superbraind.service.d"
        self.host.run("cp", "-r", examples, folder)
        self.write("/etc/superbrain/tcp/server.key", "secret")
        self.write(f"{folder}/quick.conf", "[Service]\nWatchdogSec=5\n")
        self.host.run("systemctl", "daemon-reload")
        said = self.host.run("systemd-analyze", "verify", "--man=no", "superbraind.service")
        # systemd 249 (Ubuntu 22.04) has something to say of units that are none of ours.
        self.require("superbraind" not in said, said)
        carol = Operator(self.host)
        carol.configures(carol.has("access.md", "[serve]"))
        carol.types("access.md", "sudo groupadd")
        self.host.run("usermod", "-aG", "models", "bob")
        daemon = self.pid()
        seen = f"/proc/{daemon}/root/run/credentials/superbraind.service/server.key"
        self.require(self.host.run("cat", seen) == "secret", "the credential")
        self.host.run("kill", "-STOP", daemon)
        self.until(lambda: self.pid() not in ("0", daemon), "systemd to start another")
        self.until(lambda: self.version() == "2.0.0", "2.0.0 to answer again")
        self.host.run("rm", "-r", folder, "/etc/superbrain/tcp/server.key")
        self.host.run("systemctl", "daemon-reload")
        log = self.host.run("journalctl", "-u", "superbraind", "-o", "cat", "--no-pager")
        self.require("Watchdog timeout" in log, log[-2000:])
        socket = self.host.run("stat", "-c", "%G %a", "/run/superbrain/infer.sock")
        self.require(socket == "models 660", socket)
        return "with all drop-ins: a daemon that hangs is ended by the watchdog; its model is back"

    def backs_up(self) -> str:
        """A host that lost its state is what it was; what a remote engineer needs is collected."""
        self.host.run("superbrain", "backup", "--output", BACKUP)
        self.host.run("superbrain", "restore", BACKUP, "--replace", status=1)  # it runs
        self.host.run("systemctl", "stop", "superbraind")
        opens_loopback(self)
        self.host.run("mv", STATE, "/root/lost")
        said = self.host.run("superbrain", "restore", BACKUP)
        self.require("adder 2.0.0" in said and "is restored" in said, said)
        self.require(
            self.host.run("stat", "-c", "%U %G %a", STATE) == "superbrain superbrain 700", ""
        )
        self.host.run("systemctl", "start", "superbraind")
        self.require(self.version() == "2.0.0", "READY before the model answers")
        self.host.run("superbrain", "audit", "--verify")
        Operator(self.host).types("troubleshooting.md", "sudo superbrain status")
        names = self.host.run("tar", "tzf", "/home/carol/ticket.tar.gz")
        wanted = ("/log.jsonl", "/unit.txt", "/service.txt", "/journal/deployments.json")
        self.require(all(name in names for name in wanted), names)
        less = ("superbrain", "support-bundle", "--output", "/home/alice/ticket.tar.gz")
        self.host.run(*less, user="alice")
        return "a backup under systemd, a lost state restored: 2.0.0 serves again; support bundles"

    def installs_again(self) -> str:
        """The same once more changes nothing."""
        before = self.pid()
        said = self.host.run(INSTALL, "--trust", "/bundles/author.pub")
        self.require("runs this version already" in said and self.pid() == before, said)
        self.require("probation_s = 1.0" in self.host.run("cat", CONFIG), "configuration")
        return "install.sh again: nothing is restarted, the configuration stays"

    def upgrades(self) -> str:
        """Another version takes the place of this one, with its models."""
        before = self.installed()
        with self.asked("the upgrade"):
            self.host.run("/newer/install.sh", timeout_s=300)
            self.require(self.version() == "2.0.0", "the model is not back")
        self.require(self.installed() != before, "the same version runs")
        self.require("probation_s = 1.0" in self.host.run("cat", CONFIG), "configuration")
        return "an upgrade in place under load: models, configuration and journal stay"

    def takes_back(self) -> str:
        """A version with which the models do not come up is taken back."""
        before = self.installed()
        said = self.host.run("/broken/install.sh", status=1, timeout_s=300)
        self.require(f"{before} serves again: adder-2.0.0" in said, said)
        self.require(self.installed() == before and self.version() == "2.0.0", said)
        versions = self.host.run("ls", "/opt/superbrain").split()
        self.require(len(versions) == 3, str(versions))
        return "an upgrade whose workers do not come up is taken back; the old version serves"

    def uninstalls(self) -> str:
        """It goes, its data stays; with --purge nothing stays."""
        self.host.run(INSTALL, "--uninstall", "--yes")
        self.host.run("systemctl", "cat", "superbraind", status=1)
        self.host.run(INSTALL, timeout_s=300)
        self.require(self.version() == "2.0.0", "the model is not back")
        self.host.run(INSTALL, "--uninstall", "--purge", "--yes")
        places = ("/etc", "/usr", "/opt", "/var/lib", "/run", "/tmp")  # noqa: S108 - in the container
        # systemd 249 (Ubuntu 22.04) keeps an empty folder of its own for each unit until it ends.
        others = ("-not", "-path", "/run/systemd/propagate/*")
        left = self.host.run("find", *places, "-xdev", "-name", "*superbrain*", *others)
        self.require(not left, left)
        self.host.run("getent", "passwd", "superbrain", status=2)
        self.host.run("getent", "group", "superbrain", status=2)
        return "uninstall keeps the data, which comes back; --purge leaves nothing"

    # --- how it is seen -----------------------------------------------------------------------

    def require(self, holds: bool, found: str) -> None:  # noqa: FBT001 - reads as a sentence
        """End the run unless it holds."""
        if not holds:
            raise CommandFailed(found)

    def until(self, condition: Callable[[], T], what: str) -> T:
        """Look until `condition` gives something true."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if found := condition():
                return found
            time.sleep(0.1)
        raise CommandFailed(f"waited in vain for {what}")

    def drop(self, name: str) -> None:
        """Deploy as alice would."""
        self.host.run("cp", f"/bundles/{name}", INBOX, user="alice")

    def version(self, timeout: str = "20") -> str:
        """Which version answers bob; empty when none does."""
        asking = ("superbrain", "infer", "adder", "--input", "x=[[0,0,0,0]]", "--json")
        said = self.host.run(*asking, "--timeout", timeout, user="bob", status=None)
        try:
            return str(json.loads(said.splitlines()[0])["model_version"])
        except (IndexError, KeyError, ValueError):
            return ""

    def pid(self) -> str:
        """The daemon's process id."""
        return self.host.run("systemctl", "show", "superbraind", "-p", "MainPID", "--value")

    def processes(self) -> set[str]:
        """Every process of the service."""
        return set(self.host.run("pgrep", "-u", "superbrain", status=None).split())

    def installed(self) -> str:
        """The version that `current` names."""
        return self.host.run("readlink", "/opt/superbrain/current")

    def write(self, path: str, text: str) -> None:
        """Write a file in the container."""
        self.host.run("sh", "-c", 'printf %s "$1" >"$0"', path, text)

    def journal(self, *fields: str) -> list[dict[str, Any]]:
        """The service's records with these fields."""
        command = ("journalctl", "-u", "superbraind", "-o", "json", "--no-pager", *fields)
        return [json.loads(line) for line in self.host.run(*command).splitlines()]

    def asked(self, during: str, versions: str = "") -> Asked:
        """Somebody who asks all the time while something happens."""
        return Asked(self.host, during, versions)


CLAIMS: Final = (
    Story.installs,
    Story.answers,
    Story.refuses_strangers,
    Story.verifies,
    Story.journals,
    Story.configures,
    Story.restarts,
    Story.swaps,
    Story.survives_kill,
    Story.survives_hung_gateway,
    Story.survives_hang,
    shows_metrics,
    Story.backs_up,
    opens_tcp,
    selects,
    Story.installs_again,
    Story.upgrades,
    Story.takes_back,
    Story.uninstalls,
)
