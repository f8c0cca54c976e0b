"""REST resource: cost plans of a job on enrolled or described devices."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedcore.architecture.sizes import architecture_of
from fedcore.errors import Fault, SpecError
from fedcore.plan.fleet_file import KEYS, fleet_from
from fedcore.plan.planner import FleetPlan, plan_fleet
from fedcore.plan.report import fleet_values
from fedcore.spec.parse import parse_spec
from webapp.accounts.models import Role
from webapp.api.base import Resource
from webapp.jobs.analysis.device_history import devices_with_data
from webapp.jobs.planning.candidates import last_trainings
from webapp.jobs.planning.job_estimate import eligible

Json = dict[str, Any]
DEVICE: Json = {
    "type": "object",
    "required": ["machine", "link", "examples"],
    "additionalProperties": False,
    "properties": {key: {} for key in KEYS},
}
REQUEST = {
    "application/json": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "spec": {"$ref": "#/components/schemas/JobSpec"},
            "devices": {"type": "array", "minItems": 1, "maxItems": 1000, "items": DEVICE},
        },
    }
}


class OptionalFloat(serializers.FloatField):
    """A figure that is null if unknown."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_null=True, **kwargs)


class PlannedSerializer(serializers.Serializer[Any]):
    ranks = serializers.DictField(
        child=serializers.IntegerField(), help_text="rank of each adapted matrix"
    )
    matrices = serializers.IntegerField(help_text="matrices that could be adapted")
    batch_size = serializers.IntegerField()
    at_once = serializers.IntegerField(help_text="examples at a time")
    base = serializers.CharField(help_text="precision of the frozen weights")
    score = serializers.FloatField(help_text="share of the score of all matrices at full rank")
    memory_bytes = serializers.FloatField(help_text="at its peak, at most")
    train_s = OptionalFloat(help_text="of local training in a round, at most")
    why = serializers.CharField()


class DevicePlanSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    fits = serializers.BooleanField()
    why = serializers.CharField(allow_blank=True, help_text="why it does not fit")
    precision = serializers.CharField()
    micro_batch = serializers.IntegerField(help_text="examples at a time")
    steps = serializers.IntegerField(help_text="of a round")
    memory_bytes = OptionalFloat(help_text="at its peak")
    memory_parts = serializers.DictField(child=serializers.FloatField())
    step_s = OptionalFloat()
    step_phases = serializers.DictField(child=serializers.FloatField())
    mfu = OptionalFloat()
    flops_per_byte = OptionalFloat()
    round_s = OptionalFloat(help_text="without waiting for others")
    round_phases = serializers.DictField(child=OptionalFloat())
    bytes_down = serializers.IntegerField(help_text="a mean of the rounds, where it grows")
    bytes_down_last = serializers.IntegerField(help_text="in the last round")
    bytes_up = serializers.IntegerField()
    codec = serializers.CharField(help_text="of its updates")
    compute_j = OptionalFloat()
    communication_j = OptionalFloat()
    waiting_j = OptionalFloat()
    granularity = OptionalFloat(help_text="seconds of training over seconds of transfers")
    cost_usd = OptionalFloat(help_text="of the link, a round")
    notes = serializers.ListField(child=serializers.CharField())
    planned = PlannedSerializer(
        allow_null=True, help_text="FedPipe's plan before its probe, with equal scores"
    )


class BestChangeSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    text = serializers.CharField()
    round_s = OptionalFloat()
    fitting = serializers.IntegerField(help_text="devices that fit with it")
    saved = serializers.FloatField(help_text="share of a round")


class PlanSerializer(serializers.Serializer[Any]):
    devices = DevicePlanSerializer(many=True)
    fitting = serializers.IntegerField()
    rounds = serializers.IntegerField()
    updates = serializers.IntegerField(help_text="that make a model")
    round_s = OptionalFloat()
    total_s = OptionalFloat()
    total_j = OptionalFloat()
    total_bytes = serializers.IntegerField(
        allow_null=True, help_text="both ways, of all devices over all rounds"
    )
    slowest = serializers.CharField(allow_blank=True)
    best_change = BestChangeSerializer(allow_null=True)


class Plans(Resource):
    serializer_class = PlanSerializer
    pagination_class = None
    filter_backends = []
    roles = {"create": Role.VIEWER}

    @extend_schema(request=REQUEST, responses={200: PlanSerializer})
    def create(self, request: Request) -> Response:
        """Plan each device's memory, step, round, bytes and joules, and the best saving. Nothing is
        stored.

        Without `devices` the enrolled ones that hold data for the job; else those described, with
        the keys of a fleet file (docs/guides/estimate-cost.md). `null` is an unknown figure.
        """
        return Response(PlanSerializer(fleet_values(_plan(request.data))).data)


def _plan(body: Any) -> FleetPlan:
    """Raises SpecError with all faults of the job, then with all faults of the devices."""
    if not isinstance(body, dict):
        raise SpecError([Fault("", "give an object with spec and optionally devices")])
    unknown = [key for key in body if key not in ("spec", "devices")]
    faults = [Fault(str(key)[:100], "unknown; known: spec, devices") for key in unknown]
    try:
        spec = parse_spec(body.get("spec", {}))
    except SpecError as error:
        faults += [Fault(f"spec.{fault.path}".rstrip("."), fault.message) for fault in error.faults]
        raise SpecError(faults) from error
    if faults:
        raise SpecError(faults)
    sizes = architecture_of(spec.model.name)
    if sizes is None:
        text = f"the sizes of {spec.model.name} are unknown"
        raise SpecError([Fault("spec.model.name", text)])
    if "devices" not in body:
        rows = list(devices_with_data().filter(revoked_at=None).order_by("name"))
        return plan_fleet(spec, sizes, eligible(spec, rows, last_trainings(rows)))
    described = body["devices"]
    if not isinstance(described, list):
        raise SpecError([Fault("devices", "give a list of devices")])
    return plan_fleet(spec, sizes, fleet_from(described, spec))
