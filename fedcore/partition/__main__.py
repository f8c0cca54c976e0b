"""``python -m fedcore.partition``: what each device would hold, as text and as a picture."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fedcore.errors import EdgewiseError
from fedcore.partition.drawing import draw
from fedcore.partition.kinds import SYNTAX
from fedcore.partition.split import Split, SplitConfig, as_text, split
from fedcore.train.datasets import Source, column_of, open_rows


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m fedcore.partition", description=__doc__)
    made.add_argument("--data", required=True, help="a .jsonl, .csv or .parquet file, or a name")
    made.add_argument("--partition", default="iid", help=SYNTAX)
    made.add_argument("--label-column", default="", help="the labels to deal out and to show")
    made.add_argument("--devices", type=int, default=0, help="0: 3, or one per value of the column")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--png", metavar="FILE", help="draw it into this file")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 for bad input, said on one line."""
    args = parser().parse_args(arguments)
    wanted = SplitConfig(args.partition, args.label_column, args.devices, args.seed)
    try:
        found = split_of(args.data, wanted)
        print(as_text(found))
        if args.png:
            draw(found, Path(args.png))
    except (EdgewiseError, OSError) as error:
        print(f"partition: {error}", file=sys.stderr)
        return 2
    return 0


def split_of(data: str, wanted: SplitConfig) -> Split:
    """The split that a simulation of the same file and options trains on. Raises DataError."""
    source = Source(data)
    with tempfile.TemporaryDirectory(prefix="edgewise-partition-") as folder:
        rows = open_rows(source, Path(folder))
        return split(wanted, len(rows), lambda name: column_of(source, rows, name))


if __name__ == "__main__":
    sys.exit(main())
