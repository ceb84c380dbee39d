"""Workers whose bundle makes them say what no worker says: the daemon and all others go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from superbrain.client import Client
from superbrain.wire.errors import Internal, InvalidArgument
from superbrain.wire.messages import ERROR, INFER, MAX_HEADER_BYTES, PROTOCOL, decode_error
from tests.support.appliance import Appliance
from tests.support.processes import PATIENCE_S
from tests.support.releases import go_live, release

pytestmark = [pytest.mark.fault, pytest.mark.integration]

CODE = """
import sys
from msgspec.structs import force_setattr as set_field

def of(name):
    return sys.modules["superbrain." + name]

class Pipeline:
    def __init__(self, bundle):
        {begin}

    def preprocess(self, request):
        if request["x"].flat[0] == 666:
            {bad}
        return request

    def postprocess(self, outputs, request):
        return outputs
"""
X = {"x": np.ones((1, 4), np.float32)}
BAD = {"x": np.full((1, 4), 666, np.float32)}


def code(*, begin: str = "pass", bad: str = "pass") -> str:
    return CODE.format(begin=begin, bad=bad)


@pytest.fixture
def appliance(tmp_path: Path) -> Iterator[Appliance]:
    """One that serves a good model."""
    with Appliance(tmp_path) as made:
        go_live(made, 1, name="good")
        yield made


def ask(client: Client, name: str) -> float:
    return float(client.infer(name, X, timeout=PATIENCE_S)["y"][0, 0])


def assert_serves(appliance: Appliance, name: str, *, lanes: bool) -> None:
    with appliance.client(lanes=lanes) as client:
        assert ask(client, name) == 2


def asked_plainly(appliance: Appliance, header: bytes) -> list[bytes]:
    """What a program of its own gets for an inference request without tensors."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.rcvtimeo = int(PATIENCE_S * 1000)
        dealer.connect(appliance.endpoint)
        dealer.send_multipart([PROTOCOL + INFER, header])
        return dealer.recv_multipart()


def test_an_id_that_no_answer_has_room_for_is_refused(appliance: Appliance) -> None:
    begin = b'{"model_name":"good","inputs":[],"id":"'
    for size in (5_000, MAX_HEADER_BYTES - len(begin) - 2):
        verb, header = asked_plainly(appliance, begin + b"r" * size + b'"}')
        error = decode_error(header)
        assert (verb, error.code) == (PROTOCOL + ERROR, "INVALID_ARGUMENT")
        assert "length <= 4096 - at `$.id`" in error.message
        assert_serves(appliance, "good", lanes=False)


@pytest.mark.parametrize("lanes", [False, True])
def test_what_code_refuses_at_length_is_told_in_short(appliance: Appliance, *, lanes: bool) -> None:
    go_live(
        appliance,
        1,
        name="long",
        pipeline=code(bad='raise ValueError("z" * 5_000_000 + "\\ud800")'),
    )
    with appliance.client(lanes=lanes) as client:
        for _ in range(2):
            with pytest.raises(InvalidArgument, match=r"zzz \[4,998,101 characters left out\] z"):
                client.infer("long", BAD, timeout=PATIENCE_S)
            assert ask(client, "long") == 2
    model = appliance.model("long")
    assert model is not None
    assert (model.restarts, len(model.incidents)) == (0, 0)


@pytest.mark.parametrize("lanes", [False, True])
def test_an_answer_that_no_message_has_room_for_is_an_error_of_that_request(
    appliance: Appliance, *, lanes: bool
) -> None:
    small = 'of("serve.request_form").MOST_ANSWER_BYTES = 15'
    go_live(appliance, 1, name="large", pipeline=code(begin=small))
    with appliance.client(lanes=lanes) as client:
        for _ in range(2):
            with pytest.raises(Internal, match="at most 15 B in frames, found 16 B"):
                client.infer("large", X, timeout=PATIENCE_S)
    model = appliance.model("large")
    assert model is not None
    assert model.restarts == 0


def test_what_is_no_frame_costs_that_request_and_its_lane_is_made_again(
    appliance: Appliance,
) -> None:
    torn = 'of("serve.execution").encode_error = lambda *_: b"x" * (2 << 20); raise ValueError'
    whole = "of('serve.execution').encode_error = of('wire.messages').encode_error"
    go_live(appliance, 1, name="torn", pipeline=code(begin=whole, bad=torn))
    with appliance.client(lanes=False) as client:
        with pytest.raises(Internal, match="ended 2 workers"):
            client.infer("torn", BAD, timeout=PATIENCE_S)
        assert ask(client, "torn") == 2
    lost = appliance.logged("gateway_lane_lost")
    assert {line["model"] for line in lost} == {"torn"}
    assert "header of 2097152 bytes" in lost[0]["message"]
    model = appliance.model("torn")
    assert model is not None
    assert model.restarts == 0


LIES = {
    "a time that is no number": (
        'proving = of("serve.proving"); kind = proving.CaseTime;'
        'proving.CaseTime = lambda case, ms: kind(case, float("nan"))'
    ),
    "a histogram of another form": (
        'pong = of("domain.ctl").WorkerPong();'
        'set_field(pong, "latency", of("domain.durations").Histogram([1]));'
        'of("serve.figures").WorkerFigures.pong = lambda self, now_ns: pong'
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_figures_that_are_none_end_the_worker_that_tells_them(
    appliance: Appliance, lie: str
) -> None:
    appliance.drop(release(appliance, 1, name="bad", pipeline=code(begin=LIES[lie])))

    def ended() -> object:
        return [line for line in appliance.history("bad") if "control channel" in line.detail] or (
            (model := appliance.model("bad")) is not None and "control channel" in model.last_error
        )

    appliance.wait_for(ended, "a worker that is ended for what it says")
    assert_serves(appliance, "good", lanes=False)
    assert appliance.stop() == 0
    appliance.start()
    assert_serves(appliance, "good", lanes=True)
    assert not appliance.logged("task_failed")


def test_an_error_of_any_length_leaves_journal_and_health_small(appliance: Appliance) -> None:
    raises = code(begin='raise RuntimeError("x" * 5_000_000)')
    appliance.drop(release(appliance, 1, name="bad", pipeline=raises))
    assert "characters left out" in appliance.wait_ended("bad", "1.0.0", "REJECTED").detail
    health = appliance.root / "run" / "health.json"
    appliance.wait_for(lambda: "characters left out" in health.read_text(), "a report of it")
    assert health.stat().st_size < 100_000
    sizes = [path.stat().st_size for path in appliance.root.rglob("journal.sqlite*")]
    assert sum(sizes) < 2_000_000
    assert all(len(line.detail) < 5000 for line in appliance.history("bad"))
    assert_serves(appliance, "good", lanes=False)
