"""``python -m workers.demo``: the whole product on this machine, from nothing to a tuned model."""
