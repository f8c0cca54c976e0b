"""Every transition of a synchronous round."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fedcore.rounds.types import RoundEvent, RoundState
from fedcore.topology import clusters
from tests.fedcore.rounds.rounds import (
    BROKEN,
    DEADLINE,
    DONE,
    DUE,
    NOW,
    POLICY,
    SILENT,
    STOP,
    a_round,
    part,
    scored,
    tick,
)


@dataclass(frozen=True)
class Transition:
    """``effects`` in short: 'offer a', 'revoke a', 'aggregate a b', 'closed', 'failed'."""

    before: RoundState
    event: RoundEvent
    after: str
    effects: tuple[str, ...] = ()
    reason: str = ""


BOTH = part("a", "reported"), part("b", "reported")
CLUSTER = clusters({"b": "a"})
TRANSITIONS = {
    "a planned round is offered to its members": Transition(
        a_round("planned"), tick(), "broadcasting", ("offer a", "offer b")
    ),
    "round 0 only evaluates": Transition(
        a_round("planned", number=0), tick(), "evaluating", ("offer a", "offer b")
    ),
    "a planned round can be stopped": Transition(
        a_round("planned"), STOP, "failed", ("failed",), "the job was paused"
    ),
    "nothing was aggregated before it began": Transition(a_round("planned"), DONE, "planned"),
    "nothing failed to aggregate before it began": Transition(
        a_round("planned"), BROKEN, "planned"
    ),
    "clusters are folded before the server aggregates": Transition(
        a_round("folding", *BOTH, clusters=CLUSTER), tick(), "folding", ("offer a",)
    ),
    "nothing is aggregated while clusters are folded": Transition(
        a_round("folding", *BOTH, clusters=CLUSTER), DONE, "folding"
    ),
    "nothing fails to aggregate while clusters are folded": Transition(
        a_round("folding", *BOTH, clusters=CLUSTER), BROKEN, "folding"
    ),
    "a folding round can be stopped": Transition(
        a_round("folding", *BOTH, clusters=CLUSTER), STOP, "failed", ("failed",)
    ),
    "no device has accepted an offer yet": Transition(
        a_round("broadcasting", part("a", "offered"), part("b", "offered")),
        tick(),
        "broadcasting",
    ),
    "the first acceptance starts the collection": Transition(
        a_round("broadcasting", part("a", "accepted"), part("b", "offered")), tick(), "collecting"
    ),
    "a refusal starts the collection too": Transition(
        a_round("broadcasting", part("a", "refused"), part("b", "offered")), tick(), "collecting"
    ),
    "all updates may arrive at once": Transition(
        a_round("broadcasting", part("a", "reported"), part("b", "reported")),
        tick(),
        "aggregating",
        ("aggregate a b",),
    ),
    "unaccepted offers fail the round at its deadline": Transition(
        a_round("broadcasting", part("a", "offered"), part("b", "offered")),
        tick(DUE),
        "failed",
        ("revoke a", "revoke b", "failed"),
        "0 of 1 needed devices reported by the deadline",
    ),
    "the quorum waits for the others": Transition(
        a_round("collecting", part("a", "reported"), part("b", "training")), tick(), "collecting"
    ),
    "the target closes the collection and revokes the rest": Transition(
        a_round(
            "collecting",
            part("a", "reported"),
            part("b", "training"),
            part("c", "reported"),
            members=("a", "b", "c"),
        ),
        tick(),
        "aggregating",
        ("revoke b", "aggregate a c"),
    ),
    "the quorum suffices at the deadline": Transition(
        a_round("collecting", part("a", "reported"), part("b", "training", lease_until=NOW + 1000)),
        tick(DUE),
        "aggregating",
        ("revoke b", "aggregate a"),
    ),
    "the quorum suffices when no other device can": Transition(
        a_round("collecting", part("a", "reported"), part("b", "refused", reason="no data")),
        tick(),
        "aggregating",
        ("aggregate a",),
    ),
    "too few updates at the deadline fail the round": Transition(
        a_round("collecting", part("a", "training", lease_until=NOW + 1000), part("b", "offered")),
        tick(DUE),
        "failed",
        ("revoke a", "revoke b", "failed"),
        "0 of 1 needed devices reported by the deadline",
    ),
    "too few updates fail the round when no device can retry": Transition(
        a_round(
            "collecting",
            part("a", "refused", reason="no dataset 'law'"),
            part("b", "failed", retryable=False, reason="loss is NaN"),
        ),
        tick(),
        "failed",
        ("failed",),
        "and no other device can: a: no dataset 'law'; b: loss is NaN",
    ),
    "a silent device loses its lease and gets another offer": Transition(
        a_round("collecting", part("a", "training", **SILENT), part("b", "training")),
        tick(),
        "collecting",
        ("revoke a", "offer a"),
    ),
    "a silent device gets an offer when it returns": Transition(
        a_round("collecting", part("a", "training", **SILENT), part("b", "training")),
        tick(online=frozenset("b")),
        "collecting",
        ("revoke a",),
    ),
    "a device that returned gets another offer": Transition(
        a_round("collecting", part("a", "expired"), part("b", "training")),
        tick(),
        "collecting",
        ("offer a",),
    ),
    "a device gets at most max_attempts offers": Transition(
        a_round("collecting", part("a", "expired"), part("a", "expired", 2), part("b", "training")),
        tick(),
        "collecting",
    ),
    "a retryable failure gets another offer": Transition(
        a_round("collecting", part("a", "failed"), part("b", "training")),
        tick(),
        "collecting",
        ("offer a",),
    ),
    "a permanent failure gets no other offer": Transition(
        a_round("collecting", part("a", "failed", retryable=False), part("b", "training")),
        tick(),
        "collecting",
    ),
    "a refusal gets no other offer": Transition(
        a_round("collecting", part("a", "refused"), part("b", "training")), tick(), "collecting"
    ),
    "an offer has no lease": Transition(
        a_round("collecting", part("a", "offered", **SILENT), part("b", "training")),
        tick(),
        "collecting",
    ),
    "a pause revokes the collection": Transition(
        a_round("collecting", part("a", "reported"), part("b", "training")),
        STOP,
        "failed",
        ("revoke b", "failed"),
        "the job was paused",
    ),
    "an aggregation during the collection is ignored": Transition(
        a_round("collecting", part("a", "training")), DONE, "collecting"
    ),
    "a failed aggregation during the collection is ignored": Transition(
        a_round("collecting", part("a", "training")), BROKEN, "collecting"
    ),
    "the aggregation may use its time limit": Transition(
        a_round("aggregating", part("a", "reported")), tick(), "aggregating"
    ),
    "an overdue aggregation fails the round": Transition(
        a_round("aggregating", part("a", "reported")),
        tick(DUE),
        "failed",
        ("failed",),
        "no worker aggregated the updates within 50 s",
    ),
    "the new model is evaluated": Transition(
        a_round("aggregating", part("a", "reported"), part("b", "reported")),
        DONE,
        "evaluating",
        ("offer a", "offer b"),
    ),
    "a model without evaluators closes the round": Transition(
        a_round("aggregating", part("a", "reported"), part("b", "reported"), evaluators=()),
        DONE,
        "closed",
        ("closed",),
    ),
    "round 0 without evaluators closes at once": Transition(
        a_round("planned", number=0, evaluators=()), tick(), "closed", ("closed",)
    ),
    "the evaluation has its own deadline": Transition(
        a_round(
            "evaluating",
            scored("a", "reported"),
            scored("b", "training", lease_until=NOW + 1000),
            policy=replace(POLICY, deadline_s=5.0, evaluation_s=DEADLINE),
        ),
        tick(6.0),
        "evaluating",
    ),
    "a failed aggregation fails the round": Transition(
        a_round("aggregating", part("a", "reported")), BROKEN, "failed", ("failed",), "no space"
    ),
    "a pause revokes the aggregation": Transition(
        a_round("aggregating", part("a", "reported")), STOP, "failed", ("failed",)
    ),
    "the round waits for evaluations": Transition(
        a_round("evaluating", scored("a", "reported"), scored("b", "training")),
        tick(),
        "evaluating",
    ),
    "all evaluations close the round": Transition(
        a_round("evaluating", scored("a", "reported"), scored("b", "reported")),
        tick(),
        "closed",
        ("closed",),
    ),
    "the deadline closes a round with a missing evaluation": Transition(
        a_round("evaluating", scored("a", "reported"), scored("b", "offered")),
        tick(DUE),
        "closed",
        ("revoke b", "closed"),
        "1 evaluation is missing",
    ),
    "the deadline closes a round without evaluations": Transition(
        a_round("evaluating", scored("a", "refused"), scored("b", "refused")),
        tick(),
        "closed",
        ("closed",),
        "2 evaluations are missing",
    ),
    "round 0 without any evaluation fails": Transition(
        a_round(
            "evaluating",
            scored("a", "refused", reason="no dataset 'law'"),
            scored("b", "offered"),
            number=0,
        ),
        tick(DUE),
        "failed",
        ("revoke b", "failed"),
        "no device could evaluate the model: a: no dataset 'law'",
    ),
    "round 0 with one evaluation closes": Transition(
        a_round("evaluating", scored("a", "reported"), scored("b", "refused"), number=0),
        tick(),
        "closed",
        ("closed",),
    ),
    "a silent evaluator gets another offer": Transition(
        a_round("evaluating", scored("a", "training", **SILENT), scored("b", "reported")),
        tick(),
        "evaluating",
        ("revoke a", "offer a"),
    ),
    "a pause retains an aggregated model": Transition(
        a_round("evaluating", scored("a", "reported"), scored("b", "training")),
        STOP,
        "closed",
        ("revoke b", "closed"),
        "the job was paused",
    ),
    "a pause gives the start up": Transition(
        a_round("evaluating", scored("a", "training"), number=0),
        STOP,
        "failed",
        ("revoke a", "failed"),
    ),
    "aggregated twice is aggregated once": Transition(
        a_round("evaluating", scored("a", "training")), DONE, "evaluating"
    ),
    "too late to fail": Transition(
        a_round("evaluating", scored("a", "training")), BROKEN, "evaluating"
    ),
    **{
        f"{phase} stays {phase} after {type(event).__name__}": Transition(
            a_round(phase, part("a", "training", **SILENT)), event, phase
        )
        for phase in ("closed", "failed")
        for event in (tick(DUE), DONE, BROKEN, STOP)
    },
}
