"""Combinations that a job specification refuses: rules about the group ``method``."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

from fedcore.errors import Fault
from fedcore.families import member_rows
from fedcore.spec.job import JobSpec
from fedcore.spec.options.method import OF_METHOD, MethodKind
from fedcore.spec.rules.contract import Rule, Rules
from fedcore.topology import parents_of


def _method_faults(spec: JobSpec) -> list[Fault]:
    """Options of other methods, which this job's does not read; then its method's own rules."""
    default, name, faults = JobSpec(), spec.method.name, []
    for path, owner in OF_METHOD.items():
        if owner != name and attrgetter(path)(spec) != attrgetter(path)(default):
            message = f"is only for the method {owner}, but this job's is {name}"
            faults.append(Fault(path, f"{message}; leave one out or change the other"))
    for rule in METHOD_RULES[spec.method.family.kind].always:
        faults.extend(rule(spec))
    return faults


def launch_faults(spec: JobSpec) -> list[Fault]:
    """Why a job cannot be launched on devices, though a simulation runs it."""
    rules = METHOD_RULES[spec.method.family.kind].on_launch
    return [fault for rule in rules for fault in rule(spec)]


def training_devices(spec: JobSpec) -> tuple[str, ...]:
    """The devices that may train, by name; none named: any.

    Where devices keep their weights, a device trains only as a child of a named parent.
    """
    keeps = spec.method.family.keeps_weights_on_device
    children = tuple(sorted(parents_of(spec.tree.parents))) if keeps else ()
    return spec.participation.devices or children


METHOD_RULES: Mapping[MethodKind, Rules] = member_rows(
    MethodKind, "fedcore.spec.rules.methods.{}", Rules
)
RULES: tuple[Rule, ...] = (_method_faults,)
