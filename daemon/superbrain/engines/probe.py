"""The probe: what this host has to run engines with, found without crashing anything.

    engines = probe_engines()
    engines.providers["CUDAExecutionProvider"].ran_on      # "CPUExecutionProvider": it lied

Native libraries end their process, hang, or say yes to everything where there is no driver. So each
question is asked in a child process of its own, with a time-out, a few at a time; what a child died
of is the answer then. Nothing is imported here but the names of installed packages.
"""

from __future__ import annotations

import concurrent.futures
import functools
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from superbrain.domain.probe import (
    Answer,
    Cuda,
    Engines,
    Library,
    OnnxRuntimeBuild,
    ProviderTrial,
    RungAnswers,
    Unanswered,
)
from superbrain.engines import registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TIMEOUT_S: Final = 60.0
_AT_ONCE: Final = 4
CHILD: Final = "superbrain.engines.probe_child"
_LAST_WORDS: Final = 300
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e\n\u00a0-\U0010ffff]")
_PREAMBLE: Final = re.compile(r"^\S+ \S+ \[\w:onnxruntime:[^\]]*\] ")
_OURS: Final = re.compile(
    r"(onnxruntime|tensorrt|nvidia-(cuda-runtime|cudnn|cublas|ml-py)|cuda-bindings|pycuda|pynvml|torch$)"
)
_NOT_TRIED: Final = frozenset({"AzureExecutionProvider"})  # asks a service somewhere else
_A = TypeVar("_A", bound=Answer)


def probe_engines(
    timeout_s: float = TIMEOUT_S,
    environment: Mapping[str, str] | None = None,
    *,
    rungs_child: str = CHILD,
) -> Engines:
    """Ask everything there is to ask.

    Args:
        timeout_s: how long one question may take.
        environment: of the children; None: this process's.
        rungs_child: the program that is asked for rungs, such as one behind a worker's sandbox.
            Those that are built beforehand are asked for by `CHILD`, which starts another process.
    """
    ask = functools.partial(ask_child, timeout_s=timeout_s, environment=environment)
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        onnxruntime = pool.submit(ask, "onnxruntime", OnnxRuntimeBuild)
        cuda = pool.submit(ask, "cuda", Cuda)
        tensorrt = pool.submit(ask, "library:tensorrt", Library)
        tensorrt_rtx = pool.submit(ask, "library:tensorrt-rtx", Library)
        runtimes = sorted({rung.partition(":")[0] for rung in registry.known_rungs()})
        built = {rung.partition(":")[0] for one in registry.built_runtimes() for rung in one.rungs}
        rungs = {
            name: pool.submit(
                ask, f"rungs:{name}", RungAnswers, module=CHILD if name in built else rungs_child
            )
            for name in runtimes
        }
        build = onnxruntime.result()
        listed = build.listed if isinstance(build, OnnxRuntimeBuild) else []
        trials = {
            name: pool.submit(ask, f"provider:{name}", ProviderTrial)
            for name in listed
            if name not in _NOT_TRIED
        }
        return Engines(
            packages=installed_packages(),
            cuda=cuda.result(),
            tensorrt=tensorrt.result(),
            tensorrt_rtx=tensorrt_rtx.result(),
            onnxruntime=build,
            providers={name: trial.result() for name, trial in trials.items()},
            rungs=_rungs({name: asked.result() for name, asked in rungs.items()}),
        )


def installed_packages(folders: Iterable[str] | None = None) -> dict[str, str]:
    """Give the installed packages that have to do with engines, with their versions."""
    where = sys.path if folders is None else list(folders)
    named = {
        re.sub(r"[-_.]+", "-", str(one.metadata["Name"])).lower(): one.version
        for one in importlib.metadata.distributions(path=where)
        if one.metadata["Name"]
    }
    return {name: named[name] for name in sorted(named) if _OURS.match(name)}


def ask_child(
    question: str,
    expected: type[_A],
    *,
    module: str = CHILD,
    timeout_s: float = TIMEOUT_S,
    environment: Mapping[str, str] | None = None,
) -> _A | Unanswered:
    """Ask one question in a child process; how that ended, when it gave no answer.

    Args:
        question: what the module answers.
        expected: the structure that it answers with.
        module: the child's program; it prints one line of JSON.
        timeout_s: how long it may take.
        environment: of the child; None: this process's.
    """
    command = [sys.executable, "-I", "-m", module, question]
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            env=os.environ if environment is None else dict(environment),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Unanswered(f"did not answer within {timeout_s:g} s")
    except OSError as error:
        return Unanswered(f"could not be asked: {error.strerror}")
    try:
        answer = msgspec.json.decode(ended.stdout, type=expected)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Unanswered(_how(ended))
    return _with_words(answer, ended.stderr)


def _with_words(answer: _A, printed: bytes) -> _A:
    """Why another provider was taken the library only prints: add it to the trial."""
    if not isinstance(answer, ProviderTrial) or answer.error or answer.ran_on == answer.asked:
        return answer
    return msgspec.structs.replace(answer, said=last_words(printed))


def last_words(printed: bytes) -> str:
    """Give the last line that a library printed, without colours and its own preamble."""
    plain = _UNPRINTABLE.sub("", _COLOUR.sub("", printed.decode(errors="replace")))
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return _PREAMBLE.sub("", lines[-1])[:_LAST_WORDS] if lines else ""


def _how(ended: subprocess.CompletedProcess[bytes]) -> str:
    """Say how a child ended that gave no answer, with its last line."""
    words = last_words(ended.stderr)
    said = f": {words}" if words else ""
    if ended.returncode < 0:
        try:
            name = signal.Signals(-ended.returncode).name
        except ValueError:
            name = f"signal {-ended.returncode}"
        return f"ended its process with {name}{said}"
    return f"gave no answer (exit status {ended.returncode}){said}"


def _rungs(asked: Mapping[str, RungAnswers | Unanswered]) -> dict[str, str]:
    """Say for each rung why it cannot be made, in the order of the registry."""
    found = {}
    for rung in registry.known_rungs():
        answer = asked[rung.partition(":")[0]]
        if isinstance(answer, Unanswered):
            found[rung] = f"{rung.partition(':')[0]} {answer.why}"
        else:
            found[rung] = answer.why_not.get(rung, "its runtime says nothing about it")
    return found
