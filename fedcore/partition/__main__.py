"""``python -m fedcore.partition``: show how a dataset is split over devices."""

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
    cli = argparse.ArgumentParser(prog="python -m fedcore.partition", description=__doc__)
    cli.add_argument("--data", required=True, help="a .jsonl, .csv or .parquet file, or a name")
    cli.add_argument("--partition", default="iid", help=SYNTAX)
    cli.add_argument("--label-column", default="", help="labels to split by and to show")
    cli.add_argument("--devices", type=int, default=0, help="0: 3, or one per value of the column")
    cli.add_argument("--seed", type=int, default=0)
    cli.add_argument("--png", metavar="FILE", help="also draw a picture")
    return cli


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 2 for invalid input."""
    args = parser().parse_args(arguments)
    config = SplitConfig(args.partition, args.label_column, args.devices, args.seed)
    try:
        result = split_of(args.data, config)
        print(as_text(result))
        if args.png:
            draw(result, Path(args.png))
    except (EdgewiseError, OSError) as error:
        print(f"partition: {error}", file=sys.stderr)
        return 2
    return 0


def split_of(data: str, config: SplitConfig) -> Split:
    """The split that a simulation with the same file and options uses. Raises DataError."""
    source = Source(data)
    with tempfile.TemporaryDirectory(prefix="edgewise-partition-") as folder:
        rows = open_rows(source, Path(folder))
        return split(config, len(rows), lambda name: column_of(source, rows, name))


if __name__ == "__main__":
    sys.exit(main())
