"""Fresh interpreters: the plan half, and what workers import early, load no tensor library."""

from __future__ import annotations

import subprocess
import sys

import pytest

PLAN = (
    "fedcore.spec.parse", "fedcore.rounds.sampling", "fedcore.partition", "fedcore.plan.cost.flops",
    "fedcore.formats.frame_header", "fedcore.export.lora", "fedcore.catalogue",
    "fedcore.formats.codec_choice", "fedcore.formats.update_header", "fedcore.formats.wire_offer",
)  # fmt: skip
HEAVY = {"torch", "transformers", "peft", "datasets", "safetensors"}


# Imported by the agent before it forks, and there torch must not be.
AGENT = (
    "workers.agent.assignment.error_feedback",
    "workers.agent.assignment.model_step",
    "workers.agent.assignment.runner",
)


@pytest.mark.parametrize("early", [PLAN, AGENT], ids=["plan", "agent"])
def test_the_plan_half_loads_no_tensor_library(early: tuple[str, ...]) -> None:
    assert not HEAVY & loaded(early)


def test_session_defers_slow_imports() -> None:
    modules = loaded(
        ("fedcore.methods.session", "fedcore.aggregation.next_model", "fedcore.model.initial")
    )
    assert "torch" in modules and not {"transformers", "peft", "datasets"} & modules


def loaded(modules: tuple[str, ...]) -> set[str]:
    code = f"import sys; import {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())
