"""The engine cache: whole entries or none, damage found out, the oldest first to go."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from superbrain.bundle.engine_cache import RECENT_S, EngineCache
from superbrain.domain.engine import EngineHost, EngineKey, EngineRecord
from superbrain.domain.errors import StoreError

HOST = EngineHost("tensorrt-rtx", "1.7.1", "Some GPU", "8.9", "580.1", "13.0")
KEY = EngineKey("g" * 64, "tensorrt-rtx", "1.7.1", "Some GPU", "8.9", "fp32", [], [], 64)
CONTENT = b"an engine" * 1000
LIMIT = 20_000


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines", LIMIT)


def put(cache: EngineCache, tmp_path: Path, key: EngineKey = KEY) -> EngineRecord:
    built = tmp_path / "built"
    built.write_bytes(CONTENT)
    return cache.put(key, built, HOST, 1.5)


def numbered(number: int) -> EngineKey:
    return msgspec.structs.replace(KEY, graph=str(number))


def test_what_was_put_is_found_with_where_it_was_built(cache: EngineCache, tmp_path: Path) -> None:
    record = put(cache, tmp_path)
    assert cache.look_up(KEY) == record
    assert (record.host, record.seconds, record.size_bytes) == (HOST, 1.5, len(CONTENT))
    assert cache.path(KEY).read_bytes() == CONTENT
    assert cache.path(KEY).stat().st_mode & 0o777 == 0o444


def test_what_was_never_put_is_not_there(cache: EngineCache) -> None:
    assert cache.look_up(KEY) is None
    assert not cache.holds(KEY)


def damage(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("content", [CONTENT[:-1], b"x" + CONTENT[1:], CONTENT + b"x", b""])
def test_a_damaged_engine_is_none_and_goes(
    cache: EngineCache, tmp_path: Path, content: bytes
) -> None:
    put(cache, tmp_path)
    damage(cache.path(KEY), content)
    assert cache.holds(KEY)
    assert cache.look_up(KEY) is None
    assert not cache.holds(KEY)
    put(cache, tmp_path)
    assert cache.look_up(KEY) is not None


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"null", b"\xff" * 10])
def test_a_damaged_record_is_none(cache: EngineCache, tmp_path: Path, content: bytes) -> None:
    put(cache, tmp_path)
    damage(cache.path(KEY).with_name("record.json"), content)
    assert cache.look_up(KEY) is None


def test_an_entry_under_another_key_is_none(cache: EngineCache, tmp_path: Path) -> None:
    put(cache, tmp_path)
    cache.path(KEY).parent.rename(cache.path(numbered(1)).parent)
    assert cache.look_up(numbered(1)) is None


def test_a_link_in_an_engines_place_is_not_followed(cache: EngineCache, tmp_path: Path) -> None:
    put(cache, tmp_path)
    (tmp_path / "elsewhere").write_bytes(CONTENT)
    cache.path(KEY).unlink()
    cache.path(KEY).symlink_to(tmp_path / "elsewhere")
    assert cache.look_up(KEY) is None
    assert (tmp_path / "elsewhere").exists()


def test_a_fifo_in_a_builders_place_is_refused_without_waiting(
    cache: EngineCache, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "built")
    with pytest.raises(StoreError):
        cache.put(KEY, tmp_path / "built", HOST, 0.0)
    assert not cache.holds(KEY)
    assert not list((tmp_path / "engines" / ".staging").iterdir())


def test_a_second_put_replaces_the_first(cache: EngineCache, tmp_path: Path) -> None:
    put(cache, tmp_path)
    (tmp_path / "built").write_bytes(b"another")
    cache.put(KEY, tmp_path / "built", HOST, 2.0)
    assert cache.path(KEY).read_bytes() == b"another"


def test_what_interrupted_writing_left_is_swept_at_the_next_start(tmp_path: Path) -> None:
    root = tmp_path / "engines"
    EngineCache(root, LIMIT)
    (root / ".staging" / "half" / "deeper").mkdir(parents=True)
    (root / ".staging" / "half" / "engine").write_bytes(b"x")
    EngineCache(root, LIMIT)
    assert not list((root / ".staging").iterdir())


def fill(cache: EngineCache, tmp_path: Path) -> None:
    """Put four engines, of which two fit: 0 was used longest ago, 3 last."""
    for number in range(4):
        put(cache, tmp_path, numbered(number))
        os.utime(cache.path(numbered(number)).parent, (number, number))


def test_the_engines_used_longest_ago_make_room(cache: EngineCache, tmp_path: Path) -> None:
    fill(cache, tmp_path)
    gone = cache.trim(set(), time.time())
    assert gone == [numbered(0).digest, numbered(1).digest]
    assert [cache.holds(numbered(number)) for number in range(4)] == [False, False, True, True]


def test_looking_up_is_using(cache: EngineCache, tmp_path: Path) -> None:
    fill(cache, tmp_path)
    cache.look_up(numbered(0))
    cache.trim(set(), time.time() + RECENT_S + 1)
    assert cache.holds(numbered(0))


def test_what_is_in_use_stays(cache: EngineCache, tmp_path: Path) -> None:
    fill(cache, tmp_path)
    in_use = {str(cache.path(numbered(number))) for number in (0, 1)}
    assert cache.trim(in_use, time.time()) == [numbered(2).digest, numbered(3).digest]


def test_what_was_used_a_moment_ago_stays_whatever_the_limit_says(
    cache: EngineCache, tmp_path: Path
) -> None:
    for number in range(4):
        put(cache, tmp_path, numbered(number))
    assert not cache.trim(set(), time.time())
    assert len(cache.trim(set(), time.time() + RECENT_S + 1)) == 2


def test_an_engine_goes_by_its_file_and_nothing_else_does(
    cache: EngineCache, tmp_path: Path
) -> None:
    put(cache, tmp_path)
    elsewhere = tmp_path / "elsewhere" / "engine"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(CONTENT)
    cache.discard_file(elsewhere)
    assert elsewhere.exists()
    cache.discard_file(cache.path(KEY))
    assert not cache.holds(KEY)
