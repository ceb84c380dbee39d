"""fp16 by AutoCast, the converter of NVIDIA ModelOpt, where an author has installed it.

AutoCast runs the graph with real inputs and leaves in float32 what would leave the range in which
float16 is exact enough; the light converter rounds everything. It is looked for in the environment
that `superbrain` itself runs in, by its package's name: nothing of it is imported unless a graph
is converted with it, for it brings PyTorch along. Only children of `superbrain` do that.

Source: https://nvidia.github.io/Model-Optimizer/guides/8_autocast.html
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import tempfile
import warnings
import zipfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from superbrain.engines.onnx_session import CPU_PROVIDER, import_library, open_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from superbrain.engines.port import Array

PACKAGE: Final = "nvidia-modelopt"
#: It keeps what every node gives for every sample, all at once.
MOST_SAMPLES: Final = 8
#: Its own extra [onnx] brings onnxruntime-gpu, which overwrites the files of onnxruntime.
_BESIDE: Final = "pip install lief ml-dtypes onnx-graphsurgeon onnxscript onnxslim polygraphy"
_MOST_CHARACTERS: Final = 300


class AutoCastFailed(Exception):
    """It is installed and made no graph that loads; says why, in its own words."""


def installed_version() -> str:
    """Give the version that is installed beside superbrain; nothing where there is none."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return ""


def cast(source: Path, target: Path, samples: Sequence[Mapping[str, Array]]) -> None:
    """Write the graph of `source` to `target`, in float16 where that does; `source` is only read.

    Inputs and outputs keep their datatypes. Its log and what it prints are dropped.

    Args:
        source: an ONNX file, with its external data beside it.
        target: where to write.
        samples: inputs of the graph, to see the range of every value with; without any, AutoCast
            makes up its own.

    Raises:
        AutoCastFailed: it cannot be imported, refused the graph, or what it made does not load.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="superbrain-autocast-") as scratch, _silence():
            autocast = importlib.import_module("modelopt.onnx.autocast")
            model = autocast.convert_to_mixed_precision(
                onnx_path=str(source),
                low_precision_type="fp16",
                keep_io_types=True,
                calibration_data=_written(Path(scratch), spread(samples)),
                providers=["cpu"],
            )
            importlib.import_module("onnx").save(model, target)
        open_session(import_library(), target, CPU_PROVIDER, 1)
    except Exception as error:  # whatever it throws, it did not convert the graph
        target.unlink(missing_ok=True)
        raise AutoCastFailed(_said(error)) from error


def spread(samples: Sequence[Mapping[str, Array]]) -> Sequence[Mapping[str, Array]]:
    """Take at most `MOST_SAMPLES`, from the first one on, evenly: those of a size lie together.

    >>> [sample["x"] for sample in spread([{"x": number} for number in range(20)])]
    [0, 3, 6, 9, 12, 15, 18]
    """
    return samples[:: -(-len(samples) // MOST_SAMPLES)] if samples else samples


def _written(folder: Path, samples: Sequence[Mapping[str, Array]]) -> str | None:
    """Write an .npz for each sample; by hand, for numpy's own takes no input called `file`."""
    for number, sample in enumerate(samples):
        with zipfile.ZipFile(folder / f"{number:02}.npz", "w") as archive:
            for name, array in sample.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
    return str(folder) if samples else None


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep its log and its progress off the author's screen; errors come as exceptions."""
    before = logging.root.manager.disable
    nowhere: Any = io.StringIO()
    with (
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
        warnings.catch_warnings(action="ignore"),
    ):
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


def _said(error: Exception) -> str:
    if isinstance(error, ImportError):
        why = str(error).partition("\n")[0]
        return f"{why}. It needs beside it, instead of its extra [onnx]: {_BESIDE}"
    return " ".join(f"{type(error).__name__}: {error}".split())[:_MOST_CHARACTERS]
