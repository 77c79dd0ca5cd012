"""``python -m benchmarks NAME [--json]``: run one benchmark and print its result."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path


def main() -> int:
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure Cronally beside its peers."
    )
    parser.add_argument("name", choices=names, metavar="NAME", help=f"one of: {', '.join(names)}")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON document")
    chosen = parser.parse_args()
    module = importlib.import_module(f"benchmarks.{chosen.name}")
    result = module.run()
    print(json.dumps(result) if chosen.json else module.render(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
