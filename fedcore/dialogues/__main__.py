"""Write dialogues as JSON lines: python -m fedcore.dialogues --domain clinic --count 300."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from fedcore.dialogues.examples import DOMAINS, generate


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fedcore.dialogues", description=__doc__)
    parser.add_argument("--domain", choices=DOMAINS, required=True)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSONL file; standard output without it")
    args = parser.parse_args(argv)
    examples = generate(args.domain, args.count, args.seed)
    lines = "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in examples)
    if args.out is None:
        sys.stdout.write(lines)
    else:
        args.out.write_text(lines, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
