"""A Python that has this project and PyTorch, made of two environments without installing anything.

    python -m tests.support.torch_python FOLDER     prints the interpreter

PyTorch weighs a gigabyte and is in no environment of this project but the one that models are
converted in. The interpreter made here looks into its own environment first, then into that one, as
a host on which `superbrain[torch]` is installed would have both.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from superbrain.convert import environments as env


def python_with_torch(folder: Path) -> str:
    """Make it in `folder`; empty where there is no environment of torch to borrow from."""
    found = env.look(env.default_place(), "torch")
    if found.state != "ready":
        return ""
    command = [sys.executable, "-I", "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (packages,) = folder.glob("lib/python3.*/site-packages")
    own = sysconfig.get_path("purelib")
    places = "\n".join(
        f"import site; site.addsitedir({str(place)!r})" for place in (own, found.packages_path)
    )
    (packages / "both.pth").write_text(places + "\n")
    return str(folder / "bin/python")


if __name__ == "__main__":
    print(python_with_torch(Path(sys.argv[1])))
