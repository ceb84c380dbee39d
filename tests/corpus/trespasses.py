"""Rightly signed bundles whose code reaches for what is not its own; the sandbox holds each.

The code finds the appliance's folders from its scratch folder, as hostile code would. What it tries
must end in the kernel's own error, which the report names; a try that works says so instead.
"""

from __future__ import annotations

import textwrap
from typing import Literal

from tests.corpus.cases import enter
from tests.corpus.draft import Draft

SECTION = "code that reaches out"
Place = Literal["import", "constructor", "preprocess"]

_PRELUDE = """\
import ctypes, glob, os, resource, signal, socket, subprocess, sys, threading
from pathlib import Path

ROOT = Path.cwd().parents[2]
libc = ctypes.CDLL(None, use_errno=True)

def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def connect(path):
    one, other = socket.socketpair()
    one.connect(str(path))

def attempt():
{attempt}
    raise RuntimeError("it worked")
"""
_PIPELINE = """
class Pipeline:
    def __init__(self, bundle):
        {init}
    def preprocess(self, request):
        {before}
        return request
    def postprocess(self, outputs, request):
        return outputs
"""
_CODES = {
    "import": "CODE_DOES_NOT_IMPORT",
    "constructor": "CODE_DOES_NOT_CONSTRUCT",
    "preprocess": "GOLDEN_MISMATCH",
}


def source(attempt: str, place: Place) -> str:
    """Write a pipeline that makes an attempt at one moment of its life."""
    call = "attempt()\n" if place == "import" else ""
    init = "attempt()" if place == "constructor" else "pass"
    before = "attempt()" if place == "preprocess" else "pass"
    prelude = _PRELUDE.format(attempt=textwrap.indent(textwrap.dedent(attempt).strip(), "    "))
    return prelude + call + _PIPELINE.format(init=init, before=before)


def reaches(name: str, place: Place, attempt: str, note: str, says: str = "Permission") -> None:
    """Enter a case whose code makes an attempt."""

    def bend(draft: Draft) -> None:
        draft.add("code/pipeline.py", source(attempt, place).encode())

    enter(SECTION, f"reaches-{name}", _CODES[place], says, note, bend)


DENIED = "Permission denied"
NOT_PERMITTED = "Operation not permitted"

reaches("trust", "import", "open(ROOT / 'trust/trust.toml').read()", "Reads trust.", DENIED)
reaches("keys", "constructor", "os.listdir(ROOT / 'trust/keys')", "Lists the keys.", DENIED)
reaches("journal", "constructor", "open(ROOT / 'state/journal.sqlite', 'r+b')", "Opens it.", DENIED)
reaches("other-bundles", "import", "os.listdir(ROOT / 'state/store/bundles')", "Looks.", DENIED)
reaches("store", "preprocess", "open(ROOT / 'state/store/canary', 'w')", "Writes there.", DENIED)
reaches("inbox", "import", "open(ROOT / 'inbox/canary.sbb', 'w')", "Drops a bundle.", DENIED)
reaches("health", "preprocess", "open(ROOT / 'run/health.json', 'w')", "Says it is well.", DENIED)
reaches("host", "import", "open('/etc/passwd').read()", "Reads the host's users.", DENIED)
reaches("tmp", "constructor", "open('/tmp/superbrain-canary', 'w')", "Writes to /tmp.", DENIED)
reaches("mode", "import", "os.chmod(ROOT / 'trust', 0o777)", "Opens trust to all.", NOT_PERMITTED)
reaches(
    "truncation",
    "preprocess",
    "os.truncate(ROOT / 'state/journal.sqlite', 0)",
    "Empties the journal by name.",
    NOT_PERMITTED,
)
reaches(
    "planted-pyc",
    "import",
    """
    import numpy
    open(Path(numpy.__file__).parent / '__pycache__/canary.cpython-311.pyc', 'wb')
    """,
    "Plants code for others beside a library.",
    DENIED,
)
reaches(
    "environ",
    "preprocess",
    "open(f'/proc/{os.getppid()}/environ', 'rb').read()",
    "Reads the daemon's environment.",
    DENIED,
)
reaches("tcp", "preprocess", "socket.create_connection(('127.0.0.1', 9))", "TCP.", NOT_PERMITTED)
reaches(
    "udp",
    "import",
    "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    "UDP.",
    NOT_PERMITTED,
)
reaches("control", "import", "connect(ROOT / 'run/control.sock')", "Gives orders.", NOT_PERMITTED)
reaches("infer", "preprocess", "connect(ROOT / 'run/infer.sock')", "Asks others.", NOT_PERMITTED)
reaches(
    "names-of-sockets",
    "import",
    "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'READY=1', '/run/notify')",
    "Sends a datagram to a socket by its name.",
    NOT_PERMITTED,
)
reaches("signal", "import", "os.kill(os.getppid(), 0)", "Signals the daemon.", NOT_PERMITTED)
reaches("end", "preprocess", "os.kill(os.getppid(), 15)", "Ends the daemon.", NOT_PERMITTED)
reaches(
    "signal-by-descriptor",
    "constructor",
    """
    import fcntl
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())
    """,
    "Has the kernel signal the daemon when a descriptor is ready.",
    NOT_PERMITTED,
)
reaches(
    "trace",
    "constructor",
    "checked(libc.ptrace(16, os.getppid(), 0, 0))",
    "Attaches to the daemon as a debugger does.",
    NOT_PERMITTED,
)
reaches(
    "memory-of-others",
    "preprocess",
    """
    import struct
    room = ctypes.create_string_buffer(8)
    here = struct.pack('QQ', ctypes.addressof(room), 8)
    checked(libc.process_vm_readv(os.getppid(), here, 1, here, 1, 0))
    """,
    "Reads the daemon's memory.",
    NOT_PERMITTED,
)
reaches(
    "limits-of-others",
    "import",
    "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (3, 3))",
    "Takes the daemon's descriptors away.",
    NOT_PERMITTED,
)
reaches("fork-bomb", "constructor", "while True: os.fork()", "Forks for ever.", NOT_PERMITTED)
reaches("program", "preprocess", "subprocess.run(['/bin/true'])", "A program.", NOT_PERMITTED)
reaches("exec", "import", "os.execv('/bin/true', ['true'])", "Becomes another.", NOT_PERMITTED)
reaches(
    "descriptors",
    "constructor",
    "kept = [os.open('/dev/null', os.O_RDONLY) for _ in range(1 << 20)]",
    "Opens files until there are none to be had.",
    "Too many open files",
)
reaches(
    "memory-nobody-counts",
    "import",
    "os.memfd_create('x')",
    "Makes memory that belongs to no process.",
    NOT_PERMITTED,
)
reaches("orphan", "constructor", "checked(libc.prctl(1, 0))", "Outlives the daemon.", NOT_PERMITTED)
reaches("namespace", "import", "checked(libc.unshare(0x10000000))", "A world apart.", NOT_PERMITTED)
