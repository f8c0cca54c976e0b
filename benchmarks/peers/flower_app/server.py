"""Flower's FedAvg over one array of pseudo-random numbers."""

import time

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()  # type: ignore[untyped-decorator]
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    devices, floats = int(config["devices"]), int(config["floats"])
    numbers = np.random.default_rng(0).standard_normal(floats, dtype=np.float32)
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=devices, min_available_nodes=devices)
    strategy.start(
        grid, ArrayRecord([numbers]), num_rounds=int(config["rounds"]), evaluate_fn=ended
    )


def ended(number: int, arrays: ArrayRecord) -> MetricRecord:
    del arrays
    if number:
        print(f"ROUND-ENDED {time.time():.6f}", flush=True)
    return MetricRecord({"round": number})
