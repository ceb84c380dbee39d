"""`superbrain bundle`: what an author types, in the order of the work.

The actions themselves are in author_prove.py (`init`, `record-golden`, `prove`,
`precision`) and in
author_bundle.py (`engines`, `build`, `inspect`, `verify`).
"""

from __future__ import annotations

import argparse
from typing import Any

_EXAMPLES = """\
the way of a model:
  superbrain bundle init orientation.onnx                     a folder to make a bundle from
  superbrain bundle record-golden orientation --case first --input image=page.png
  superbrain bundle prove orientation                         does it give these answers, here?
  superbrain bundle precision orientation                     the same in fp16 and int8, if right
  superbrain bundle engines orientation --from CACHE          optional: a host's engines go along
  superbrain bundle build orientation --key author.key        orientation-0.1.0.sbb, here
  superbrain bundle verify orientation-0.1.0.sbb --key author.pub
"""


def register(commands: argparse._SubParsersAction[Any]) -> argparse._SubParsersAction[Any]:
    """Add `bundle`; give its sub-parsers for the actions."""
    parser = commands.add_parser(
        "bundle",
        help="start, record, prove, build and look into bundles",
        description="Make bundles from folders, prove them, look into them, and check them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions: argparse._SubParsersAction[Any] = parser.add_subparsers(
        metavar="ACTION", required=True
    )
    return actions
