"""Opens datasets in a separate process: JSON on standard input and output."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fedcore.errors import EdgewiseError
from fedcore.train.datasets import Source, describe


def describe_dataset(item: dict[str, str], cache_dir: Path) -> dict[str, Any]:
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
    request = json.load(sys.stdin)
    cache_dir = Path(request["cache_dir"])
    print(json.dumps([describe_dataset(item, cache_dir) for item in request["datasets"]]))


if __name__ == "__main__":
    main()
