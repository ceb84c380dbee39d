"""`superbraind`: the daemon's command line."""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import sys
from pathlib import Path

import superbrain
from superbrain.transport import compiled
from superbrain.wire.errors import SuperbrainError

EXAMPLES = """\
examples:
  superbraind                             as installed: /etc/superbrain/superbrain.toml
  superbraind --root ~/superbrain         everything below one folder, for development
  superbraind --config superbrain.toml    another configuration

Drop bundles into the inbox, then: superbrain status
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the daemon; 0 after an orderly stop, 1 when it cannot run, 3 when a part is missing."""
    options = _parser().parse_args(arguments)
    try:
        from superbrain.app.config import load_config
        from superbrain.app.daemon import Daemon
        from superbrain.host import logs
    except ModuleNotFoundError as error:
        mend = "pip install 'superbrain[cpu]'"
        print(f"error: superbraind needs the module {error.name}\n  → {mend}", file=sys.stderr)  # noqa: T201
        return 3
    try:
        config = load_config(options.config, options.root)
        logs.configure(config.log.level)
        gc.freeze()
        reread = functools.partial(load_config, options.config, options.root)
        asyncio.run(Daemon(config, reread).run())
    except SuperbrainError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201
        if error.mend:
            print(f"  → {error.mend}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="superbraind",
        description="Serve proven models: watch the inbox, prove, swap, answer.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration to read")
    parser.add_argument("--root", type=Path, metavar="DIR", help="put all folders below DIR")
    version = f"superbraind {superbrain.__version__} (lane loop: {compiled.described()})"
    parser.add_argument("--version", action="version", version=version)
    return parser


if __name__ == "__main__":
    sys.exit(main())
