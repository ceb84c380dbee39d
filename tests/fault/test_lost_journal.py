"""The journal is damaged, gone or old at the start: what served last, serves again from the store.

A row of `DAMAGES` says what became of the files; the same must follow for all: the daemon starts,
the last good version answers, what was retired stays so, a damaged file is kept and health says so.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from superbrain.bundle.store import Store
from superbrain.deploy.adoption import Adoption, open_journal
from superbrain.deploy.journal import Journal
from superbrain.deploy.journal_file import JournalDamaged
from superbrain.domain import operations as op
from superbrain.domain.deployment import Deployment
from superbrain.domain.trust import Trust
from superbrain.wire.errors import NotFound
from tests.support.appliance import Appliance
from tests.support.bundles import make_bundle, sign_key, verified
from tests.support.consistency import assert_at_rest
from tests.support.releases import answer, go_live, release

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]
PAGE = 4096


class Damage(NamedTuple):
    """What becomes of the journal, and whether it can be told from a good one."""

    name: str
    do: Callable[[Path], None]
    seen: bool


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // PAGE * PAGE)


def zero_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[PAGE : 4 * PAGE] = bytes(3 * PAGE)
    path.write_bytes(data)


def spoil_head(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[:100] = os.urandom(100)
    path.write_bytes(data)


def text(path: Path) -> None:
    path.write_text("this is no journal\n" * 1000)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def lose(path: Path) -> None:
    path.unlink()


DAMAGES = (
    Damage("cut in half", cut_in_half, seen=True),
    Damage("zeroed pages", zero_pages, seen=True),
    Damage("spoilt head", spoil_head, seen=True),
    Damage("another file", text, seen=True),
    Damage("empty", empty, seen=False),
    Damage("gone", lose, seen=False),
)


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """Give an appliance: 2.0.0 of the adder serves, 3.0.0 was rolled back, a model is retired."""
    with Appliance(tmp_path_factory.mktemp("lost")) as appliance:
        go_live(appliance, 1)
        go_live(appliance, 2)
        go_live(appliance, 3)
        appliance.ask(op.Rollback("adder"), op.Outcome)
        appliance.drop(release(appliance, 1, name="retired"))
        appliance.wait_live("retired", "1.0.0")
        appliance.ask(op.Retire("retired"), op.Outcome)
        assert_at_rest(appliance)
        yield appliance


def journal_of(appliance: Appliance) -> Path:
    return appliance.root / "state/journal.sqlite"


def is_served_as_before(appliance: Appliance) -> None:
    appliance.wait_live("adder", "2.0.0")
    assert answer(appliance) == 2
    with appliance.client() as client, pytest.raises(NotFound):
        client.infer("retired", {})
    assert_at_rest(appliance)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_what_served_last_serves_again(appliance: Appliance, damage: Damage) -> None:
    appliance.stop()
    damage.do(journal_of(appliance))
    appliance.start()
    is_served_as_before(appliance)
    kept = list((appliance.root / "state").glob("journal.sqlite.damaged-*"))
    problems = [problem.message for problem in appliance.health().problems]
    assert bool(kept) == damage.seen
    assert any("was damaged" in message for message in problems) == damage.seen
    for path in kept:
        path.unlink()


def test_a_write_ahead_log_that_is_lost_costs_no_version(appliance: Appliance) -> None:
    appliance.kill()
    journal_of(appliance).with_name("journal.sqlite-wal").unlink(missing_ok=True)
    appliance.start()
    is_served_as_before(appliance)


def test_an_older_release_is_still_refused_afterwards(appliance: Appliance) -> None:
    appliance.stop()
    lose(journal_of(appliance))
    appliance.start()
    is_served_as_before(appliance)
    appliance.drop(release(appliance, 1, constant=7.0))
    aside = appliance.inbox / "adder-1.0.0.sbb.refused.txt"
    appliance.wait_for(aside.exists, "the older one to be refused")
    assert "SEQUENCE_BELOW_FLOOR" in aside.read_text()
    assert answer(appliance) == 2


def test_a_damaged_bundle_under_the_current_version_brings_its_predecessor_back(
    tmp_path: Path,
) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1)
        go_live(appliance, 2)
        assert_at_rest(appliance)
        model = appliance.model("adder")
        assert model is not None
        appliance.stop()
        graph = appliance.root / "state/store/bundles" / model.digest / "graphs/main.onnx"
        graph.chmod(0o600)
        graph.write_bytes(b"damaged")
        appliance.start()
        appliance.wait_live("adder", "1.0.0")
        assert answer(appliance) == 1
        step = appliance.wait_ended("adder", "2.0.0", "ROLLED_BACK")
        assert step.event == "PreviousReady"


@pytest.mark.parametrize("lack", ["keys are not believed", "no key vouches for it"])
def test_what_nobody_vouches_for_stays_in_the_store_and_is_told_of(
    tmp_path: Path, lack: str
) -> None:
    """The journal and the trust are lost on the same day; only the trust can be mended."""
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1)
        go_live(appliance, 2)
        assert appliance.stop() == 0
        (journal,) = appliance.root.glob("state/journal.sqlite")
        journal.unlink()
        (key,) = appliance.root.glob("trust/keys/*.pub")
        hidden = tmp_path / "key"
        if lack == "no key vouches for it":
            key.rename(hidden)
        else:
            key.chmod(0o666)
        appliance.start()
        problem = appliance.wait_for(lambda: appliance.problem("store"), "a word about them")
        assert problem.severity == "critical"
        assert "cannot take it from the store" in problem.message
        assert "restart superbraind" in problem.mend
        assert len([*appliance.root.glob("state/store/bundles/*")]) == 2
        assert appliance.stop() == 0
        if hidden.exists():
            hidden.rename(key)
        key.chmod(0o644)
        appliance.start()
        assert answer(appliance) == 2.0
        assert appliance.problem("store") is None


def test_what_nobody_vouches_for_is_forgotten_with_its_folder_or_known_again(
    tmp_path: Path,
) -> None:
    author = sign_key(tmp_path / "keys")
    store = Store(tmp_path / "store", reserve_bytes=0)
    bundles = [make_bundle(tmp_path, author, name=name) for name in ("one", "two")]
    for built in bundles:
        with built.path.open("rb") as file:
            store.receive(file, verified(built, author))
    journal = Journal(tmp_path / "journal.sqlite")
    adoption = Adoption(journal, store, tmp_path / "journal.sqlite")
    adoption.adopt(Trust())
    one, two = (built.digest for built in bundles)
    assert adoption.doubted() == {one, two}
    assert "2 bundles" in adoption.problems()[0].message
    store.remove(one)
    assert adoption.doubted() == {two}
    assert f"bundle {two[:12]} " in adoption.problems()[0].message
    known = Deployment(id=0, name="two", version="1", sequence=1, digest=two, ladder=("cpu",))
    journal.create(known, dt.datetime.now(dt.UTC))
    assert not adoption.doubted()
    assert not adoption.problems()
    journal.close()


def test_a_deployment_that_cannot_be_read_is_damage_too(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    with journal._transaction() as db:
        db.execute(
            "INSERT INTO deployments (name, version, digest, state, body, created_at)"
            " VALUES ('a', '1', 'x', 'LIVE', x'00', '')"
        )
    journal.close()
    with pytest.raises(JournalDamaged, match="a deployment that is none"):
        Journal(path)
    anew = open_journal(path)
    assert anew.models() == {}
    anew.close()
    assert len(list(tmp_path.glob("journal.sqlite.damaged-*Z"))) == 1
