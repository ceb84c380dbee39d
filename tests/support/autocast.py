"""A stand-in for NVIDIA ModelOpt: its package's name and AutoCast's one function.

>>> sys.path.insert(0, str(stand_in(tmp_path, CASTS)))                  # for this process
>>> monkeypatch.setattr(sys, "executable", python_with(tmp_path, CASTS))  # for children

It prints and logs as the real one does, and its file takes and gives what the original did.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

VERSION = "9.8.7"
NAME = f"AutoCast, nvidia-modelopt {VERSION}"

#: It converts, and leaves in the file what it was asked.
CASTS = """\
    import glob, json, numpy
    from onnxruntime.transformers import float16
    seen = [dict(numpy.load(path)) for path in sorted(glob.glob(f"{calibration_data}/*.npz"))]
    model = float16.convert_float_to_float16(onnx.load(onnx_path), keep_io_types=keep_io_types)
    asked = {"precision": low_precision_type, "samples": [sorted(one) for one in seen]}
    onnx.helper.set_model_props(model, {"asked": json.dumps(asked)})
    return model
"""
REFUSES = """\
    raise RuntimeError("node 'conv' has no type")
"""
#: What it writes does not load: a node of no operator set.
WRITES_NONSENSE = """\
    model = onnx.load(onnx_path)
    model.graph.node[0].op_type = "Nonsense"
    return model
"""
OVERWRITES = """\
    onnx.save(onnx.load(onnx_path), onnx_path + ".opset13")
    open(onnx_path, "ab").write(b"@\\0")
    raise RuntimeError("and then it fails")
"""
#: As the package alone does, without its extra.
LACKS = """\
    raise ImportError("No module named 'onnx_graphsurgeon'\\nPlease install optional [onnx]")
"""
DIES = """\
    import os
    os._exit(9)
"""
_MODULE = """\
import logging, sys, warnings
import onnx

logger = logging.getLogger("modelopt.onnx")
logger.setLevel(logging.INFO)
logger.addHandler(logging.StreamHandler(sys.stdout))


def convert_to_mixed_precision(
    onnx_path, low_precision_type="fp16", keep_io_types=False, calibration_data=None, providers=()
):
    print("its own print")
    print("its own progress", file=sys.stderr)
    logger.info("its own log")
    logging.warning("its own warning at the root")
    warnings.warn("its own deprecation")
"""


def stand_in(folder: Path, body: str) -> Path:
    """Lay out the package in a folder, which is to be put on the path; gives that folder."""
    module = folder / "modelopt/onnx/autocast"
    module.mkdir(parents=True)
    for package in (module.parent.parent, module.parent):
        (package / "__init__.py").touch()
    (module / "__init__.py").write_text(_MODULE + body)
    facts = folder / f"nvidia_modelopt-{VERSION}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Name: nvidia-modelopt\nVersion: {VERSION}\n")
    return folder


def python_with(folder: Path, body: str) -> str:
    """Make an author's environment: all that this one has, and the stand-in; its interpreter."""
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python3.*/site-packages")
    own = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (packages / "own.pth").write_text(own)
    stand_in(packages, body)
    return str(folder / "bin/python")
