"""``python -m workers.demo``: the whole product on this machine, from start to a tuned model."""
