"""Which places a worker is granted: those of the GPU's libraries too, if it needs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from superbrain.host.sandbox.landlock import READ
from superbrain.host.sandbox.places import grants


def readable(*, gpu: bool) -> set[str]:
    granted = grants(Path("/bundle"), Path("/scratch"), gpu=gpu)
    return {str(one.path) for one in granted if one.rights == READ}


def test_libraries_of_the_driver_are_found_where_the_operator_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/driver/lib:/run/driver")
    assert {"/opt/driver/lib", "/run/driver", "/usr/local/nvidia"} <= readable(gpu=True)


def test_a_worker_without_a_gpu_is_not_given_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/driver/lib")
    assert not {"/opt/driver/lib", "/usr/local/nvidia"} & readable(gpu=False)


@pytest.mark.parametrize("named", ["", ":", ".", "lib", "/", "//", "/opt/.."])
def test_a_careless_list_opens_nothing_more(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    usual = readable(gpu=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", named)
    assert readable(gpu=True) == usual
