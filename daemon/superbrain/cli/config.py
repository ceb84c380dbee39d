"""`superbrain config`: show the configuration, judge a file, explain a key.

It reads files and the environment alone; the daemon need not run. What the running daemon took from
a changed file, `superbrain reload` says.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from superbrain.app.config import DEFAULT_CONFIG, Config, ConfigError, load_config, nearest
from superbrain.app.config_host import check_host
from superbrain.app.config_keys import KEYS, default_file, toml_value, values
from superbrain.cli.actions import add_action

_CONFIG = """\
examples:
  superbrain config show
  superbrain config check
  superbrain config explain deploy.probation_s
"""
_SHOW = """\
examples:
  superbrain config show                   what the daemon would use, and what differs from defaults
  superbrain config show --default         the commented file that an installation begins with
  superbrain config show --json | jq '.["deploy.probation_s"]'
"""
_CHECK = """\
Exit code 1 when the daemon would not start with the file on this host; the error names the key.

examples:
  superbrain config check
  superbrain config check --config new.toml && sudo cp new.toml /etc/superbrain/superbrain.toml
"""
_EXPLAIN = """\
examples:
  superbrain config explain                every key
  superbrain config explain deploy         those of a section
  superbrain config explain deploy.probation_s
"""
_APPLIES: Final = {
    "reload": "superbrain reload applies a change",
    "restart": "a change needs a restart: systemctl restart superbraind",
}


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `config show`, `config check` and `config explain`."""
    parser = commands.add_parser(
        "config",
        help="show, check and explain the configuration",
        description="Show, check and explain the configuration; the daemon need not run.",
        epilog=_CONFIG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    showing = _add(actions, "show", "what holds now, key by key", _SHOW, show)
    showing.add_argument("--default", action="store_true", help="the file an installation has")
    _add(actions, "check", "judge a configuration file", _CHECK, check)
    explaining = _add(actions, "explain", "what keys mean and take", _EXPLAIN, explain)
    explaining.add_argument("key", nargs="?", metavar="KEY", help="a key or a section")


def show(args: argparse.Namespace) -> int:
    """Print every key with its value; those that are not the default are marked."""
    if args.default:
        print(default_file(Config()), end="")
        return 0
    found, usual = values(_load(args)), values(Config())
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    width, value_width = max(map(len, found)), max(len(toml_value(v)) for v in found.values())
    for key, value in found.items():
        note = "" if value == usual[key] else f"# default: {toml_value(usual[key])}"
        print(f"{key:{width}} = {toml_value(value):{value_width}}  {note}".rstrip())
    return 0


def check(args: argparse.Namespace) -> int:
    """Judge the file, and whether this host has what it asks for."""
    config = _load(args)
    check_host(config)
    found, usual = values(config), values(Config())
    differing = [key for key, value in found.items() if value != usual[key]]
    path = args.config or DEFAULT_CONFIG
    if args.json:
        print(json.dumps({"file": str(path), "good": True, "set": differing}))
        return 0
    there = f"{path} is good" if path.exists() else f"{path} does not exist: the defaults hold"
    print(f"{there}; it sets {', '.join(differing)}" if differing else there)
    return 0


def explain(args: argparse.Namespace) -> int:
    """Explain one key, those of a section, or all."""
    wanted = args.key or ""
    keys = [key for key in KEYS if not wanted or wanted in (key, key.partition(".")[0])]
    if not keys:
        near = nearest(args.key)
        hint = f", did you mean {near}?" if near else ""
        raise ConfigError(
            f"the key {args.key} is unknown{hint}", mend="superbrain config explain lists all"
        )
    here = _here(args)
    facts = [_facts(key, here) for key in keys]
    if args.json:
        print(json.dumps(facts[0] if wanted in KEYS else facts, indent=2))
        return 0
    for fact in facts:
        print(f"{fact['key']}\n  {fact['meaning']}")
        within = KEYS[fact["key"]].within
        if within is not None:
            print(f"  takes {within.text}")
        print(f"  default {toml_value(fact['default'])}{_difference(fact)}")
        print(f"  {_APPLIES[fact['applies']]}")
    return 0


def _here(args: argparse.Namespace) -> dict[str, Any]:
    """Every key with its value; none where the file does not fit, which is when keys are asked."""
    try:
        return values(_load(args))
    except ConfigError:
        return {}


def _facts(key: str, here: dict[str, Any]) -> dict[str, Any]:
    default, within = values(Config())[key], KEYS[key].within
    return {
        "key": key,
        "meaning": KEYS[key].meaning,
        "type": {str: "text", int: "number", float: "number"}.get(type(default), "value"),
        **(within._asdict() if within is not None else {}),
        "default": default,
        "value": here.get(key),
        "applies": KEYS[key].applies,
    }


def _difference(fact: dict[str, Any]) -> str:
    if fact["value"] is None:
        return ", here nothing that fits: superbrain config check"
    return "" if fact["value"] == fact["default"] else f", here {toml_value(fact['value'])}"


def _load(args: argparse.Namespace) -> Config:
    return load_config(args.config, None)


def _add(
    actions: argparse._SubParsersAction[Any],
    name: str,
    summary: str,
    epilog: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = add_action(actions, name, summary, epilog)
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"another file than {DEFAULT_CONFIG}"
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=run)
    return parser
