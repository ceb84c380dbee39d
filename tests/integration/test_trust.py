"""Trust over years on a real host: rotation, revocation, floors, wrong clocks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from superbrain.bundle.trust_chain import anchor_name
from superbrain.cli.main import main
from superbrain.deploy.journal import Journal
from superbrain.domain import deployment as life
from superbrain.domain import operations as op
from superbrain.domain.deployment import State
from superbrain.domain.health import ModelFacts
from superbrain.domain.trust_facts import TrustFacts
from superbrain.domain.trust_update import RevokedBundle
from superbrain.wire.errors import NotFound, Unavailable
from tests.support.appliance import Appliance
from tests.support.bundles import KeyPair, make_bundle, sign_key, trust_in
from tests.support.load import Load
from tests.support.releases import answer, go_live, release
from tests.support.trust import make_update, put

pytestmark = [pytest.mark.integration, pytest.mark.fault]

SUPPORT = Path(__file__).parents[1] / "support"
SLOW_LOAD = """
import time
time.sleep(2)
class Pipeline:
    def __init__(self, bundle): pass
    def preprocess(self, request): return request
    def postprocess(self, outputs, request): return outputs
"""
Keys = tuple[KeyPair, KeyPair, KeyPair]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    return sign_key(folder, "b"), sign_key(folder, "c"), sign_key(folder, "d", "p256")


def facts(appliance: Appliance) -> TrustFacts:
    return appliance.ask(op.GetTrust(), op.TrustReply).trust


def wait_update(appliance: Appliance, sequence: int) -> None:
    appliance.wait_for(lambda: facts(appliance).sequence == sequence, f"update {sequence}")


def gone(path: Path) -> Callable[[], bool]:
    return lambda: not path.exists()


def signed_by(appliance: Appliance, number: int, *pairs: KeyPair) -> Path:
    folder = appliance.work / "-".join(pair.public.stem for pair in pairs)
    made: dict[str, Any] = {"version": f"{number}.0.0", "sequence": number}
    return make_bundle(folder, *pairs, constant=float(number), **made).path


# --- rotation -------------------------------------------------------------------------------------


def test_a_host_that_missed_years_takes_the_whole_chain_in_any_order_and_no_bad_link(
    tmp_path: Path, keys: Keys
) -> None:
    b, c, d = keys
    with Appliance(tmp_path) as appliance:
        a = appliance.author
        go_live(appliance, 1)
        past = dt.datetime(2025, 4, 1, tzinfo=dt.UTC)
        first = make_update(1, [a, b], signed_by=[a, b], threshold=2, expires=past)
        second = make_update(2, [b, c], signed_by=[a, b, c], threshold=2)
        third = make_update(3, [c, d], signed_by=[b, c, d], threshold=2)

        # one that nothing follows yet waits, and so does one that has expired
        put(appliance.inbox, "z.sbt", first)
        put(appliance.inbox, "y.sbt", third)
        appliance.wait_for(lambda: len(appliance.health().inbox) == 2, "both to be noted")
        noted = {one.name: one.message for one in appliance.health().inbox}
        assert "could be imported until" in noted["z.sbt"]
        assert "waits for number 1" in noted["y.sbt"]
        put(appliance.inbox, "x.sbt", second)
        wait_update(appliance, 3)
        appliance.wait_for(lambda: not list(appliance.inbox.iterdir()), "an empty inbox")

        # the new keys count, the old ones do not
        put(appliance.inbox, "old.sbb", release(appliance, 2).read_bytes())
        appliance.drop(signed_by(appliance, 3, c, d))
        appliance.wait_live("adder", "3.0.0")
        assert "SIGNATURE_UNTRUSTED" in appliance.refusal("old.sbb")

        # bad links
        bad = {
            "only-old": (make_update(4, [a, b], signed_by=[c, d]), "UPDATE_NEW_KEYS"),
            "only-new": (make_update(4, [a, b], signed_by=[a, b]), "UPDATE_OLD_KEYS"),
            "too-few-old": (make_update(4, [a, b], signed_by=[a, b, c]), "UPDATE_OLD_KEYS"),
            "too-few-new": (
                make_update(4, [a, b], signed_by=[a, c, d], threshold=2),
                "UPDATE_NEW_KEYS",
            ),
            "another-3": (make_update(3, [a], signed_by=[a, b, c, d]), "UPDATE_SEQUENCE_REUSED"),
            "another-1": (make_update(1, [b], signed_by=[a, b]), "UPDATE_SEQUENCE_OLD"),
            "no-update": (b"{}", "ENVELOPE_MALFORMED"),
        }
        replay = put(appliance.inbox, "replay.sbt", second)
        for name, (data, _) in bad.items():
            put(appliance.inbox, f"{name}.sbt", data)
        for name, (_, code) in bad.items():
            assert code in appliance.refusal(f"{name}.sbt")
        appliance.wait_for(gone(replay), "the replayed one to be let go")
        assert facts(appliance).sequence == 3
        assert any(one.name == "only-new.sbt.refused" for one in appliance.health().inbox)

        # a restart believes what is signed, and what was changed on the disk it does not
        chain = appliance.root / "state/trust" / anchor_name(trust_in(a))
        appliance.stop()
        appliance.start()
        assert facts(appliance).sequence == 3
        late = signed_by(appliance, 9, c, d)
        for harm in (lambda: (chain / "000002.sbt").write_bytes(first), _remove(chain)):
            appliance.stop()
            harm()
            appliance.start()
            appliance.wait_live("adder", "3.0.0")
            found = appliance.problem("trust")
            assert found is not None
            assert "expected trust update" in found.message
            waiting = appliance.drop(late)
            appliance.wait_for(lambda: "waiting" in outcomes(appliance), "the bundle to wait")
            assert waiting.exists()
            waiting.unlink()
            for name, data in {"p.sbt": third, "q.sbt": second}.items():
                put(appliance.inbox, name, data)
            wait_update(appliance, 3)
            assert appliance.problem("trust") is None
            appliance.wait_for(lambda: not list(appliance.inbox.glob("*.sbt")), "no more updates")
        appliance.drop(late)
        appliance.wait_live("adder", "9.0.0")


def outcomes(appliance: Appliance) -> set[str]:
    return {one.outcome for one in appliance.health().inbox if one.name.endswith(".sbb")}


def _remove(chain: Path) -> Callable[[], object]:
    return (chain / "000003.sbt").unlink


@pytest.mark.parametrize("point", ["before", "during", "after"])
def test_a_daemon_killed_while_it_keeps_an_update_has_it_or_has_it_not(
    tmp_path: Path, keys: Keys, point: str
) -> None:
    b, _, _ = keys
    with Appliance(tmp_path, start=False) as appliance:
        appliance.start(str(SUPPORT / "trust_killed_daemon.py"), point)
        assert appliance.process is not None
        update = make_update(1, [b], signed_by=[appliance.author, b])
        dropped = put(appliance.inbox, "trust-1.sbt", update)
        assert appliance.process.wait(60) == -9
        appliance.start()
        wait_update(appliance, 1)
        assert appliance.problem("trust") is None
        appliance.wait_for(gone(dropped), "the update to be taken")
        verdict = appliance.ask(op.VerifyAudit(), op.AuditVerdict)
        assert verdict.faults == []


def test_a_trust_folder_that_is_unsafe_is_not_held_against_a_good_bundle(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        folder = appliance.root / "trust" / "keys"
        folder.chmod(0o777)
        appliance.ask(op.Reload(), op.Outcome)
        dropped = appliance.drop(release(appliance, 1))
        noted = appliance.wait_noted("writable by its owner only")
        assert noted.outcome == "waiting"
        assert dropped.exists()
        a = appliance.author
        refusal = appliance.ask(
            op.ImportTrust([make_update(1, [a], signed_by=[a]).decode()]), op.Refusal
        )
        assert "writable by its owner only" in refusal.message
        folder.chmod(0o755)
        appliance.ask(op.Reload(), op.Outcome)
        appliance.wait_live("adder", "1.0.0")


# --- revocation and floors ------------------------------------------------------------------------


def test_a_revoked_version_that_serves_gives_way_or_is_said_or_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Appliance(tmp_path) as appliance:
        monkeypatch.setenv("SUPERBRAIN_CONTROL", appliance.control_endpoint)
        a = appliance.author
        go_live(appliance, 1)
        first, second = appliance.model("adder"), release(appliance, 2)
        appliance.drop(second)
        appliance.wait_live("adder", "2.0.0")
        serving = appliance.model("adder")
        assert first is not None
        assert serving is not None

        # the version before it takes over, and no request is missed
        revoked = RevokedBundle(serving.digest, why="adds wrongly")
        update = make_update(1, [a], signed_by=[a], revoked_bundles=[revoked])
        with Load(appliance.client, clients=1) as load:
            put(appliance.inbox, "trust-1.sbt", update)
            appliance.wait_live("adder", "1.0.0")
        assert (load.failed, load.mixed) == ([], [])
        assert appliance.wait_ended("adder", "2.0.0", "ROLLED_BACK")
        put(appliance.inbox, "again.sbb", second.read_bytes())
        assert "BUNDLE_REVOKED" in appliance.refusal("again.sbb")

        # nothing is left to take over: it goes on, and that is critical
        assert main(["trust", "revoke", first.digest, "--why", 'not "good"']) == 0
        found = appliance.wait_for(lambda: appliance.problem("model adder"), "a problem")
        assert found.severity == "critical"
        assert "serves and should not" in found.message
        assert answer(appliance) == 1
        main(["trust", "show"])
        assert "adder 1.0.0" in capsys.readouterr().out

        # unless no answer is better than this one
        assert main(["trust", "revoke", first.digest, "--stop"]) == 0
        appliance.wait_ended("adder", "1.0.0", "RETIRED")
        with pytest.raises(NotFound):
            answer(appliance)
        assert ("critical", True) in [
            (one.severity, "was stopped" in one.message) for one in appliance.health().problems
        ]
        appliance.kill()
        appliance.start()
        with pytest.raises(NotFound):
            answer(appliance)
        go_live(appliance, 3)
        assert appliance.problem("model adder") is None


@pytest.mark.parametrize("state", [State.SWITCHING, State.ROLLING_BACK, State.DRAINING])
def test_what_is_to_be_stopped_does_not_serve_again_whatever_a_kill_has_cut_short(
    tmp_path: Path, state: State
) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1)
        appliance.stop()
        journal = Journal(appliance.root / "state/journal.sqlite")
        live = journal.current("adder")
        assert live is not None
        cut = msgspec.structs.replace(live, state=state)
        journal.record(live, "Cut", cut, dt.datetime.now(dt.UTC))
        journal.close()
        revoked = appliance.root / "trust/revoked"
        revoked.mkdir(mode=0o755)
        (revoked / live.digest).write_text("stop = true\n")
        proven = len(appliance.logged("proof_passed"))
        appliance.start()
        appliance.wait_for(
            lambda: appliance.history("adder")[-1].state_to in {*life.ENDED, State.RETIRED},
            "its end",
        )
        with pytest.raises((NotFound, Unavailable)):
            answer(appliance)
        assert len(appliance.logged("proof_passed")) == proven


def test_nobody_goes_back_below_a_security_floor_and_a_revoked_key_signs_nothing_new(
    tmp_path: Path, keys: Keys
) -> None:
    b, _, _ = keys
    with Appliance(tmp_path) as appliance:
        a = appliance.author
        go_live(appliance, 1)
        go_live(appliance, 2)
        update = make_update(1, [a, b], signed_by=[a, b], security_floors={"adder": 2})
        message = appliance.ask(op.ImportTrust([update.decode()]), op.Outcome).message
        assert message == "trust update 1 counts now: 1 of 2 keys must sign"
        refusal = appliance.ask(op.Rollback("adder"), op.Refusal)
        assert refusal.code == "BELOW_SECURITY_FLOOR"
        assert "expected a sequence of 2 or above" in refusal.message
        appliance.wait_ended("adder", "1.0.0", "RETIRED")
        appliance.ask(op.Retry("adder", "1.0.0"), op.Outcome)
        step = appliance.wait_ended("adder", "1.0.0", "REJECTED")
        assert "security floor" in step.detail
        assert answer(appliance) == 2

        # what a stolen key has signed is in doubt, and stays until there is something better
        floors = {"adder": 2}
        stolen = make_update(
            2, [b], signed_by=[a, b], revoked_keys=[a.key_id], security_floors=floors
        )
        put(appliance.inbox, "trust-2.sbt", stolen)
        appliance.wait_for(
            lambda: (p := appliance.problem("model adder")) and p.severity == "critical",
            "the live version to be in doubt",
        )
        assert answer(appliance) == 2
        put(appliance.inbox, "stolen.sbb", release(appliance, 4).read_bytes())
        assert "KEY_REVOKED" in appliance.refusal("stolen.sbb")
        appliance.drop(signed_by(appliance, 5, b))
        appliance.wait_live("adder", "5.0.0")
        appliance.wait_for(lambda: appliance.problem("model adder") is None, "no doubt any more")
        refusal = appliance.ask(op.Rollback("adder"), op.Refusal)
        assert refusal.code == "KEY_REVOKED"


# --- while nobody can tell what is revoked --------------------------------------------------------


class Unbelieved:
    """A trust folder that is not believed: others may write it."""

    def __init__(self, appliance: Appliance) -> None:
        self._appliance = appliance
        self._folder = appliance.root / "trust"

    def begin(self) -> None:
        """Start the daemon with it."""
        self._appliance.stop()
        self._folder.chmod(0o775)
        self._appliance.start()

    def mend(self) -> str:
        """Have it believed again; what the daemon says."""
        self._folder.chmod(0o755)
        return self._appliance.ask(op.Reload(), op.Outcome).message


def kill_workers(appliance: Appliance, times: int) -> None:
    """End the worker that serves, and its successors."""
    for _ in range(times):
        model = appliance.wait_for(_answering(appliance), "a worker")
        worker = psutil.Process(model.workers[0].pid)
        worker.kill()
        psutil.wait_procs([worker], 10)


def _answering(appliance: Appliance) -> Callable[[], ModelFacts | None]:
    def look() -> ModelFacts | None:
        model = appliance.model("adder")
        alive = model and model.workers and psutil.pid_exists(model.workers[0].pid)
        return model if alive else None

    return look


def happened(appliance: Appliance, version: str) -> list[str]:
    return [step.event for step in appliance.history("adder") if step.version == version]


def test_nothing_goes_back_while_nobody_can_tell_what_is_revoked(tmp_path: Path) -> None:
    with Appliance(tmp_path, crashes=1) as appliance:
        trust = Unbelieved(appliance)
        go_live(appliance, 1)
        first = appliance.model("adder")
        assert first is not None
        go_live(appliance, 2)
        appliance.wait_ended("adder", "1.0.0", "RETIRED")
        revoked = appliance.root / "trust/revoked"
        revoked.mkdir(mode=0o755)
        (revoked / first.digest).write_text('why = "adds wrongly"\n')
        trust.begin()
        appliance.wait_live("adder", "2.0.0")

        # neither by an order
        refusal = appliance.ask(op.Rollback("adder"), op.Refusal)
        assert refusal.code == "TRUST_WRITABLE"
        assert "1.0.0 may not serve again: whether it is revoked is not known" in refusal.message
        assert "chmod go-w" in refusal.mend
        # nor by itself
        kill_workers(appliance, 2)
        appliance.wait_for(lambda: "PreviousLost" in happened(appliance, "2.0.0"), "no way back")
        appliance.wait_live("adder", "2.0.0")
        assert answer(appliance) == 2

        assert "1 key" in trust.mend()
        refusal = appliance.ask(op.Rollback("adder"), op.Refusal)
        assert refusal.code == "BUNDLE_REVOKED"


def test_what_did_too_badly_meanwhile_is_gone_back_from_once_that_is_known(tmp_path: Path) -> None:
    with Appliance(tmp_path, crashes=1) as appliance:
        trust = Unbelieved(appliance)
        go_live(appliance, 1)
        go_live(appliance, 2)
        trust.begin()
        appliance.wait_live("adder", "2.0.0")
        kill_workers(appliance, 2)
        appliance.wait_for(lambda: "PreviousLost" in happened(appliance, "2.0.0"), "no way back")
        trust.mend()
        appliance.wait_live("adder", "1.0.0")
        assert answer(appliance) == 1


def test_what_cannot_serve_meanwhile_says_so_and_is_gone_back_from_once_that_is_known(
    tmp_path: Path,
) -> None:
    with Appliance(tmp_path) as appliance:
        trust = Unbelieved(appliance)
        go_live(appliance, 1)
        go_live(appliance, 2)
        serving = appliance.model("adder")
        assert serving is not None
        graph = appliance.root / "state/store/bundles" / serving.digest / "graphs/main.onnx"
        graph.chmod(0o600)
        graph.write_bytes(b"damaged")
        trust.begin()
        found = appliance.wait_for(lambda: appliance.problem("model adder"), "a problem")
        assert found.severity == "critical"
        assert "the version before it may not come back" in found.message
        assert "chmod go-w" in found.mend
        with pytest.raises(Unavailable, match="whether it is revoked is not known"):
            answer(appliance)
        trust.mend()
        appliance.wait_live("adder", "1.0.0")
        assert answer(appliance) == 1


def test_what_is_on_its_way_does_not_begin_to_serve_meanwhile(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        trust = Unbelieved(appliance)
        go_live(appliance, 1)
        appliance.drop(release(appliance, 2, pipeline=SLOW_LOAD))
        appliance.wait_for(
            lambda: "BUILDING" in [step.state_to for step in appliance.history("adder")][-1:],
            "it to be on its way",
        )
        trust.begin()
        step = appliance.wait_ended("adder", "2.0.0", "FAILED")
        assert "whether it is revoked is not known" in step.detail
        assert answer(appliance) == 1
        trust.mend()
        appliance.ask(op.Retry("adder", "2.0.0"), op.Outcome)
        appliance.wait_live("adder", "2.0.0")


def test_nobody_goes_back_below_a_floor_that_an_update_set_which_is_gone(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        a = appliance.author
        go_live(appliance, 1)
        go_live(appliance, 2)
        update = make_update(1, [a], signed_by=[a], security_floors={"adder": 2})
        appliance.ask(op.ImportTrust([update.decode()]), op.Outcome)
        appliance.stop()
        (appliance.root / "state/trust" / anchor_name(trust_in(a)) / "000001.sbt").unlink()
        appliance.start()
        appliance.wait_live("adder", "2.0.0")
        refusal = appliance.ask(op.Rollback("adder"), op.Refusal)
        assert refusal.code == "TRUST_CHAIN_BROKEN"
        put(appliance.inbox, "again.sbt", update)
        wait_update(appliance, 1)
        refusal = appliance.ask(op.Rollback("adder"), op.Refusal)
        assert refusal.code == "BELOW_SECURITY_FLOOR"


# --- time -----------------------------------------------------------------------------------------


def test_a_clock_at_1970_judges_by_what_was_seen_before(tmp_path: Path) -> None:
    clock = str(SUPPORT / "clock_daemon.py")
    with Appliance(tmp_path, start=False) as appliance:
        appliance.start(clock, "2031-06-01T00:00:00+00:00")
        go_live(appliance, 1)
        appliance.stop()
        appliance.start(clock, "1970-01-01T00:00:00+00:00")
        found = appliance.problem("clock")
        assert found is not None
        assert "before 2031-06-01 00:00 UTC" in found.message
        expired = release(appliance, 2, more="expires = 2031-01-01T00:00:00Z")
        put(appliance.inbox, "expired.sbb", expired.read_bytes())
        assert "EXPIRED" in appliance.refusal("expired.sbb")
        appliance.drop(release(appliance, 3, more="expires = 2032-01-01T00:00:00Z"))
        appliance.wait_live("adder", "3.0.0")
        appliance.stop()

        # the clock was ahead: an operator says so, and the bundle is good after all
        appliance.start(clock, "2026-01-01T00:00:00+00:00")
        appliance.ask(op.ForgetTime(), op.Outcome)
        assert appliance.problem("clock") is None
        appliance.drop(release(appliance, 4, more="expires = 2031-01-01T00:00:00Z"))
        appliance.wait_live("adder", "4.0.0")
        assert appliance.problem("clock") is None
        assert facts(appliance).time_floor == dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
