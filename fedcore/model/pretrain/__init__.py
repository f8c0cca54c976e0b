"""Makes `nano`, the checkpoint the repository carries: python -m fedcore.model.pretrain."""
