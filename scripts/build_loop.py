"""Hatchling's hook that compiles `daemon/loop` into `superbrain.transport._loop`, where it can.

Without a C compiler or Python's headers the wheel is pure Python: everything compiled has a twin
there. One build fits every Python from 3.11, for it keeps to the stable ABI. The same sources, by
the same compiler, give the same bytes, because an installation is named by what it is made of.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULE = "superbrain/transport/_loop.abi3.so"
FLAGS = (
    *("-std=c11", "-O2", "-g0", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra"),
    # Tables end with an empty row, and methods are cast as the C API wants it.
    *("-Wno-missing-field-initializers", "-Wno-cast-function-type"),
    *("-fstack-protector-strong", "-Wl,-z,relro,-z,now", "-Wl,--build-id=none"),
)


class LoopHook(BuildHookInterface[Any]):
    """Adds the compiled module to a wheel, or lays it beside the sources that are installed."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; called by hatchling before it builds."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        if version == "editable":
            compile_loop(root, root / "daemon" / MODULE)
            return
        self._folder = tempfile.TemporaryDirectory()
        built = Path(self._folder.name) / "_loop.abi3.so"
        if compile_loop(root, built):
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["force_include"][str(built)] = MODULE
            build_data["pure_python"] = False
            build_data["tag"] = f"cp311-abi3-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Clean up; called by hatchling when it has built."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def compile_loop(root: Path, target: Path, extra: tuple[str, ...] = ()) -> bool:
    """Compile the sources below `root` to `target`; false, and no file, where that cannot be."""
    target.unlink(missing_ok=True)
    fresh = target.with_suffix(".new")  # so that nobody loads half of it
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[:1]
    if shutil.which(compiler[0]) is None:
        compiler = ["cc"]
    sources = sorted(path.name for path in (root / "daemon" / "loop").glob("*.c"))
    include = f"-I{sysconfig.get_path('include')}"
    command = [*compiler, *FLAGS, *extra, include, *sources, "-o", str(fresh)]
    try:
        done = subprocess.run(command, cwd=root / "daemon" / "loop", check=False)
    except OSError as error:
        print(f"no compiled loop: {compiler[0]} does not run: {error}")
        return False
    if done.returncode != 0:
        print("no compiled loop: the compiler or Python's headers are not there, see above")
        return False
    fresh.rename(target)
    return True


def get_build_hook() -> type[LoopHook]:
    """Tell hatchling which class here is the hook."""
    return LoopHook
