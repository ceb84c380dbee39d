"""What must hold of a configuration before anything is started with it: one rule after another.

Each misfit names the keys that it is about; whoever has read them knows where they came from.

>>> [misfit.keys for misfit in misfits(Config(deploy=Deploy(parallel=0)))]
[('deploy.parallel',)]
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from superbrain.app import record_settings
from superbrain.app.addresses import HTTP_ADDRESS, TCP_ADDRESS, address
from superbrain.app.config_keys import KEYS, Misfit, values
from superbrain.app.config_places import misplaced

if TYPE_CHECKING:
    from superbrain.app.config import Config, MetricsOut

LEVELS: Final = ("debug", "info", "warning", "error")


def misfits(config: Config) -> Iterator[Misfit]:
    """Say what cannot be meant, the plainest first."""
    yield from _numbers(config)
    yield from misplaced(config)
    for endpoint in config.tcp.endpoints:
        yield from _tcp(endpoint)
    yield from _metrics(config.metrics)
    yield from record_settings.misfits(config.inference_log, config.traces)
    if config.log.level not in LEVELS:
        expected = "expected log.level debug, info, warning or error"
        yield Misfit(("log.level",), f"{expected}, found {config.log.level!r}")


def _numbers(config: Config) -> Iterator[Misfit]:
    for key, value in values(config).items():
        within = KEYS[key].within
        if within is not None and not within.holds(value):
            yield Misfit(
                (key,),
                f"expected {key} of {within.text}, found {value}",
                f"superbrain config explain {key} says what it means",
            )


def _tcp(endpoint: str) -> Iterator[Misfit]:
    if address(TCP_ADDRESS.fullmatch(endpoint)) is None:
        yield Misfit(
            ("tcp.endpoints",),
            "expected tcp.endpoints like tcp://0.0.0.0:5555 or tcp://[::]:5555, "
            f"found {endpoint!r}",
            "Name an address of this host, not a host name, and a port",
        )


def _metrics(metrics: MetricsOut) -> Iterator[Misfit]:
    file = Path(metrics.file)
    if metrics.file and not (file.is_absolute() and file.suffix == ".prom"):
        yield Misfit(
            ("metrics.file",),
            "expected metrics.file to be an absolute path that ends in .prom, "
            f"found {metrics.file!r}",
            "node_exporter reads nothing else, in the folder that it is told",
        )
    if not metrics.listen:
        return
    found = address(HTTP_ADDRESS.fullmatch(metrics.listen))
    if found is None:
        yield Misfit(
            ("metrics.listen",),
            f"expected metrics.listen like 127.0.0.1:9464 or [::1]:9464, found {metrics.listen!r}",
            "Name an address of this host, not a host name, and a port",
        )
    elif not found.is_loopback and not metrics.remote:
        yield Misfit(
            ("metrics.listen", "metrics.remote"),
            f"metrics.listen {metrics.listen} can be reached from other hosts, "
            "unencrypted and by everybody",
            "Take 127.0.0.1, or say metrics.remote = true if that is meant",
        )
