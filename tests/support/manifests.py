"""A valid manifest as JSON, and changes to it: the material of everything that judges manifests.

>>> parse_manifest(payload(put("sequence")(0)))
Traceback (most recent call last):
superbrain.domain.errors.ManifestError: manifest: sequence: expected 1 to 2^53, found 0
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from superbrain.domain.manifest import Manifest
from superbrain.domain.manifest_json import parse_manifest

Json = dict[str, Any]
Change = Callable[[Json], Any]
FILES = (
    "graphs/main.onnx",
    "golden/one/x.npy",
    "golden/one/y.npy",
    "golden/one/label.json",
)


def tensor(name: str, datatype: str, *shape: int | str) -> Json:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def file(path: str) -> Json:
    return {"path": path, "size_bytes": 7, "sha256": "0" * 64}


VALID: Json = {
    "schema": 1,
    "name": "orientation",
    "version": "1.2.0-rc.1",
    "sequence": 3,
    "created": "2025-01-31T12:00:00Z",
    "graphs": {
        "main": {
            "path": "graphs/main.onnx",
            "inputs": [tensor("x", "FP32", "N", 3)],
            "outputs": [tensor("y", "FP32", "N", 4), tensor("label", "BYTES", "N")],
            "dynamic": {"N": {"min": 0, "opt": 1, "max": 8}},
        }
    },
    "interface": {
        "inputs": [tensor("x", "FP32", -1, 3)],
        "outputs": [tensor("y", "FP32", -1, 4), tensor("label", "BYTES", -1)],
    },
    "golden": {
        "cases": [
            {
                "name": "one",
                "request": {"x": "golden/one/x.npy"},
                "response": {"y": "golden/one/y.npy", "label": "golden/one/label.json"},
            }
        ],
        "tolerances": {
            "y": {"kind": "close", "rtol": 1e-3, "atol": 1e-5},
            "label": {"kind": "exact"},
        },
    },
    "files": [file(path) for path in FILES],
}


def payload(change: Change | None = None) -> bytes:
    manifest = copy.deepcopy(VALID)
    if change is not None:
        change(manifest)
    return json.dumps(manifest).encode()


def valid_manifest() -> Manifest:
    """The valid manifest, read."""
    return parse_manifest(payload())


def put(*keys: str | int) -> Callable[[Any], Change]:
    """`put("a", 0, "b")(value)` gives the change `manifest["a"][0]["b"] = value`."""

    def with_value(value: object) -> Change:
        def change(manifest: Json) -> None:
            place: Any = manifest
            for key in keys[:-1]:
                place = place[key]
            place[keys[-1]] = value

        return change

    return with_value


def add_file(path: str) -> Change:
    return lambda manifest: manifest["files"].append(file(path))


def tolerate(**tolerance: object) -> Change:
    return put("golden", "tolerances", "y")(tolerance)
