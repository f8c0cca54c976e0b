"""The agent with its real trainer: trains a tiny model, without torch in the parent."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.agent.conftest import AgentProcess, wait_for
from tests.agent.stand_in import JOB_ID, StandIn
from tests.fedcore.conftest import make_model, sentences, spec_of, write_jsonl
from workers.agent.profile import local_datasets


def loads_torch(pid: int) -> bool:
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_tiny_model_is_trained_and_evaluated(
    agent: AgentProcess, server: StandIn, tmp_path: Path
) -> None:
    from fedcore.model.initial import write_initial
    from fedcore.wire.frame import check_frame, read_header

    model = make_model(tmp_path / "tiny")
    spec = spec_of(model, train={"local_steps": 30, "precision": "auto"})
    write_initial(spec, tmp_path / "global.safetensors")
    weights = (tmp_path / "global.safetensors").read_bytes()
    rows = write_jsonl(tmp_path / "law.jsonl", sentences(1, 24))
    dataset = local_datasets.parse(f"law={rows}")
    local_datasets.describe_all(agent.state_dir, [dataset], agent.state_dir / "cache")

    agent.start(module="workers.agent")
    assert server.hellos[-1]["datasets"][0]["examples"] == 24
    trained = server.offer("tiny", spec=spec, weights=weights)
    evaluated = server.offer("tiny", "evaluate", spec=spec, weights=weights)
    elsewhere = server.offer("tiny", spec=spec, weights=weights, dataset="clinic")
    wait_for(lambda: elsewhere.phase == "refuse", 60)

    metrics = trained.report["metrics"]
    assert metrics["steps"] == 30
    # The profile says that bf16 was the quicker one, and the job leaves the choice to the device.
    assert metrics["precision"] == "bf16"
    assert metrics["mfu_peak_flops"] == 2e9
    assert metrics["mfu"] > 0
    assert metrics["phase_s"]["backward"] > 0
    assert trained.report["examples"] == 20
    path = tmp_path / "update.safetensors"
    path.write_bytes(trained.update)
    meta = {
        "kind": "update",
        "job": JOB_ID,
        "round": "1",
        "base": hashlib.sha256(weights).hexdigest(),
        "slot": "0",
    }
    check_frame(path, read_header(tmp_path / "global.safetensors").shapes, meta, 10**6)
    assert {"rouge1", "rouge2", "rougeL", "loss", "tokens", "seconds"} <= set(
        evaluated.report["metrics"]
    )
    assert "has no dataset 'clinic'; its datasets are: law" in elsewhere.failure["reason"]
    samples = [item["values"] for item in server.samples.values()]
    wait_for(lambda: any("mfu" in item["values"] for item in server.samples.values()))
    samples = [item["values"] for item in server.samples.values() if "mfu" in item["values"]]
    assert {"loss", "tokens_per_s", "forward_s", "mfu_peak_flops", "memory_bytes"} <= set(
        samples[0]
    )
    assert not loads_torch(agent.pid)
    assert any(loads_torch(pid) for pid in agent.children())
