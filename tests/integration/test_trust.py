"""Trust over years on a real host: rotation, revocation, floors, wrong clocks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from superbrain.bundle.trust_chain import anchor_name
from superbrain.cli.main import main
from superbrain.domain import operations as op
from superbrain.domain.trust_facts import TrustFacts
from superbrain.domain.trust_update import RevokedBundle
from superbrain.wire.errors import NotFound
from tests.support.appliance import Appliance
from tests.support.bundles import KeyPair, make_bundle, sign_key, trust_in
from tests.support.load import Load
from tests.support.releases import answer, go_live, release
from tests.support.trust import make_update, put

pytestmark = [pytest.mark.integration, pytest.mark.fault]

SUPPORT = Path(__file__).parents[1] / "support"
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
