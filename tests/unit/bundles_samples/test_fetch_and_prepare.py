"""Fetching and preparing: pinned files only, no download when cached, sentences for errors."""

from __future__ import annotations

import hashlib
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.support.bundle_code import Untyped
from tests.unit.bundles_samples.recipes import BUNDLES, load

fetch = load("fetch.py")
prepare = load("prepare.py")
CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def wanted(sha256: str = DIGEST, member: str = "pkg/m.onnx") -> Untyped:
    distribution = fetch.Distribution("pkg", "1.0", "pkg-1.0-py3-none-any.whl", "0" * 64)
    return fetch.WantedFile("sample", "graphs/m.onnx", distribution, member, sha256, "MIT")


class FakePip:
    """Stands in for pip: puts a wheel with one file in the folder and counts."""

    def __init__(self) -> None:
        self.downloads = 0

    def __call__(self, distribution: Untyped, folder: Path) -> None:
        self.downloads += 1
        with zipfile.ZipFile(folder / distribution.file, "w") as wheel:
            wheel.writestr("pkg/m.onnx", CONTENT)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> FakePip:
    fake = FakePip()
    monkeypatch.setattr(fetch, "pip_download", fake)
    return fake


def test_a_file_is_downloaded_once_and_then_comes_from_the_cache(
    tmp_path: Path, pip: FakePip
) -> None:
    assert fetch.Fetcher([wanted()], tmp_path).place(wanted()) == "fetched"
    target = tmp_path / "sample/graphs/m.onnx"
    assert target.read_bytes() == CONTENT
    target.unlink()
    assert fetch.Fetcher([wanted()], tmp_path).place(wanted()) == "cached"
    assert target.read_bytes() == CONTENT
    assert pip.downloads == 1


@pytest.mark.usefixtures("pip")
def test_a_file_changed_on_disk_is_replaced(tmp_path: Path) -> None:
    fetcher = fetch.Fetcher([wanted()], tmp_path)
    fetcher.place(wanted())
    for path in (tmp_path / "sample/graphs/m.onnx", tmp_path / ".cache" / wanted().sha256):
        path.write_bytes(b"changed")
    fetcher.place(wanted())
    assert (tmp_path / "sample/graphs/m.onnx").read_bytes() == CONTENT


@pytest.mark.usefixtures("pip")
def test_a_file_changed_upstream_is_an_error_and_is_not_kept(tmp_path: Path) -> None:
    other = wanted(sha256="a" * 64)
    with pytest.raises(fetch.FetchError, match=r"pkg/m\.onnx in pkg-1\.0.*expected sha256 aaa"):
        fetch.Fetcher([other], tmp_path).place(other)
    assert not (tmp_path / "sample").exists()


@pytest.mark.usefixtures("pip")
def test_a_file_missing_upstream_is_an_error(tmp_path: Path) -> None:
    gone = wanted(member="pkg/gone.onnx")
    with pytest.raises(fetch.FetchError, match=r"expected a file pkg/gone\.onnx, found none"):
        fetch.Fetcher([gone], tmp_path).place(gone)


def test_an_unknown_bundle_is_answered_with_the_known_ones() -> None:
    with pytest.raises(fetch.FetchError, match="nope: expected one of ocr, orientation, tabular"):
        fetch.choose([], ["nope"], BUNDLES)


def test_a_bundle_that_fetches_nothing_is_no_error() -> None:
    assert fetch.choose(fetch.read_plan(BUNDLES / "weights.toml"), ["tabular"], BUNDLES) == []


def test_what_is_told_of_a_file_fits_on_80_columns() -> None:
    for planned in fetch.read_plan(BUNDLES / "weights.toml"):
        assert len(fetch.told("fetched", 999_999_999, planned)) <= 80


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("WARNING: slow\nERROR: no matching distribution\n", "no matching distribution"),
        ("ERROR: hashes differ\nsee above\n", "hashes differ"),
        ("No module named pip\n", "No module named pip"),
        ("", "it said nothing"),
    ],
)
def test_of_pips_output_the_error_is_shown(output: str, said: str) -> None:
    assert fetch.last_line(output) == said


def test_resampling_keeps_a_tone_and_its_length() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(44100) / 44100)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    resampled = prepare.resample(tone, 44100, 16000)
    assert len(resampled) == 16000
    assert np.abs(resampled - expected)[200:-200].max() < 1e-4


def test_resampling_removes_what_the_lower_rate_cannot_hold() -> None:
    tone = np.sin(2 * np.pi * 10_000 * np.arange(44100) / 44100)
    assert np.abs(prepare.resample(tone, 44100, 16000))[200:-200].max() < 1e-3


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(*extra: bytes) -> bytes:
    """Two grey pixels, with more chunks behind the header."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes([0, 7, 250])))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + chunk(b"IEND", b"")


ODD_PROFILE = chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(bytes(128)))


def test_of_a_png_only_the_colour_profile_is_left_out() -> None:
    text = chunk(b"tEXt", b"Title\0page")
    assert prepare.without_profile(png(ODD_PROFILE, text)) == png(text)


@pytest.mark.parametrize(
    ("name", "case"), [("orientation", "upright"), ("ocr", "page")], ids=["orientation", "ocr"]
)
def test_a_page_is_prepared_without_its_profile_and_libpng_says_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
    case: str,
) -> None:
    monkeypatch.setattr(prepare, "HERE", tmp_path)
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources/page.png").write_bytes(png(ODD_PROFILE))
    prepare.STEPS[name](tmp_path)
    made = tmp_path / f"golden/{case}/request/image.png"
    assert b"iCCP" not in made.read_bytes()
    assert np.array_equal(prepare.read_page(made), [[7, 250]])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("orientation", "page.png"),
        ("ocr", "page.png"),
        ("voice-activity", "address.wav"),
    ],
)
def test_preparing_before_fetching_says_what_to_run(tmp_path: Path, name: str, file: str) -> None:
    with pytest.raises(prepare.PrepareError, match=rf"{re.escape(file)}.*run fetch\.py first"):
        prepare.STEPS[name](tmp_path)
