"""`superbrain trust create` and `sign`: making trust updates, where the private keys are.

An update is made from the one before it (`--after`), so that nothing revoked is forgotten. The
holders of the keys need not meet: each signs the file that the one before has signed.
"""

from __future__ import annotations

import argparse
import datetime as dt
from pathlib import Path
from typing import Any

from superbrain.bundle.disk import not_written
from superbrain.bundle.keys import load_public_key, load_signing_key
from superbrain.bundle.signing import TRUST_UPDATE, add_signatures, sign_payload
from superbrain.bundle.trust_chain import SignedUpdate, read_update
from superbrain.cli.author_key import ask_passphrase
from superbrain.cli.trust import read_update_file
from superbrain.domain.errors import UpdateRefused
from superbrain.domain.trust_update import HEX, RevokedBundle, TrustUpdate, UpdateKey, encode_update
from superbrain.host.files import write_atomically

_CREATE = """\
The file counts on a host once a threshold of the keys that the host believes now and a threshold of
the keys in the file have signed it. The first one is signed by keys in the hosts' trust folders.

examples:
  superbrain trust create --add a.pub --add b.pub --add c.pub --threshold 2 --key a.key --key b.key
  superbrain trust create --after trust-1.sbt --add d.pub --remove 3f2a9c1b --key a.key --key d.key
  superbrain trust create --after trust-2.sbt --revoke-key 9c11d0ce --key a.key --key d.key
  superbrain trust create --after trust-3.sbt --revoke-bundle DIGEST --floor ocr=31 --key a.key
  superbrain trust create --after trust-4.sbt --stop-bundle DIGEST --why "wrong dosage" --key a.key
"""
_SIGN = """\
examples:
  superbrain trust sign trust-2.sbt --key b.key
  superbrain trust sign trust-2.sbt --key b.key --key c.key --after trust-1.sbt
"""


def register(actions: argparse._SubParsersAction[Any]) -> None:
    """Add `create` and `sign`."""
    _register_create(actions)
    signing = actions.add_parser(
        "sign",
        help="add signatures to a trust update",
        description="Sign a trust update with more keys; it is changed in place.",
        epilog=_SIGN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    signing.add_argument("file", type=Path, metavar="FILE.sbt", help="the trust update")
    _add_keys(signing)
    _add_after(signing, "the update before it, to tell who has to sign still")
    signing.set_defaults(run=run_sign)


def _register_create(actions: argparse._SubParsersAction[Any]) -> None:
    parser = actions.add_parser(
        "create",
        help="make a trust update",
        description="Make and sign a trust update: whom hosts shall believe from now on.",
        epilog=_CREATE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_after(parser, "the update before it, whose content is taken over (none: number 1)")
    _add_keys(parser)
    several: dict[str, tuple[str, str]] = {
        "--add": ("FILE.pub", "trust this key; FILE.pub=WHO says whose it is"),
        "--remove": ("KEY_ID", "replace a key: what it signed before stays good"),
        "--revoke-key": ("KEY_ID", "revoke a key: what it signed is in doubt"),
        "--revoke-bundle": ("DIGEST", "revoke a bundle"),
        "--stop-bundle": ("DIGEST", "revoke a bundle that must not even go on serving"),
        "--floor": ("MODEL=SEQUENCE", "the lowest sequence of a model that may serve"),
    }
    for option, (metavar, text) in several.items():
        parser.add_argument(option, action="append", default=[], metavar=metavar, help=text)
    parser.add_argument("--threshold", type=int, metavar="N", help="how many keys must sign")
    for option, text in {
        "--not-before": "the added keys are good for new bundles from this day on",
        "--not-after": "… and until this day",
        "--expires": "import it before this day, or together with a newer one",
    }.items():
        parser.add_argument(option, type=_day, metavar="YYYY-MM-DD", help=text)
    parser.add_argument("--why", default="", metavar="TEXT", help="why bundles are revoked")
    parser.add_argument("--note", default="", metavar="TEXT", help="for those who read it later")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: trust-NUMBER.sbt")
    parser.set_defaults(run=run_create)


def _add_keys(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key",
        action="append",
        required=True,
        type=Path,
        metavar="FILE.key",
        help="sign with this private key; may be given several times",
    )


def _add_after(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--after", type=Path, metavar="FILE.sbt", help=text)


def run_create(args: argparse.Namespace) -> int:
    """Make a trust update and say who has to sign it still."""
    before = read_update(read_update_file(args.after)) if args.after else None
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    update = changed(before.update if before else None, args, now)
    keys = [load_signing_key(path, ask_passphrase) for path in args.key]
    data = sign_payload(encode_update(update), keys, TRUST_UPDATE)
    path = args.output or Path(f"trust-{update.sequence}.sbt")
    if path.exists():
        raise _refused(
            f"{path}: expected no file there yet, found one", "Remove it, or name --output"
        )
    _save(path, data)
    print(f"trust update {update.sequence}   {path}")
    print("\n".join(missing_lines(read_update(data), before)))
    return 0


def run_sign(args: argparse.Namespace) -> int:
    """Add signatures to a trust update."""
    data = read_update_file(args.file)
    read_update(data)
    keys = [load_signing_key(path, ask_passphrase) for path in args.key]
    signed = add_signatures(data, keys, TRUST_UPDATE)
    _save(args.file, signed)
    before = read_update(read_update_file(args.after)) if args.after else None
    print(f"{args.file} has {len(read_update(signed).claimed)} signatures")
    print("\n".join(missing_lines(read_update(signed), before)))
    return 0


def changed(before: TrustUpdate | None, args: argparse.Namespace, now: dt.datetime) -> TrustUpdate:
    """Give the update that follows `before`, with what the command line changes.

    Raises:
        UpdateRefused: it would break a rule.
    """
    keys = {key.id: key for key in before.keys} if before else {}
    revoked_keys = set(before.revoked_keys) if before else set()
    bundles = {item.digest: item for item in before.revoked_bundles} if before else {}
    floors = dict(before.security_floors) if before else {}
    for text in args.add:
        added = _key(text, args)
        keys[added.id] = added
    for text in args.remove:
        del keys[_known(text, keys)]
    for text in args.revoke_key:
        revoked = text if HEX.fullmatch(text) else _known(text, keys)
        keys.pop(revoked, None)
        revoked_keys.add(revoked)
    for digest in args.revoke_bundle:
        bundles[digest] = RevokedBundle(digest, why=args.why)
    for digest in args.stop_bundle:
        bundles[digest] = RevokedBundle(digest, stop=True, why=args.why)
    floors |= dict(_floor(text) for text in args.floor)
    return TrustUpdate(
        sequence=before.sequence + 1 if before else 1,
        created=now,
        expires=args.expires,
        keys=sorted(keys.values(), key=lambda key: key.id),
        threshold=args.threshold or (before.threshold if before else 1),
        revoked_keys=sorted(revoked_keys),
        revoked_bundles=[bundles[digest] for digest in sorted(bundles)],
        security_floors=dict(sorted(floors.items())),
        note=args.note,
    )


def missing_lines(signed: SignedUpdate, before: SignedUpdate | None) -> list[str]:
    """Say how many of the old and of the new keys have to sign still."""
    lines = [_missing("new", signed.update, signed.claimed)]
    if before is not None:
        lines.append(_missing("old", before.update, signed.claimed))
    elif signed.update.sequence == 1:
        lines.append("old keys     as many as the hosts' trust folders ask for must sign too")
    return lines


def _missing(which: str, update: TrustUpdate, claimed: tuple[str, ...]) -> str:
    have = sum(key.id in claimed and key.id not in update.revoked_keys for key in update.keys)
    need = max(0, update.threshold - have)
    todo = f"{need} more must sign: superbrain trust sign FILE --key KEY" if need else "enough"
    return f"{which} keys     {have} of {update.threshold} have signed, {todo}"


def _key(text: str, args: argparse.Namespace) -> UpdateKey:
    name, _, who = text.partition("=")
    key = load_public_key(Path(name))
    return UpdateKey(
        key.key_id, key.pem.decode(), who or Path(name).stem, args.not_before, args.not_after
    )


def _known(text: str, keys: dict[str, UpdateKey]) -> str:
    """Find a key by its id or by the beginning of it."""
    found = [key_id for key_id in keys if key_id.startswith(text)] if len(text) >= 8 else []
    if len(found) == 1:
        return found[0]
    listed = ", ".join(f"{key.id[:16]} ({key.who})" for key in keys.values()) or "none"
    raise _refused(
        f"expected the id of one of the keys ({listed}), found {text!r}", "Use 8 digits or more"
    )


def _floor(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not number.isascii() or not number.isdigit():
        raise _refused(f"expected --floor MODEL=SEQUENCE, found {text!r}", "Such as --floor ocr=31")
    return name, int(number)


def _save(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data, mode=0o644)  # it goes into inboxes, which others read
    except OSError as error:
        raise _refused(*not_written(path, error)) from error


def _day(text: str) -> dt.datetime:
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected YYYY-MM-DD, got {text!r}") from None
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)


def _refused(message: str, mend: str) -> UpdateRefused:
    return UpdateRefused(message, reason="UPDATE_NOT_MADE", mend=mend)
