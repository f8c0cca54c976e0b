"""Opens datasets in a process of its own: JSON on standard input, JSON on standard output."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fedcore.errors import EdgewiseError
from fedcore.train.datasets import Source, describe


def _told(item: dict[str, str], cache_dir: Path) -> dict[str, Any]:
    source = Source(item["source"], item["text_column"], item["summary_column"], item["domain"])
    try:
        info = describe(source, cache_dir)
    except EdgewiseError as error:
        return {"fault": str(error)}
    return {
        "name": item["name"],
        "domain": info.domain,
        "examples": info.examples,
        "size_bytes": info.bytes,
        "columns": [name[:200] for name in info.columns[:200]],
    }


def main() -> None:
    asked = json.load(sys.stdin)
    answers = [_told(item, Path(asked["cache_dir"])) for item in asked["datasets"]]
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
