"""`superbrain key` and `superbrain bundle build | inspect | verify` as an author types them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from superbrain.cli import author_bundle, author_commands, author_key
from superbrain.domain.errors import ArchiveError, BundleError, Incomplete, SignatureRefused
from superbrain.engines.port import GraphMismatch
from tests.support.bundles import (
    KeyPair,
    make_bundle,
    make_bundle_folder,
    make_trust_folder,
    sign_key,
)
from tests.support.graphs import save_with_weights


def superbrain(*words: object) -> int:
    parser = argparse.ArgumentParser(prog="superbrain")
    commands = parser.add_subparsers(required=True)
    author_key.register(commands)
    author_bundle.register(author_commands.register(commands))
    args = parser.parse_args([str(word) for word in words])
    code: int = args.run(args)
    return code


@pytest.fixture
def author(tmp_path: Path) -> KeyPair:
    return sign_key(tmp_path)


@pytest.fixture
def bundle(tmp_path: Path, author: KeyPair) -> Path:
    return make_bundle(tmp_path, author).path


def test_key_generate_says_where_the_files_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert superbrain("key", "generate", "ann", "--directory", tmp_path) == 0
    said = capsys.readouterr().out
    assert str(tmp_path / "ann.key") in said
    assert str(tmp_path / "ann.pub") in said
    assert "superbrain bundle build" in said


def test_key_generate_refuses_to_overwrite(tmp_path: Path) -> None:
    superbrain("key", "generate", "ann", "--directory", tmp_path)
    with pytest.raises(SignatureRefused):
        superbrain("key", "generate", "ann", "--directory", tmp_path)


def test_key_generate_refuses_a_name_that_is_a_path(tmp_path: Path) -> None:
    with pytest.raises(SignatureRefused) as caught:
        superbrain("key", "generate", "../ann", "--directory", tmp_path)
    assert caught.value.reason == "KEY_NAME"


def test_key_show_gives_the_id(author: KeyPair, capsys: pytest.CaptureFixture[str]) -> None:
    superbrain("key", "show", author.public)
    assert capsys.readouterr().out.strip() == author.key_id


def test_key_show_json_gives_the_id(author: KeyPair, capsys: pytest.CaptureFixture[str]) -> None:
    superbrain("key", "show", author.public, "--json")
    assert json.loads(capsys.readouterr().out)["key_id"] == author.key_id


def test_a_passphrase_is_only_asked_for_on_a_terminal(tmp_path: Path) -> None:
    with pytest.raises(SignatureRefused) as caught:
        superbrain("key", "generate", "ann", "--directory", tmp_path, "--passphrase")
    assert caught.value.reason == "KEY_ENCRYPTED"


def test_build_makes_a_bundle_that_verify_accepts(
    tmp_path: Path, author: KeyPair, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_bundle_folder(tmp_path)
    assert superbrain("bundle", "build", folder, "--key", author.private, "-o", tmp_path) == 0
    file = tmp_path / "adder-1.0.0.sbb"
    assert str(file) in capsys.readouterr().out
    assert superbrain("bundle", "verify", file, "--key", author.public) == 0


def test_build_json_gives_path_and_digest(
    tmp_path: Path, author: KeyPair, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_bundle_folder(tmp_path)
    superbrain("bundle", "build", folder, "--key", author.private, "-o", tmp_path, "--json")
    said = json.loads(capsys.readouterr().out)
    assert Path(said["path"]).stat().st_size == said["size_bytes"]
    assert said["signers"] == [author.key_id]


def test_build_refuses_weights_outside_the_bundle(tmp_path: Path, author: KeyPair) -> None:
    folder = make_bundle_folder(tmp_path)
    (graph,) = (folder / "graphs").iterdir()
    save_with_weights(graph, "/etc/hostname")
    with pytest.raises(GraphMismatch, match="found that it names '/etc/hostname'"):
        superbrain("bundle", "build", folder, "--key", author.private, "-o", tmp_path)
    assert not list(tmp_path.glob("*.sbb"))


def test_build_into_a_missing_folder_is_refused(tmp_path: Path, author: KeyPair) -> None:
    folder = make_bundle_folder(tmp_path)
    with pytest.raises(BundleError) as caught:
        superbrain("bundle", "build", folder, "--key", author.private, "-o", tmp_path / "no")
    assert caught.value.reason == "RECIPE_OUTPUT"


def test_inspect_says_that_nothing_is_verified(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert superbrain("bundle", "inspect", bundle) == 0
    said = capsys.readouterr().out
    assert "not verified" in said
    assert "FP32[-1, 4]" in said
    assert "graphs/main.onnx" in said


def test_inspect_with_trust_says_who_signed(
    bundle: Path, author: KeyPair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trust = make_trust_folder(tmp_path / "trust", author)
    superbrain("bundle", "inspect", bundle, "--trust", trust)
    said = capsys.readouterr().out
    assert "not verified" not in said
    assert author.key_id in said


def test_inspect_of_a_part_says_that_it_is_not_whole(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle.write_bytes(bundle.read_bytes()[:-512])
    superbrain("bundle", "inspect", bundle)
    assert "not whole" in capsys.readouterr().out


def test_inspect_json_gives_the_manifest(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    superbrain("bundle", "inspect", bundle, "--json")
    said = json.loads(capsys.readouterr().out)
    assert (said["verified"], said["manifest"]["name"]) == (False, "adder")


def test_verify_json_gives_digest_and_signers(
    bundle: Path, author: KeyPair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trust = make_trust_folder(tmp_path / "trust", author)
    assert superbrain("bundle", "verify", bundle, "--trust", trust, "--json") == 0
    assert json.loads(capsys.readouterr().out)["signers"] == [author.key_id]


def test_verify_refuses_a_stranger(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(SignatureRefused):
        superbrain("bundle", "verify", bundle, "--key", sign_key(tmp_path, "other").public)


def test_verify_refuses_too_few_signers(bundle: Path, author: KeyPair, tmp_path: Path) -> None:
    keys = ("--key", author.public, "--key", sign_key(tmp_path, "other").public)
    with pytest.raises(SignatureRefused):
        superbrain("bundle", "verify", bundle, *keys, "--threshold", 2)


def test_verify_looks_at_every_byte(bundle: Path, author: KeyPair) -> None:
    data = bytearray(bundle.read_bytes())
    data[-1100] ^= 1
    bundle.write_bytes(data)
    with pytest.raises(ArchiveError):
        superbrain("bundle", "verify", bundle, "--key", author.public)


def test_verify_of_a_part_says_how_much_is_missing(bundle: Path, author: KeyPair) -> None:
    size = bundle.stat().st_size
    bundle.write_bytes(bundle.read_bytes()[:-512])
    with pytest.raises(Incomplete, match=f"expected {size} bytes, found {size - 512}"):
        superbrain("bundle", "verify", bundle, "--key", author.public)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nothing\.sbb"):
        superbrain("bundle", "inspect", tmp_path / "nothing.sbb")
