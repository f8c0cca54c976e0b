"""FLARE's FedAvg over one array of pseudo-random numbers."""

import time

import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.fedavg import FedAvg


class Echo(FedAvg):  # type: ignore[misc]
    def __init__(self, num_clients: int, num_rounds: int, floats: int) -> None:
        super().__init__(num_clients=num_clients, num_rounds=num_rounds)
        self.floats = floats

    def load_model(self) -> FLModel:
        numbers = np.random.default_rng(0).standard_normal(self.floats, dtype=np.float32)
        return FLModel(params={"w": numbers})

    def save_model(self, model: FLModel) -> None:
        del model
        print(f"ROUND-ENDED {time.time():.6f}", flush=True)
