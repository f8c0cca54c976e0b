"""``python flare_job.py FLOATS DEVICES ROUNDS``, run inside FLARE's own environment."""

import sys
from pathlib import Path

from echo_server import Echo
from nvflare.job_config.api import FedJob
from nvflare.job_config.script_runner import FrameworkType, ScriptRunner

HERE = Path(__file__).parent

if __name__ == "__main__":
    floats, devices, rounds = (int(text) for text in sys.argv[1:])
    job = FedJob(name="echo", min_clients=devices)
    job.to_server(Echo(num_clients=devices, num_rounds=rounds, floats=floats))
    for number in range(devices):
        runner = ScriptRunner(script=str(HERE / "flare_client.py"), framework=FrameworkType.NUMPY)
        job.to(runner, f"site-{number + 1}")
    job.simulator_run(str(HERE.parent / "work"), threads=devices)
