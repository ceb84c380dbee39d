"""What the documents tell an operator to type on a real host, typed there as it is written.

carol types it: an ordinary user who may use sudo. The claims here are further ones of the story
(acceptance_story.py). What a page has as TOML is put into the configuration as it is written, too.
tests/unit/test_document_commands.py reads from the calls of `types` which blocks are typed.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, TypeAlias

from scripts.acceptance_host import Host
from tests.support.documents import ROOT, Block, blocks, lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from scripts.acceptance_story import Story

CONFIG: Final = "/etc/superbrain/superbrain.toml"
INFERENCES: Final = "/var/lib/superbrain/state/inference/inference.jsonl"
NODE_EXPORTER: Final = "http://127.0.0.1:9100/metrics"
OURS: Final = "http://127.0.0.1:9464"
TABLE: Final = re.compile(r"\[(\w+)\]")
By: TypeAlias = "Callable[[re.Match[str]], str]"
DONE: Final = "----- done -----"
PYTHON: Final = "/opt/superbrain/current/bin/python"
# Asks for a page: the Debian has no curl.
GET: Final = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=60).read().decode())
"""
# Asks a model that is not there.
ASK_NOBODY: Final = """
import numpy
from superbrain.client import Client, NotFound
try:
    Client().infer("nobody", {"x": numpy.zeros((1, 4))})
except NotFound:
    pass
"""
# Whether somebody at this address is let in.
KNOCK: Final = """
import socket, sys
try:
    socket.create_connection(("192.0.2.10", 5555), float(sys.argv[2]), (sys.argv[1], 0)).close()
except TimeoutError:
    print("dropped")
else:
    print("open")
"""


class Operator:
    """carol, at the host.

    The host's model is `adder` where the documents speak of `ocr`.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        if host.run("getent", "passwd", "carol", status=None):
            return
        host.run("useradd", "--create-home", "--groups", "sudo,superbrain", "carol")
        host.run("useradd", "--system", "camera")
        host.run("sh", "-c", 'echo "127.0.1.1 $(hostname)" >>/etc/hosts')
        rule = "carol ALL=(ALL) NOPASSWD: ALL"
        host.run("sh", "-c", f"umask 227 && echo '{rule}' >/etc/sudoers.d/carol")

    def types(
        self, page: str, beginning: str, *, instead: str = "", by: str | By = ""
    ) -> list[str]:
        """Type the block of a page that begins so; what each of its lines printed.

        Args:
            page: of docs/.
            beginning: of the block.
            instead: a pattern of what is another here, such as the number of an example.
            by: what it is here.
        """
        (block,) = (one for one in shell(page) if one.text.startswith(beginning))
        script = ["cd", *(f"{line}\necho '{DONE}'" for line in lines(block.text))]
        text = re.sub(r"\bocr\b", "adder", "\n".join(script))
        text = re.sub(instead, by, text) if instead else text
        said = self._host.run("bash", "-euc", text, user="carol")
        return [part.strip() for part in said.split(DONE)[:-1]]

    def configures(self, *texts: str) -> None:
        """Put TOML into the configuration."""
        self._host.run("sh", "-c", f'printf %s "$0" >>{CONFIG}', "\n" + merged(*texts))

    def has(self, page: str, text: str) -> str:
        """Give the block of TOML of a page with this text in it."""
        found = [one.text for one in blocks(ROOT / "docs" / page) if one.language == "toml"]
        (block,) = (one for one in found if text in one)
        return block

    def asks(self, url: str) -> str:
        """Give the page at an address."""
        return self._host.run(PYTHON, "-c", GET, url, user="carol")

    def metrics(self) -> str:
        """Give what superbrain prints of them."""
        return self._host.run("superbrain", "metrics")


def shell(page: str) -> list[Block]:
    """Find the blocks of commands of a page of docs/."""
    return [one for one in blocks(ROOT / "docs" / page) if one.language in {"sh", "bash"}]


def merged(*texts: str) -> str:
    """Bring what several texts say of the same table together."""
    tables: dict[str, list[str]] = {}
    for text in texts:
        name = ""
        for line in lines(text):
            if found := TABLE.match(line):
                name = found[1]
            else:
                tables.setdefault(name, []).append(line)
    return "".join(f"[{name}]\n" + "".join(f"{line}\n" for line in tables[name]) for name in tables)


# --- what holds -----------------------------------------------------------------------------------


def shows_metrics(story: Story) -> str:
    """docs/metrics.md and traces.md: node_exporter has the metrics, a file the single requests."""
    carol = Operator(story.host)
    every = re.sub(r"share = \S+", "share = 1.0", carol.has("traces.md", "[inference_log]"))
    written = (carol.has("metrics.md", "file ="), carol.has("metrics.md", "listen ="), every)
    carol.configures(*written, "[health]\ninterval_s = 0.5\n")
    carol.types("metrics.md", "sudo install")
    story.host.run(PYTHON, "-c", ASK_NOBODY, user="bob")
    story.require(story.version() == "2.0.0", "READY before the model answers")
    story.until(lambda: _same(carol, NODE_EXPORTER), "node_exporter to tell it all")
    story.until(lambda: _both_are_told(story), "both requests in the file")
    # all that was executed is slow here
    _, failed, slow, models = carol.types("traces.md", "log=", instead="> 50", by="> 0")
    story.require("nobody\tNOT_FOUND" in failed and "[1,4]" in slow, failed + slow)
    story.require('"model": "adder"' in models, models)
    return (
        "docs/metrics.md, traces.md as written: node_exporter has the metrics, a file the requests"
    )


def _same(carol: Operator, url: str) -> bool:
    """Whether that page is ready and has all metrics that superbrain prints."""
    told = carol.asks(url)
    ready = re.search(r"(?m)^superbrain_ready 1$", told)
    return ready is not None and _names(carol.metrics()) <= _names(told)


def _names(text: str) -> set[str]:
    return set(re.findall(r"(?m)^# TYPE (superbrain_\w+)", text))


def _both_are_told(story: Story) -> bool:
    told = story.host.run("cat", INFERENCES, status=None)
    return '"nobody"' in told and '"adder"' in told


def opens_loopback(story: Story) -> None:
    """docs/metrics.md: take the marks away from the second half of metrics.conf, before a start."""
    dropin = "/etc/systemd/system/superbraind.service.d/metrics.conf"
    story.host.run("sed", "-i", r"s/^#\([A-Z]\w*=\)/\1/", dropin)
    story.host.run("systemctl", "daemon-reload")


def opens_tcp(story: Story) -> str:
    """docs/access.md: another host's program is let in by its key, and by the firewall."""
    carol = Operator(story.host)
    for path in ("/healthz", "/readyz"):
        carol.asks(OURS + path)
    story.until(lambda: _same(carol, f"{OURS}/metrics"), "the loopback to tell it all")
    story.host.run("ip", "address", "add", "192.0.2.10/24", "dev", "lo")
    carol.types("access.md", "sudo usermod -aG superbrain camera")
    groups = story.host.run("id", "-nG", "camera").split()
    story.require({"superbrain", "models"} <= {*groups}, f"camera is in {groups}")
    carol.types("access.md", "sudo superbrain access generate server")
    carol.configures(carol.has("access.md", "[tcp]"))
    story.host.run("sed", "-i", 's/^to = "file"/to = "journal"/', CONFIG)
    carol.types("access.md", "dropins=")
    save = "import numpy as np; np.save('/home/carol/x.npy', np.zeros((1, 4), np.float32))"
    story.host.run(PYTHON, "-c", save, user="carol")
    story.until(lambda: _knocks(story, "192.0.2.10") == "open", "TCP to be open")
    (said,) = carol.types("access.md", "superbrain infer ocr")
    story.require("2.0.0" in said, said)
    story.require(_knocks(story, "127.0.0.1") == "open", "closed before the firewall is")
    story.host.run("systemctl", "start", "nftables")
    carol.types("access.md", "sudo nft")
    story.require(_knocks(story, "127.0.0.1", "0.5") == "dropped", "another network is let in")
    story.require(_knocks(story, "192.0.2.10") == "open", "the network is not let in")
    carol.types("access.md", "sudo superbrain access deny")
    return "docs/metrics.md, access.md as written: probes answer; TCP by key, nftables lets in"


def _knocks(story: Story, address: str, patience_s: str = "60") -> str:
    return story.host.run(PYTHON, "-c", KNOCK, address, patience_s, user="carol", status=None)


def selects(story: Story) -> str:
    """docs/troubleshooting.md, traces.md and others: what one looks for in the journal is found."""
    carol = Operator(story.host)
    health = json.loads(story.host.run("cat", "/run/superbrain/health.json"))
    story.host.run("kill", "-KILL", str(health["models"][0]["workers"][0]["pid"]))
    story.until(lambda: story.journal("SUPERBRAIN_EVENT=worker_died"), "the death to be told")
    story.require(story.version() == "2.0.0", "it does not answer again")
    warnings, life, deaths = carol.types("troubleshooting.md", "sudo journalctl")
    story.require("worker_died" in warnings and "deployment_advanced" not in warnings, warnings)
    story.require("deployment_advanced" in life and "daemon_ready" not in life, life)
    events = {json.loads(line)["SUPERBRAIN_EVENT"] for line in deaths.splitlines()}
    story.require(events == {"worker_died"}, deaths)
    deaths, states = carol.types("log-events.md", "sudo journalctl")
    story.require("worker_died" in deaths and '"VERIFYING"' in states, deaths + states)
    _selects_requests(story, carol)
    judged = (r"(?m)^superbrain doctor.*$", r"\g<0> || [ $? = 1 ]")
    said = carol.types("operations.md", "superbrain doctor", instead=judged[0], by=judged[1])
    story.require("tensorrt:fp16: " in said[2], str(said))
    return "journalctl's and jq's lines in the documents find what they say"


def _selects_requests(story: Story, carol: Operator) -> None:
    story.until(lambda: _journalled(carol), "a request in the journal")
    record = story.journal("SUPERBRAIN_EVENT=inference", "SUPERBRAIN_MODEL=adder")[-1]
    request, deployment = record["SUPERBRAIN_REQUEST_ID"], record["SUPERBRAIN_DEPLOYMENT"]
    by_deployment, by_request = carol.types(
        "traces.md",
        "sudo journalctl -u superbraind SUPERBRAIN_DEPLOYMENT",
        instead=r"(?m)=(7|52520b-8)$",
        by=lambda found: "=" + (deployment if found[1] == "7" else request),
    )
    story.require("deployment_advanced" in by_deployment, by_deployment)
    story.require(request in by_request and "deployment_advanced" not in by_request, by_request)


def _journalled(carol: Operator) -> bool:
    (counts,) = carol.types(
        "traces.md", "sudo journalctl -u superbraind SUPERBRAIN_EVENT=inference"
    )
    return re.search(r"(?m)\d adder$", counts) is not None
