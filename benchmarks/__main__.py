"""``python -m benchmarks NAME [--json] …``: run one benchmark, or all of them, and print what it found.

A benchmark is a file here whose name has no underscore before it. It has ``run(options)``, which returns plain JSON values,
``render(result)``, which writes them as text, and if it wants options ``add_options(parser)``. ``QUICK`` are the arguments
it gets from ``all``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks._harness import BenchmarkError, say


def main(arguments: list[str]) -> int:
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    name = arguments[0] if arguments else "--help"
    if name == "all":
        return _run_all(names, as_json="--json" in arguments)
    if name not in names:
        print(
            f"usage: python -m benchmarks NAME [--json] [options of that benchmark]\n\nNAME is {', '.join(names)}, or all.\n"
            "python -m benchmarks NAME --help lists its options; benchmarks/README.md says what it measures.",
            file=sys.stdout if name in {"-h", "--help"} else sys.stderr,
        )
        return 0 if name in {"-h", "--help"} else 2
    module = importlib.import_module(f"benchmarks.{name}")
    result = module.run(_options(name, module, arguments[1:]))
    print(json.dumps(result) if "--json" in arguments else module.render(result))
    return 0


def _options(name: str, module: Any, arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=module.__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON document")
    if hasattr(module, "add_options"):
        module.add_options(parser)
    return parser.parse_args(arguments)


def _run_all(names: list[str], *, as_json: bool) -> int:
    results = {}
    for name in names:
        say(name)
        module = importlib.import_module(f"benchmarks.{name}")
        results[name] = module.run(_options(name, module, getattr(module, "QUICK", [])))
        if not as_json:
            print(f"\n== {name}\n\n{module.render(results[name])}", flush=True)
    if as_json:
        print(json.dumps(results))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BenchmarkError as exc:
        sys.exit(f"benchmarks: {exc}")
