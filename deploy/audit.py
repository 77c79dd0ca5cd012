"""Ask the Python Packaging Advisory Database about every version that requirements.lock pins: ``make audit``.

Exit codes: 0 nothing is known against any, 1 something is, 75 it could not be asked, so that nothing is known at all.
pip-audit by itself calls it a success when the service knows none of the packages, which a mirror or a filter can bring about.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"
_OUT_OF_REACH = 75  # EX_TEMPFAIL, sysexits.h
_TIMEOUT_S = 15


def main() -> int:
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--requirement",
        str(LOCK),
        "--require-hashes",
        "--disable-pip",
    ]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", str(_TIMEOUT_S)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        return _unknown(said[-1])
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    found = [(package, one) for package in packages for one in package.get("vulns", [])]
    for package, one in found:
        fixed = ", ".join(one["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {one['id']}, fixed in {fixed}")
    if not packages:
        return _unknown("it looked at no package")
    if skipped:
        return _unknown(
            f"it knows nothing of {len(skipped)} of {len(packages)} packages, such as {skipped[0]}"
        )
    print(f"{len(packages)} packages, {len(found)} known vulnerabilities")
    return 1 if found else 0


def _unknown(why: str) -> int:
    print(f"audit: the advisory service is out of reach, so nothing is known: {why[:300]}", file=sys.stderr)
    return _OUT_OF_REACH


if __name__ == "__main__":
    sys.exit(main())
