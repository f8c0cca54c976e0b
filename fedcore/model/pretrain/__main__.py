"""Pre-train `nano` from random weights on the repository's own dialogues."""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import T5ForConditionalGeneration

from fedcore.model.pretrain.nano import PretrainRecipe, nano_model, nano_tokenizer, train


def save_checkpoint(model: T5ForConditionalGeneration, out: Path) -> None:
    """bf16 weights in `out`, the shared embedding once; the model in memory keeps its precision."""
    weights = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if not name.endswith("embed_tokens.weight")
    }
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(out)
    model.generation_config.save_pretrained(out)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fedcore.model.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--state",
        type=Path,
        help="where an interrupted run is kept, to go on from (default: OUT.state beside OUT)",
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    recipe = PretrainRecipe(steps=args.steps, seed=args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    state = args.state or args.out.with_name(args.out.name + ".state")
    tokenizer = nano_tokenizer(recipe)
    tokenizer.save_pretrained(args.out)
    model = nano_model(len(tokenizer), recipe.seed)
    train(model, tokenizer, recipe, state, lambda line: print(line, flush=True))
    save_checkpoint(model, args.out)
    state.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
