"""Gateway and workers as real processes: what a caller sees, whatever happens behind it."""

from __future__ import annotations

import json
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import zmq

from superbrain.bundle.store import Store
from superbrain.domain import ctl
from superbrain.wire import lane
from superbrain.wire.messages import (
    INFER,
    MODEL_LIST,
    MODEL_METADATA,
    MODEL_READY,
    PROTOCOL,
    SERVER_LIVE,
    SERVER_METADATA,
    InferRequest,
    ModelMetadata,
    TensorHeader,
)
from tests.support.bundles import make_bundle, sign_key, verified
from tests.support.fake_worker import BIG, BREAK, DIE, EXIT, REFUSE, SLOW
from tests.support.processes import Child, GatewayChild, OrderFailed, Stage, WorkerChild, until

pytestmark = pytest.mark.integration
PATIENCE_S = 20.0
NO_METADATA = ModelMetadata("adder", ["1"], "superbrain", [], [])


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path) as stage:
        yield stage


def executing(worker: WorkerChild) -> bool:
    return worker.figures().executing_s > 0


# --- asking -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ])
def test_req_and_dealer_clients_are_served_alike(stage: Stage, kind: int) -> None:
    stage.serving()
    with stage.client(kind) as client:
        answer = client.ask("adder", [1, 2], id="mine")
    assert answer.outputs["y"].tolist() == [2, 3]
    assert (answer.id, answer.model_version) == ("mine", "1")


def test_a_reply_finds_its_way_back_through_a_proxy(stage: Stage) -> None:
    stage.serving()
    with stage.client() as client:
        client.send_raw([b"hop", b"", PROTOCOL + SERVER_LIVE, b"{}"])
        parts = client._socket.recv_multipart()
    assert parts[:2] == [b"hop", b""]


def test_only_the_outputs_asked_for_are_sent(stage: Stage) -> None:
    stage.serving()
    with stage.client() as client:
        assert list(client.ask("adder", [1], outputs=("version",)).outputs) == ["version"]
        refused = client.ask("adder", [1], outputs=("z",))
    assert refused.code == "INVALID_ARGUMENT"


def test_large_tensors_travel_whole_in_both_directions(stage: Stage) -> None:
    stage.serving()
    values = np.arange(3_000_000, dtype=np.float32)
    with stage.client() as client:
        np.testing.assert_array_equal(client.ask("adder", values).outputs["y"], values + 1)


@pytest.mark.parametrize(
    ("value", "code", "sentence"),
    [
        (REFUSE, "INVALID_ARGUMENT", "zero or more"),
        (BREAK, "INTERNAL", "ValueError"),
        (EXIT, "INTERNAL", "SystemExit"),
    ],
)
def test_what_bundle_code_raises_ends_one_request_only(
    stage: Stage, value: float, code: str, sentence: str
) -> None:
    stage.serving()
    with stage.client() as client:
        answer = client.ask("adder", [value], id="bad")
        assert (answer.code, answer.id) == (code, "bad")
        assert sentence in str(answer.error)
        assert client.ask("adder", [1]).code == "OK"


def test_an_unknown_model_or_version_is_not_found_with_the_names_known(stage: Stage) -> None:
    stage.serving()
    with stage.client() as client:
        assert "'adder'" in str(client.ask("other", [1]).error)
        answer = client.ask("adder", [1], version="9", id="a")
        assert (answer.code, answer.id) == ("NOT_FOUND", "a")
        assert client.ask("adder", [1], version="1").code == "OK"


def test_the_gateway_answers_for_itself(stage: Stage) -> None:
    with stage.client() as client:
        assert b'"models":[]' in client.query(MODEL_LIST).raw
        stage.serving()
        assert b'"live":true' in client.query(SERVER_LIVE, b'{"id":"1"}').raw
        assert b'"name":"superbrain"' in client.query(SERVER_METADATA).raw
        assert b'"version":"1","ready":true' in client.query(MODEL_LIST).raw
        assert b'"ready":true' in client.query(MODEL_READY, b'{"model_name":"adder"}').raw
        metadata = client.query(MODEL_METADATA, b'{"model_name":"adder","id":"q\\""}')
        assert (metadata.code, metadata.id) == ("OK", 'q"')
        assert client.query(MODEL_METADATA, b'{"model_name":"no"}').code == "NOT_FOUND"
        assert client.query(MODEL_LIST, b'{"surprise":1}').code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("sent", [b"", b',"id":"q\\""'])
def test_model_metadata_carries_the_callers_id_exactly_once(stage: Stage, sent: bytes) -> None:
    stage.serving()
    with stage.client() as client:
        raw = client.query(MODEL_METADATA, b'{"model_name":"adder"' + sent + b"}").raw
    fields = json.loads(raw, object_pairs_hook=list)
    assert [value for key, value in fields if key == "id"] == ['q"' if sent else ""]


MALFORMED: list[tuple[str, list[bytes]]] = [
    ("another protocol", [b"HTTP", b"{}"]),
    ("an empty message", [b""]),
    ("a verb alone", [PROTOCOL + INFER]),
    ("an unknown verb", [PROTOCOL + b"?", b"{}"]),
    ("no verb", [PROTOCOL, b"{}"]),
    ("no JSON", [PROTOCOL + INFER, b"\xff{"]),
    ("an empty header", [PROTOCOL + INFER, b""]),
    ("no model name", [PROTOCOL + INFER, b'{"inputs":[]}']),
    ("a huge header", [PROTOCOL + INFER, b" " * ((1 << 20) + 1)]),
    (
        "a negative timeout",
        [PROTOCOL + INFER, b'{"model_name":"adder","parameters":{"timeout_ms":-1}}'],
    ),
    ("too many frames", [PROTOCOL + INFER, b'{"model_name":"adder"}', *[b""] * 1025]),
    ("no inputs", [PROTOCOL + INFER, b'{"model_name":"adder"}']),
    ("an unknown field", [PROTOCOL + INFER, b'{"model_name":"adder","inputs":[],"x":1}']),
    (
        "a frame too few",
        [
            PROTOCOL + INFER,
            b'{"model_name":"adder","inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}',
        ],
    ),
    ("a frame too many", [PROTOCOL + INFER, b'{"model_name":"adder","inputs":[]}', b"1234"]),
    (
        "too few bytes",
        [
            PROTOCOL + INFER,
            b'{"model_name":"adder","inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}',
            b"1",
        ],
    ),
    (
        "an unknown datatype",
        [
            PROTOCOL + INFER,
            b'{"model_name":"adder","inputs":[{"name":"x","datatype":"BF16","shape":[1]}]}',
            b"12",
        ],
    ),
    (
        "an absurd shape",
        [
            PROTOCOL + INFER,
            b'{"model_name":"adder","inputs":[{"name":"x","datatype":"FP32","shape":[0,1e99]}]}',
            b"",
        ],
    ),
]


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ])
def test_whatever_is_malformed_is_refused_and_the_next_request_served(
    stage: Stage, kind: int
) -> None:
    worker = stage.serving()
    with stage.client(kind) as client:
        for what, parts in MALFORMED:
            if kind == zmq.DEALER and parts == [b""]:
                continue  # nothing but a delimiter: there is no message
            client.send_raw(parts)
            assert client.receive().code == "INVALID_ARGUMENT", what
        assert client.ask("adder", [1]).code == "OK"
    assert stage.gateway.figures().malformed >= 8
    assert worker.figures().caller_errors >= 6


# --- waiting ----------------------------------------------------------------------------------


def test_higher_priority_overtakes_those_that_wait(stage: Stage) -> None:
    worker = stage.serving("slow_ms=600")
    with stage.client() as client:
        for _ in range(2):  # one executes, one is at the worker or on its way there
            client.send("adder", [SLOW], id="slow")
        until(lambda: executing(worker), "the worker at work")
        client.send("adder", [1], id="low")
        client.send("adder", [1], id="high", priority=99)
        order = [client.receive().id for _ in range(4)]
    assert order[0] == "slow"
    assert order.index("high") < order.index("low")


def test_a_request_that_expires_while_waiting_is_answered_in_time_and_not_executed(
    stage: Stage,
) -> None:
    worker = stage.serving("slow_ms=1000")
    with stage.client() as client:
        for _ in range(2):
            client.send("adder", [SLOW])
        client.send("adder", [1], id="late", timeout_ms=50)
        answer = client.receive()  # the first to come, though the last to go
        assert (answer.code, answer.id) == ("DEADLINE_EXCEEDED", "late")
        client.receive()
        client.receive()
    assert worker.figures().requests == 2


def test_a_deadline_that_has_passed_on_a_lane_is_never_executed(stage: Stage) -> None:
    worker = stage.serving()
    peer = socket.socket(socket.AF_UNIX)
    with peer:
        peer.settimeout(PATIENCE_S)
        peer.connect(worker.address.path)
        header = b'{"model_name":"adder","inputs":[]}'
        peer.sendall(b"".join(map(bytes, lane.encode(lane.REQUEST, header, deadline_ns=1))))
        kinds = [frame.kind for frame in lane_frames(peer, 2)]
    assert kinds == [lane.HELLO, lane.ERROR]
    assert worker.figures().expired == 1


def test_more_than_may_wait_is_refused_at_once(stage: Stage) -> None:
    stage.serving("slow_ms=600", queue_size=2)
    with stage.client() as client:
        for number in range(5):  # two travel, two wait
            client.send("adder", [SLOW], id=str(number))
        answer = client.receive()
        assert (answer.code, answer.id) == ("RESOURCE_EXHAUSTED", "4")
        assert [client.receive().code for _ in range(4)] == ["OK"] * 4


def test_requests_wait_for_a_route_and_a_reason_refuses_them(stage: Stage) -> None:
    stage.gateway.route("adder", "1", [])
    with stage.client() as client:
        client.send("adder", [1], id="waits")
        assert client.silent(50)
        assert b"no proven worker" in client.query(MODEL_READY, b'{"model_name":"adder"}').raw
        stage.gateway.route("adder", "1", [], reason="the disk is full")
        answer = client.receive()
        assert (answer.code, answer.id) == ("UNAVAILABLE", "waits")
        assert "the disk is full" in str(client.ask("adder", [1]).error)
        stage.gateway.order(ctl.Unroute("adder"), ctl.Done)
        assert client.ask("adder", [1]).code == "NOT_FOUND"


def test_two_instances_share_the_work(stage: Stage) -> None:
    workers = [stage.worker("slow_ms=200"), stage.worker("slow_ms=200")]
    same_deployment(workers)
    for worker in workers:
        worker.bring_up()
    stage.gateway.route("adder", "1", workers)
    with stage.client() as client:
        client.send("adder", [SLOW])
        client.send("adder", [SLOW])
        until(lambda: all(map(executing, workers)), "both workers at work")
        assert [client.receive().code for _ in range(2)] == ["OK", "OK"]


def same_deployment(workers: list[WorkerChild]) -> None:
    for worker in workers:
        load = worker.load
        worker.load = ctl.Load(1, "", "", load.rung, load.lane_path)


# --- dying ------------------------------------------------------------------------------------


def test_a_killed_worker_loses_no_request(stage: Stage) -> None:
    doomed, heir = stage.worker("slow_ms=5000"), stage.worker("slow_ms=1")
    doomed.bring_up()
    stage.gateway.route("adder", "1", [doomed])
    with stage.client() as client:
        for number in range(5):
            client.send("adder", [SLOW], id=str(number))
        until(lambda: executing(doomed), "the worker at work")
        doomed.kill()
        heir.bring_up()
        stage.gateway.route("adder", "1", [heir])
        answers = [client.receive() for _ in range(5)]
        assert [(answer.id, answer.code) for answer in answers] == [
            (str(number), "OK") for number in range(5)
        ]
        assert client.silent(50)
    assert stage.gateway.figures().models[0].redispatched == 2


def test_a_request_that_ends_two_workers_is_poison_and_innocents_survive(stage: Stage) -> None:
    first = stage.serving()
    with stage.client() as client:
        client.send("adder", [SLOW], id="before")  # so that the next two travel together
        client.send("adder", [DIE], id="poison")
        client.send("adder", [1], id="innocent")
        assert client.receive().id == "before"
        first.process.wait(PATIENCE_S)
        second = stage.worker().bring_up()
        stage.gateway.route("adder", "1", [second])
        answer = client.receive()
        assert (answer.id, answer.code) == ("poison", "INTERNAL")
        assert "ended 2 workers" in str(answer.error)
        second.process.wait(PATIENCE_S)
        stage.gateway.route("adder", "1", [stage.worker().bring_up()])
        assert client.receive().id == "innocent"
    poisoned = stage.gateway.hear(ctl.Poisoned) if not stage.gateway.unasked else None
    found = poisoned or stage.gateway.unasked[0]
    assert found == ctl.Poisoned("adder", first.load.deployment_id + 1, "poison")


def test_a_request_whose_worker_hangs_beyond_its_deadline_is_answered_and_reported(
    stage: Stage,
) -> None:
    hanging = stage.worker("slow_ms=3600000").bring_up()
    stage.gateway.route("adder", "1", [hanging])
    with stage.client() as client:
        client.send("adder", [SLOW], id="endless", timeout_ms=300)
        until(lambda: hanging.figures().executing == ["endless"], "the worker to name what it does")
        until(lambda: hanging.figures().executing_s > 0.3, "the deadline to pass")
        hanging.kill()
        answer = client.receive()
        assert (answer.id, answer.code) == ("endless", "DEADLINE_EXCEEDED")
        assert "hung or died while it executed this request" in str(answer.error)
    poisoned = stage.gateway.hear(ctl.Poisoned) if not stage.gateway.unasked else None
    found = poisoned or stage.gateway.unasked[0]
    assert found == ctl.Poisoned("adder", hanging.load.deployment_id, "endless", deaths=1)


def test_a_golden_case_runs_again_in_the_process_that_serves(stage: Stage) -> None:
    worker = stage.worker()
    worker.order(worker.load, ctl.Loaded)
    with pytest.raises(OrderFailed, match="expected a passed proof"):
        worker.order(ctl.Reprove(0), ctl.Reproven)
    worker.order(ctl.Prove(), ctl.Proven)
    worker.serve()
    stage.gateway.route("adder", "1", [worker])
    with stage.client() as client:
        assert client.ask("adder", [1]).outputs["y"][0] == 2
        proof = worker.order(ctl.Reprove(0), ctl.Reproven).proof
        assert proof is not None
        assert proof.passed
        assert client.ask("adder", [2]).outputs["y"][0] == 3


def test_a_worker_that_speaks_garbage_is_left_and_its_requests_kept(
    stage: Stage, tmp_path: Path
) -> None:
    path = tmp_path / "liar"
    with socket.socket(socket.AF_UNIX) as listener, stage.client() as client:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(PATIENCE_S)
        order = ctl.Route("adder", "1", 1, [ctl.LaneAddress(str(path), 1)], NO_METADATA, 8, 20_000)
        stage.gateway.say(order)
        liar, _ = listener.accept()
        hello = lane.Hello("adder", "1", 1, 2)
        liar.sendall(b"".join(map(bytes, lane.encode(lane.HELLO, msgspec.json.encode(hello)))))
        stage.gateway.hear(ctl.Done)
        client.send("adder", [1], id="kept")
        liar.settimeout(PATIENCE_S)
        assert liar.recv(1 << 16)
        liar.sendall(b"\xff" * 64)
        stage.gateway.route("adder", "1", [stage.worker().bring_up()])
        assert client.receive().id == "kept"
        liar.close()


@pytest.mark.parametrize("deployment_id", [7, 0])
def test_a_lane_that_greets_as_another_deployment_is_refused(
    stage: Stage, deployment_id: int
) -> None:
    worker = stage.worker().bring_up()
    order = ctl.Route(
        "adder", "1", worker.load.deployment_id + 1, [worker.address], NO_METADATA, 8, 100
    )
    with pytest.raises(OrderFailed, match="no valid greeting"):
        stage.gateway.order(order, ctl.Done)


def test_a_lane_where_nobody_listens_fails_the_order(stage: Stage, tmp_path: Path) -> None:
    order = ctl.Route(
        "adder", "1", 1, [ctl.LaneAddress(str(tmp_path / "none"), 1)], NO_METADATA, 8, 20_000
    )
    with pytest.raises(OrderFailed, match="none"):
        stage.gateway.order(order, ctl.Done)


@pytest.mark.parametrize("who", ["gateway", "worker"])
def test_children_end_with_their_channel(stage: Stage, who: str) -> None:
    worker = stage.serving("slow_ms=60000")
    child: Child = worker if who == "worker" else stage.gateway
    with stage.client() as client:
        client.send("adder", [SLOW])
        until(lambda: executing(worker), "the worker at work")
        child.channel.shutdown(socket.SHUT_RDWR)
        assert child.process.wait(5) == 0


def test_signals_are_left_to_the_daemon(stage: Stage) -> None:
    worker = stage.serving()
    for child in (stage.gateway, worker):
        child.process.terminate()
        child.process.send_signal(2)
    with stage.client() as client:
        assert client.ask("adder", [1]).code == "OK"


# --- orders -----------------------------------------------------------------------------------


def test_a_worker_serves_only_after_its_own_proof_has_passed(stage: Stage) -> None:
    worker = stage.worker("proves=no")
    for order in (ctl.Prove(), ctl.Serve()):
        with pytest.raises(OrderFailed):
            worker.order(order, ctl.Done)
    worker.order(worker.load, ctl.Loaded)
    assert not worker.order(ctl.Prove(), ctl.Proven).proof.passed
    with pytest.raises(OrderFailed, match="expected a passed proof"):
        worker.serve()
    with socket.socket(socket.AF_UNIX) as caller, pytest.raises(ConnectionRefusedError):
        caller.connect(worker.address.path)


def test_a_worker_that_stands_by_hangs_up_on_whoever_connects(stage: Stage) -> None:
    worker = stage.serving()
    worker.stand_by()
    for _ in range(2):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(10)
            caller.connect(worker.address.path)
            assert caller.recv(1) == b""
    worker.serve()
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(10)
        caller.connect(worker.address.path)
        assert caller.recv(1) != b""


def bundle_load(folder: Path, *, constant: float = 1.0, golden_error: float = 0.0) -> ctl.Load:
    """Make a real bundle, put it into a store, and give the order to load it."""
    author = sign_key(folder / "keys")
    bundle = make_bundle(folder, author, constant=constant, golden_error=golden_error)
    checked = verified(bundle, author)
    with bundle.path.open("rb") as file:
        stored = Store(folder / "store", reserve_bytes=0).receive(file, checked)
    return ctl.Load(1, str(stored), checked.digest, "onnxruntime:cpu", str(folder / "lane"))


def test_a_real_bundle_is_loaded_proven_and_served(stage: Stage, tmp_path: Path) -> None:
    worker = stage.worker(load=bundle_load(tmp_path, constant=2.0)).bring_up()
    stage.gateway.route("adder", "1.0.0", [worker])
    with stage.client() as client:
        answer = client.ask("adder", np.zeros((1, 4), np.float32))
    assert answer.outputs["y"].tolist() == [[2.0] * 4]
    assert answer.model_version == "1.0.0"


def test_a_real_bundle_that_drifts_is_not_served(stage: Stage, tmp_path: Path) -> None:
    worker = stage.worker(load=bundle_load(tmp_path, golden_error=0.5))
    worker.order(worker.load, ctl.Loaded)
    assert not worker.order(ctl.Prove(), ctl.Proven).proof.passed
    with pytest.raises(OrderFailed, match="expected a passed proof"):
        worker.serve()


def test_a_damaged_store_is_not_the_bundle_s_fault(stage: Stage, tmp_path: Path) -> None:
    load = bundle_load(tmp_path)
    worker = stage.worker(load=ctl.Load(1, load.bundle_path, "0" * 64, load.rung, load.lane_path))
    with pytest.raises(OrderFailed, match="sha256 0000") as caught:
        worker.order(worker.load, ctl.Loaded)
    assert (caught.value.failed.code, caught.value.failed.bundle_at_fault) == (
        "STORE_DAMAGED",
        False,
    )


def test_a_load_that_fails_says_why(stage: Stage) -> None:
    worker = stage.worker("load=fails")
    with pytest.raises(OrderFailed, match="expected a model that loads") as caught:
        worker.order(worker.load, ctl.Loaded)
    assert caught.value.failed.code == "INVALID_ARGUMENT"


def test_ping_is_answered_while_a_request_executes(stage: Stage) -> None:
    worker = stage.serving("slow_ms=1000")
    with stage.client() as client:
        client.send("adder", [SLOW])
        until(lambda: executing(worker), "the worker at work")
        assert worker.figures().executing_s > 0
        client.receive()


def test_sockets_are_for_owner_and_group_only(stage: Stage) -> None:
    worker = stage.serving()
    for path in (worker.address.path, stage.endpoint.removeprefix("ipc://")):
        mode = Path(path).stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o660


def test_a_second_gateway_on_the_same_endpoint_is_refused(stage: Stage, tmp_path: Path) -> None:
    second = GatewayChild(stage.endpoint)
    with pytest.raises(OrderFailed, match="somebody answers there"):
        second.hear(ctl.GatewayReady)
    assert second.process.wait(PATIENCE_S) == 3
    second.close()
    with stage.client() as client:
        assert client.query(SERVER_LIVE).code == "OK"


def test_a_gateway_takes_over_what_a_killed_one_left(stage: Stage) -> None:
    stage.gateway.kill()
    stage.gateway.close()
    assert Path(stage.endpoint.removeprefix("ipc://")).exists()
    stage.gateway = GatewayChild(stage.endpoint)
    stage.gateway.begin()
    with stage.client() as client:
        assert client.query(SERVER_LIVE).code == "OK"


# --- swapping ---------------------------------------------------------------------------------


class Caller(threading.Thread):
    """Asks one after another, or several at a time, and remembers what came for what."""

    def __init__(self, stage: Stage, outstanding: int) -> None:
        super().__init__(daemon=True)
        self._client = stage.client()
        self._outstanding = outstanding
        self.stop = threading.Event()
        self.sent = 0
        self.ids: list[str] = []
        self.codes: list[str] = []
        self.versions: list[int] = []

    def run(self) -> None:
        with self._client:
            while not self.stop.is_set():
                for _ in range(self._outstanding):
                    self._client.send("adder", [float(self.sent)], id=str(self.sent))
                    self.sent += 1
                for _ in range(self._outstanding):
                    self._take()

    def _take(self) -> None:
        answer = self._client.receive()
        self.ids.append(answer.id)
        self.codes.append(answer.code)
        if answer.code == "OK":
            assert answer.outputs["y"].tolist() == [float(answer.id) + 1]
            assert answer.outputs["version"].tolist() == [int(answer.model_version)]
            self.versions.append(int(answer.model_version))


def test_swaps_under_load_lose_nothing_double_nothing_and_never_go_back(stage: Stage) -> None:
    serving = stage.serving("version=1")
    callers = [Caller(stage, outstanding) for outstanding in (1, 1, 3, 8)]
    for caller in callers:
        caller.start()
    for version in range(2, 9):
        successor = stage.worker(f"version={version}")
        successor.bring_up()
        time.sleep(0.1)
        serving.stand_by()
        stage.gateway.route("adder", str(version), [successor])
        serving.close()
        serving = successor
    time.sleep(0.1)
    for caller in callers:
        caller.stop.set()
    for caller in callers:
        caller.join(PATIENCE_S)
        assert not caller.is_alive()
        assert caller.sent == len(caller.ids) == len(set(caller.ids))
        assert set(caller.codes) == {"OK"}
        assert caller.versions == sorted(caller.versions)
        assert set(caller.versions) == set(range(1, 9))


def test_what_merely_waited_at_the_old_worker_is_executed_by_the_new_one(stage: Stage) -> None:
    old = stage.serving("version=1,slow_ms=300")
    new = stage.worker("version=2").bring_up()
    with stage.client() as client:
        for number in range(4):
            client.send("adder", [SLOW], id=str(number))
        until(lambda: executing(old), "the old worker at work")
        old.stand_by()
        stage.gateway.route("adder", "2", [new])
        answers = [client.receive() for _ in range(4)]
    assert [(answer.id, answer.model_version) for answer in answers] == [
        ("0", "1"),
        ("1", "2"),
        ("2", "2"),
        ("3", "2"),
    ]
    assert old.figures().requests == 1


def test_a_worker_that_stood_by_serves_again(stage: Stage) -> None:
    old = stage.serving("version=1")
    new = stage.worker("version=2").bring_up()
    old.stand_by()
    stage.gateway.route("adder", "2", [new])
    with stage.client() as client:
        assert client.ask("adder", [1]).model_version == "2"
        new.stand_by()
        old.serve()
        stage.gateway.route("adder", "1", [old])
        assert client.ask("adder", [1]).model_version == "1"


def test_a_switch_waits_for_the_answers_of_a_lane_that_still_works(stage: Stage) -> None:
    old = stage.serving("version=1,slow_ms=300")
    new = stage.worker("version=2").bring_up()
    with stage.client() as client:
        client.send("adder", [SLOW], id="old")
        until(lambda: executing(old), "the old worker at work")
        stage.gateway.route("adder", "2", [new])
        client.send("adder", [1], id="new")
        answers = [client.receive() for _ in range(2)]
    assert [(a.id, a.model_version) for a in answers] == [("old", "1"), ("new", "2")]


# --- misbehaving ------------------------------------------------------------------------------


def test_a_client_that_sends_and_never_reads_hinders_nobody(stage: Stage) -> None:
    worker = stage.serving("big_mb=2")
    with stage.client(receive_watermark=1) as deaf, stage.client() as client:
        for _ in range(10):
            for _ in range(20):
                deaf.send("adder", [BIG])
            assert client.ask("adder", [1], priority=9).code == "OK"
            until(lambda: not stage.gateway.figures().models[0].outstanding, "all answered")
        assert stage.gateway.figures().models[0].requests < 200, "it was read on and on"
        for child in (worker, stage.gateway):
            assert psutil.Process(child.process.pid).memory_info().rss < 400 << 20
        assert client.ask("adder", [1]).code == "OK"


def test_a_client_that_reads_late_gets_every_answer(stage: Stage) -> None:
    stage.serving("big_mb=1", queue_size=100)
    with stage.client(receive_watermark=1) as late:
        for number in range(90):
            late.send("adder", [BIG], id=str(number))
        until(lambda: not stage.gateway.figures().models[0].outstanding, "all answered")
        assert [late.receive().id for _ in range(90)] == [str(number) for number in range(90)]
    assert stage.gateway.figures().dropped == 0


def test_a_lane_that_sends_and_never_reads_is_closed(stage: Stage) -> None:
    worker = stage.serving("big_mb=16,queue_size=64")
    request = InferRequest("adder", [TensorHeader("x", "FP32", [1])])
    header = msgspec.json.encode(request)
    frame = lane.encode(lane.REQUEST, header, [np.array([BIG], np.float32).tobytes()])
    with socket.socket(socket.AF_UNIX) as deaf, stage.client() as client:
        deaf.connect(worker.address.path)
        for _ in range(30):
            deaf.sendall(b"".join(map(bytes, frame)))
        until(lambda: worker.figures().queued == 0, "the queue worked off")
        assert client.ask("adder", [1]).code == "OK"
        assert psutil.Process(worker.process.pid).memory_info().rss < 512 << 20


def test_garbage_on_a_lane_closes_that_lane_only(stage: Stage) -> None:
    worker = stage.serving()
    with socket.socket(socket.AF_UNIX) as peer, stage.client() as client:
        peer.settimeout(PATIENCE_S)
        peer.connect(worker.address.path)
        assert lane_frames(peer, 1)[0].kind == lane.HELLO
        peer.sendall(b"\xff" * 100)
        assert peer.recv(1) == b""
        assert client.ask("adder", [1]).code == "OK"


def lane_frames(peer: socket.socket, count: int) -> list[lane.LaneFrame]:
    decoder = lane.LaneDecoder()
    frames: list[lane.LaneFrame] = []
    while len(frames) < count:
        received = peer.recv_into(decoder.buffer())
        assert received, "expected more frames, found the end of the lane"
        frames += decoder.received(received)
    return frames
