"""The stable names of everything worth a log line: what alerts and dashboards may rely on.

A name, once released, keeps its meaning; new ones are added, none is renamed. docs/log-events.md
is generated from this list by scripts/docs.

    logs.event(logger, Event.WORKER_DIED, level=logging.WARNING, model="ocr", exit_code=-11)
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Self


class Event(StrEnum):
    """The name of an event, with what it means as `meaning`."""

    meaning: str

    def __new__(cls, name: str, meaning: str) -> Self:
        """Make the member a plain string that carries its meaning along."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.meaning = meaning
        return member

    # The daemon itself.
    DAEMON_STARTED = "daemon_started", "The daemon runs and has read its configuration."
    DAEMON_READY = "daemon_ready", "Every current deployment is proven again and answers."
    DAEMON_RELOADED = "daemon_reloaded", "Configuration and trust folder were read again."
    DAEMON_STOPPING = "daemon_stopping", "The daemon was told to stop and ends its children."
    JOURNAL_OPENED = "journal_opened", "The journal is open and its schema is current."
    JOURNAL_DAMAGED = "journal_damaged", "The journal was no good, is kept aside, and begun anew."
    MODEL_ADOPTED = (
        "model_adopted",
        "A model that the journal had lost serves again from its bundle in the store.",
    )
    SOCKET_MADE_AGAIN = (
        "socket_made_again",
        "The file of a socket was removed by somebody; it is there again.",
    )
    CONTROL_REQUEST_REFUSED = (
        "control_request_refused",
        "The control socket got a message that is no operation.",
    )
    CONTROL_PEER_REFUSED = (
        "control_peer_refused",
        "A process that may not give orders wrote to the control socket.",
    )
    OPERATION_CARRIED_OUT = "operation_carried_out", "An operator's order was carried out."
    OPERATION_REFUSED = "operation_refused", "An operator's order was not carried out."
    TASK_FAILED = "task_failed", "A part of the daemon met an error that it did not expect."

    # Inbox, store, trust.
    INBOX_SCAN_FAILED = (
        "inbox_scan_failed",
        "The inbox could not be read; the next scan tries again.",
    )
    BUNDLE_TAKEN = "bundle_taken", "A file of the inbox was verified and copied into the store."
    BUNDLE_REFUSED = "bundle_refused", "A file of the inbox was not taken; the line says why."
    TRUST_LOADED = "trust_loaded", "The trusted keys and revocations were read."
    TRUST_UPDATED = "trust_updated", "A signed trust update was verified and counts from now on."
    TRUST_UPDATE_REFUSED = "trust_update_refused", "A trust update was refused; nothing changed."
    REVOKED_LIVE = (
        "revoked_live",
        "A version that serves may not serve any more; the line says why.",
    )
    CLOCK_BEHIND = "clock_behind", "The clock is below a time that this host has already seen."
    AUDITED = "audited", "An entry of the audit trail; send these to another host to keep them."
    STORE_COLLECTED = "store_collected", "Bundles and engines nobody needs were deleted."

    # Deployments.
    DEPLOYMENT_ADVANCED = "deployment_advanced", "A deployment moved to its next state."
    PROOF_PASSED = "proof_passed", "Every golden case was reproduced on a rung."
    PROOF_FAILED = "proof_failed", "A golden case was not reproduced; the next rung is tried."
    MODEL_SWITCHED = "model_switched", "Live traffic of a model moved to another deployment."
    ROLLED_BACK = "rolled_back", "Live traffic moved back to the previous good version."
    OUTAGE_BEGAN = (
        "outage_began",
        "A version stopped to make room for its next one, as was allowed; requests wait.",
    )
    OUTAGE_ENDED = (
        "outage_ended",
        "Something answers again; the line says which version, and after how many seconds.",
    )
    MODEL_RETIRED = "model_retired", "A model is no longer served, by an operator's order."

    # Processes that serve.
    GATEWAY_STARTED = "gateway_started", "The gateway has bound its public sockets."
    GATEWAY_DIED = "gateway_died", "The gateway ended unasked; it is started again."
    CLIENT_REFUSED = "client_refused", "The gateway could not take one more client."
    CLIENT_CLOSED = "client_closed", "The gateway hung up on a client; the line says why."
    TCP_FACE_STARTED = "tcp_face_started", "The TCP face has bound its addresses."
    TCP_FACE_CLOSED = "tcp_face_closed", "Nobody can connect by TCP; the line says why."
    TCP_FACE_DIED = "tcp_face_died", "The TCP face ended unasked; it is started again."
    TCP_CLIENT_ACCEPTED = "tcp_client_accepted", "A client whose key is allowed has connected."
    TCP_CLIENT_REFUSED = "tcp_client_refused", "Somebody was not let in by TCP; the line says why."
    TCP_CLIENT_CUT = "tcp_client_cut", "The TCP face hung up on a client; the line says why."
    FORK_SERVER_STARTED = "fork_server_started", "The process that workers are forked from began."
    FORK_SERVER_FAILED = (
        "fork_server_failed",
        "Nothing can be forked; workers begin from nothing, and more slowly.",
    )
    WORKER_STARTED = "worker_started", "A worker process was started."
    WORKER_READY = "worker_ready", "A worker has proven its engines and listens on its lane."
    WORKER_DIED = "worker_died", "A worker ended unasked; it is started again within its budget."
    WORKER_CONFINED = "worker_confined", "A worker closed its sandbox; the line has its level."
    WORKER_OVER_LIMIT = "worker_over_limit", "A worker exceeded a limit and was ended."
    WORKER_STUCK = "worker_stuck", "A worker stopped answering and was killed."
    CHILD_OUTPUT = "child_output", "A line that a child process, or code in it, has printed."
    WORKER_STOPPED = "worker_stopped", "A worker ended because it was told to."
    WORKER_LEAKS = "worker_leaks", "A worker holds more and more; it is replaced in service."
    WORKER_RECYCLED = "worker_recycled", "A fresh, proven worker took the place of one that leaks."
    MODEL_SLOWER = "model_slower", "A model has become slower than it was proven or used to be."
    MODEL_NO_SLOWER = "model_no_slower", "A model that had become slower is no longer."
    REPROOF_FAILED = "reproof_failed", "A serving process did not reproduce a golden case again."
    REPROOF_UNREADABLE = "reproof_unreadable", "A golden case could not be run again."
    MODEL_PROVEN_AGAIN = "model_proven_again", "A fresh process reproduces what another did not."
    GPU_TROUBLE = "gpu_trouble", "A GPU is lost, or something is wrong with it; the line says what."
    GPU_LEFT = "gpu_left", "A model moved away from a GPU, to a rung that was proven without one."
    GPU_RETURNED = (
        "gpu_returned",
        "A model moved back to a GPU, to the rung that it had left.",
    )
    REQUEST_POISONED = "request_poisoned", "A request that ended two workers was given up."

    BUILDER_CONFINED = "builder_confined", "A builder closed its sandbox; the line has its level."
    BUILD_UNTOLD = (
        "build_untold",
        "A builder got no thread to tell from how far it is; it builds without a word.",
    )
    ENGINE_BUILT = "engine_built", "A builder made an engine, which is in the cache now."
    ENGINE_REUSED = "engine_reused", "An engine of the cache fits in every part of its key."
    ENGINE_CARRIED = "engine_carried", "An engine that the bundle brings along fits this host."
    ENGINE_SET_ASIDE = (
        "engine_set_aside",
        "What served cannot come back with its bundle's own engine; it is built here.",
    )
    ENGINE_DAMAGED = (
        "engine_damaged",
        "A cached engine is not as it was written, or was refused; it goes.",
    )
    ENGINE_REMOVED = "engine_removed", "An engine unused for long made room in the cache."

    REQUEST_FAILED = "request_failed", "A model or its code failed on one request."
    ORDER_FAILED = "order_failed", "A worker could not carry out what the daemon told it."
    LANE_CLOSED = "lane_closed", "A worker closed a lane whose peer sent no valid frames."
    LANE_REFUSED = "lane_refused", "A worker could not take one more lane."
    GATEWAY_LANE_LOST = (
        "gateway_lane_lost",
        "A worker said what is no answer; its lane was ended, and another one is made.",
    )
    GATEWAY_MISTAKE = "gateway_mistake", "The gateway failed on one message and went on."
    CONTROL_CHANNEL_BROKEN = (
        "control_channel_broken",
        "A child got what is no order, and ended itself.",
    )

    INFERENCE = (
        "inference",
        "One request, as the inference log has it, where it goes to the journal.",
    )
    INFERENCE_LOG_FAILED = (
        "inference_log_failed",
        "Lines of the inference log could not be written and are lost.",
    )
    RECORDS_LEFT_OUT = (
        "records_left_out",
        "Requests were picked to be told of, and there were too many at a time.",
    )
    SPANS_NOT_TAKEN = "spans_not_taken", "The collector does not take spans; said once."
    SPANS_TAKEN_AGAIN = "spans_taken_again", "The collector takes spans again."

    # Health.
    HEALTH_CHANGED = "health_changed", "The overall status became better or worse."
    HEALTH_WRITE_FAILED = "health_write_failed", "health.json could not be written."
    METRICS_WRITE_FAILED = "metrics_write_failed", "The metrics file could not be written."
    METRICS_ENDPOINT_OPENED = (
        "metrics_endpoint_opened",
        "The HTTP endpoint of metrics and probes listens.",
    )
    METRICS_ENDPOINT_CLOSED = (
        "metrics_endpoint_closed",
        "The HTTP endpoint could not listen; it is tried again.",
    )


# What a child may tell by itself. A worker runs a bundle's code, which can write any line: what the
# daemon says of itself, its audit trail above all, is never taken from there.
CHILDREN_TELL: Final = frozenset(
    {
        Event.BUILDER_CONFINED,
        Event.BUILD_UNTOLD,
        Event.CLIENT_CLOSED,
        Event.CLIENT_REFUSED,
        Event.CONTROL_CHANNEL_BROKEN,
        Event.GATEWAY_MISTAKE,
        Event.LANE_CLOSED,
        Event.LANE_REFUSED,
        Event.ORDER_FAILED,
        Event.REQUEST_FAILED,
        Event.TCP_CLIENT_ACCEPTED,
        Event.TCP_CLIENT_CUT,
        Event.TCP_CLIENT_REFUSED,
        Event.WORKER_CONFINED,
    }
)
