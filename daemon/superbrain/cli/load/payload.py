"""What a load test sends: inputs as typed, golden cases of a bundle, or values made up.

Golden cases are taken from an author's folder or a bundle file as they are. Nobody vouches for
them here: the host judges each request as it does any other.
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from superbrain.bundle.tensors import read_tensor
from superbrain.cli.infer_inputs import Given, read_inputs
from superbrain.client.arrays import as_array, describe, find_tensor
from superbrain.domain.manifest import InterfaceTensor
from superbrain.wire.datatypes import BYTES, NUMPY_DTYPES, Array, encode_tensor
from superbrain.wire.errors import InvalidArgument
from superbrain.wire.messages import ModelMetadata

Request = dict[str, Array]
_MOST_BYTES = 1 << 30
_SEED = 1


def typed(given: Sequence[Given], interface: ModelMetadata) -> list[Request]:
    """Give the one request that was typed as `--input`.

    Raises:
        InvalidArgument: as `superbrain infer`.
    """
    values = read_inputs(given, interface)
    return [{name: as_array(name, value, interface) for name, value in values.items()}]


def golden(source: Path, interface: ModelMetadata) -> list[Request]:
    """Give the request of every golden case in a bundle file or an author's folder.

    Raises:
        InvalidArgument: there are none, or they are of another interface.
        TensorFileError: a file does not hold what the interface says.
    """
    cases: dict[str, Request] = {}
    declared = {tensor.name: tensor for tensor in interface.inputs}
    for path, data in _request_files(source).items():
        _, case, _, *rest = PurePosixPath(path).parts
        name = str(PurePosixPath(*rest).with_suffix(""))
        if name not in declared:
            known = ", ".join(declared)
            raise InvalidArgument(f"{source}: {path}: expected an input among {known}")
        one = declared[name]
        tensor = InterfaceTensor(one.name, one.datatype, list(one.shape))
        cases.setdefault(case, {})[name] = read_tensor(path, data, tensor)
    requests = [cases[case] for case in sorted(cases)]
    if not requests:
        raise InvalidArgument(
            f"{source}: expected golden/CASE/request/NAME files, found none",
            mend="Name an author's folder that has recorded cases, or a bundle file",
        )
    for request in requests:
        _check_complete(source, request, declared)
    return requests


def made_up(interface: ModelMetadata, shapes: Mapping[str, Sequence[int]]) -> list[Request]:
    """Make values for every input: numbers between 0 and 1, or 0 and 1 where they are whole.

    Args:
        interface: the model's.
        shapes: of inputs whose interface leaves sizes open; these are 1 otherwise.

    Raises:
        InvalidArgument: an input is BYTES, which cannot be made up; a shape does not fit.
    """
    random = np.random.default_rng(_SEED)
    for name in shapes:
        find_tensor(name, interface)
    request: Request = {}
    for tensor in interface.inputs:
        if tensor.datatype == BYTES:
            raise InvalidArgument(
                f"input {tensor.name!r} ({describe(tensor)}): expected a value, bytes cannot be "
                "made up",
                mend=f"Add --input {tensor.name}=FILE, or --golden BUNDLE",
            )
        shape = _shape(tensor.name, tensor.shape, shapes.get(tensor.name))
        dtype = NUMPY_DTYPES[tensor.datatype]
        values = random.random(shape) if dtype.kind == "f" else random.integers(0, 2, shape)
        request[tensor.name] = np.asarray(values, dtype)
    return [request]


def size_bytes(requests: Sequence[Request]) -> int:
    """How many bytes of tensors the largest request holds."""
    return max(sum(len(encode_tensor(array)) for array in request.values()) for request in requests)


def _shape(name: str, declared: Sequence[int], given: Sequence[int] | None) -> list[int]:
    if given is None:
        return [max(size, 1) if size < 0 else size for size in declared]
    if len(given) != len(declared) or any(
        size not in (-1, found) for size, found in zip(declared, given, strict=True)
    ):
        raise InvalidArgument(f"input {name!r}: expected shape {list(declared)}, found {given}")
    return list(given)


def _check_complete(source: Path, request: Request, declared: Mapping[str, object]) -> None:
    for name in declared:
        if name not in request:
            raise InvalidArgument(f"{source}: expected input {name!r} in every golden case")


def _request_files(source: Path) -> dict[str, bytes]:
    """Read `golden/CASE/request/…` by path."""
    try:
        if source.is_dir():
            found = sorted(path for path in source.glob("golden/*/request/**/*") if path.is_file())
            return {path.relative_to(source).as_posix(): path.read_bytes() for path in found}
        return _in_bundle(source)
    except (OSError, tarfile.TarError) as error:
        raise InvalidArgument(
            f"{source}: expected an author's folder or a bundle file, found: {error}"
        ) from error


def _in_bundle(source: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    with tarfile.open(source, "r:") as bundle:
        for member in bundle:
            parts = PurePosixPath(member.name).parts
            if len(parts) > 3 and (parts[0], parts[2]) == ("golden", "request"):
                file = bundle.extractfile(member) if member.size < _MOST_BYTES else None
                if file is not None:
                    files[member.name] = file.read()
    return files
