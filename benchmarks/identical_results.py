"""``python -m benchmarks identical_results``: compare the bits that two versions compute.

Each case is one short deterministic simulation: one for each strategy, fold, low-rank rule,
method, codec, adapter kind and base precision. ``--demo`` adds the demo's job on its real site
(seed 7, fp32, one thread). The checkout at ``--root`` computes the results, so a table written by
one version can be checked with another on the same machine. Digests depend on the processor and on
the version of torch; the table names both.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("identical_results.json")
DOMAINS = ("clinic", "law", "workshop")
EXAMPLES = 40
COMMON = (
    "--partition column:domain --model nano --rounds 2 --local-steps 3 --batch-size 4 "
    "--precision fp32 --threads 1 --seed 7 --deterministic --max-source-tokens 128 "
    "--max-target-tokens 24 --max-validation-examples 4"
)
BUFFERED = "--mode buffered --buffer-size 2 --speeds 1,2,3 --link wifi-5 --step-seconds 0.1"
CASES: Mapping[str, str] = {
    "strategy fedavg": "--strategy fedavg",
    "strategy fedavgm": "--strategy fedavgm --momentum 0.5",
    "strategy fedprox": "--strategy fedprox --proximal-mu 0.1",
    "strategy fedadam": "--strategy fedadam --server-learning-rate 0.01",
    "strategy fedadamw": "--strategy fedadamw --server-learning-rate 0.01",
    "strategy fedyogi": "--strategy fedyogi --server-learning-rate 0.01",
    "strategy fedadagrad": "--strategy fedadagrad --server-learning-rate 0.01",
    "strategy fednova": "--strategy fednova",
    "strategy qfedavg": "--strategy qfedavg --fairness-q 1",
    "strategy scaffold": "--strategy scaffold --optimizer sgd --learning-rate 0.05",
    "fold mean": "--set strategy.fold=mean",
    "fold trimmed_mean": "--set strategy.fold=trimmed_mean --set strategy.trim=0.34",
    "fold median": "--set strategy.fold=median",
    "fold buffered": BUFFERED,
    "fold buffered polynomial": f"{BUFFERED} --staleness-discount polynomial",
    "fold tree": "--tree law=clinic",
    "clipped updates": "--set strategy.clip_update_norm=0.01",
    "rule fedit": "--adapter-rule fedit",
    "rule ffa": "--adapter-rule ffa",
    "rule fedex": "--adapter-rule fedex",
    "rule flexlora": "--adapter-rule flexlora",
    "rule flexlora, ranks 2 4 8": "--adapter-rule flexlora --ranks 2,4,8",
    "rule stack": "--adapter-rule stack",
    "rule stack, ranks 2 4 8": "--adapter-rule stack --ranks 2,4,8",
    "method none": "--method none",
    "method fedjudge": "--method fedjudge --rounds 3",
    "method pftt": "--method pftt",
    "method pfit": "--method pfit",
    "method fedpipe": "--method fedpipe",
    "method agglomerative": "--method agglomerative --without-flat",
    "codec fp16": "--set wire.uplink=fp16",
    "codec bf16": "--set wire.uplink=bf16 --set wire.downlink=bf16",
    "codec int8": "--set wire.uplink=int8 --set wire.downlink=int8",
    "codec int4": "--set wire.uplink=int4",
    "codec top-k": "--set wire.uplink=int8 --set wire.top_k=0.1",
    "codec zstd": "--set wire.compress=true",
    "adapter lora": "--adapter lora --rank 4",
    "adapter bottleneck": "--adapter bottleneck",
    "adapter layers": "--adapter layers",
    "adapter full": "--adapter full",
    "base int8": "--set model.base=int8",
    "base nf4": "--set model.base=nf4",
}
# Clock readings are not results, and the specification is an input.
CLOCKS = {"seconds", "phase_s", "spec"}
# These scripts run inside the checkout under test and use only what every version has.
SIMULATE = """
import json, os, sys
from fedcore.simulate.__main__ import main
codes = {}
for name, arguments, path in json.load(sys.stdin):
    print('==', name, flush=True)
    codes[name] = main([*arguments, '--json', path])
json.dump(codes, open(sys.argv[1], 'w'))
"""
DEMO = """
import sys
from workers.demo import __main__ as demo
demo.SPEC['train']['precision'] = 'fp32'
demo.SPEC['deterministic'] = True
sys.exit(demo.main())
"""


def digest(value: Any) -> str:
    """SHA-256 of a result's JSON without what clocks measured."""
    plain = json.dumps(_without_clocks(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()


def _without_clocks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_clocks(item) for key, item in value.items() if key not in CLOCKS}
    if isinstance(value, list):
        return [_without_clocks(item) for item in value]
    return value


def simulations(root: Path, python: str, names: Sequence[str]) -> dict[str, str]:
    """The digest of each named case, as the checkout at ``root`` computes it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "dialogues.jsonl"
        for domain in DOMAINS:
            command = [python, "-m", "fedcore.dialogues", "--domain", domain]
            command += ["--count", str(EXAMPLES), "--seed", "5"]
            with data.open("ab") as out:
                subprocess.run(command, cwd=root, stdout=out, check=True)
        results = {case: folder / f"{number}.json" for number, case in enumerate(names)}
        tasks = [
            (case, ["--data", str(data), *COMMON.split(), *CASES[case].split()], str(path))
            for case, path in results.items()
        ]
        command = [python, "-c", SIMULATE, str(folder / "codes.json")]
        subprocess.run(
            command, cwd=root, input=json.dumps(tasks), text=True, check=True, env=single_threaded()
        )
        codes = json.loads((folder / "codes.json").read_text())
        if failed := [case for case, code in codes.items() if code]:
            raise SystemExit(f"refused or failed: {', '.join(failed)}")
        return {case: digest(json.loads(path.read_text())) for case, path in results.items()}


def single_threaded() -> dict[str, str]:
    """The environment of runs whose bits are compared: one thread, no hub."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def demo(root: Path, python: str) -> dict[str, str]:
    """SHA-256 of the tensors in the adapter that the demo's job ends with (seed 7, fp32)."""
    with tempfile.TemporaryDirectory() as name:
        command = [python, "-c", DEMO, "--folder", name, "--port", "8123", "--exit"]
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, check=True, env=single_threaded()
        )
        result = json.loads(done.stdout.splitlines()[-1])
        return {"demo": adapter_digest(Path(result["artefact_path"]))}


def adapter_digest(path: Path) -> str:
    """SHA-256 of the safetensors file inside an adapter's zip."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".safetensors")]
        return hashlib.sha256(b"".join(archive.read(name) for name in sorted(names))).hexdigest()


def this_machine(python: str) -> dict[str, str]:
    """The processor by model and instruction sets, and the version of torch."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    numbers = [fields.get(key, "?") for key in ("cpu family", "model", "stepping")]
    flags = hashlib.sha256(fields.get("flags", "").encode()).hexdigest()
    version = [python, "-c", "import torch; print(torch.__version__)"]
    return {
        "processor": f"{fields.get('model name', platform.machine())} {'-'.join(numbers)}",
        "instruction_sets_sha256": flags[:16],
        "torch": subprocess.run(version, capture_output=True, text=True, check=True).stdout.strip(),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout that computes")
    parser.add_argument("--python", default=sys.executable, help="the interpreter to use")
    parser.add_argument("--table", type=Path, default=TABLE, help="the table to check or write")
    parser.add_argument("--write", action="store_true", help="write the table instead")
    parser.add_argument("--demo", action="store_true", help="run the demo's job too: two minutes")
    parser.add_argument("--only", default="", help="run only cases whose name contains this text")


def run(options: argparse.Namespace) -> int:
    """Return 0 if every digest equals the table's, else 1 with one line per difference."""
    cases = [case for case in CASES if options.only in case]
    digests = simulations(options.root, options.python, cases)
    if options.demo:
        digests |= demo(options.root, options.python)
    machine = this_machine(options.python)
    if options.write:
        text = json.dumps({"machine": machine, "sha256": digests}, indent=1)
        options.table.write_text(text + "\n", encoding="utf-8")
        return 0
    table = json.loads(options.table.read_text("utf-8"))
    if table["machine"] != machine:
        print(f"the table was made on {table['machine']}, this is {machine}", file=sys.stderr)
    expected = table["sha256"]
    differences = []
    for case, digest in digests.items():
        if case not in expected:
            differences.append(f"{case}: not in the table")
        elif expected[case] != digest:
            differences.append(f"{case}: {expected[case][:12]} in the table, {digest[:12]} now")
    print("\n".join(differences) or f"{len(digests)} results are identical")
    return 1 if differences else 0
