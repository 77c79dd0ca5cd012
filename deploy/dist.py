"""Make what is released: a wheel, an sdist, their bill of materials and the checksums of all: ``make dist``.

Each is looked at before it counts: that the wheel is the same when it is built again from the sdist, has its man pages and
licence, and runs where nothing but what requirements.lock pins is installed.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import venv
from email.parser import BytesParser
from pathlib import Path
from zipfile import ZipFile

from cronally import __version__
from cronally.cli.manual import pages

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
WHEEL = f"cronally-{__version__}-py3-none-any.whl"
SDIST = f"cronally-{__version__}.tar.gz"
BILL = f"cronally-{__version__}.cdx.json"
_SUMS = "SHA256SUMS"


def main() -> int:
    DIST.mkdir(exist_ok=True)
    for old in [*DIST.glob("cronally-*"), DIST / _SUMS]:
        old.unlink(missing_ok=True)
    _run("-m", "build", "--no-isolation", "--outdir", DIST, ROOT)  # an sdist, and of it the wheel
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        _run("-m", "build", "--no-isolation", "--wheel", "--outdir", scratch, ROOT)
        _expect(
            (scratch / WHEEL).read_bytes() == (DIST / WHEEL).read_bytes(), "the wheel of the sdist is another"
        )
        _look_into(DIST / WHEEL)
        _bill(_installed(scratch / "venv"))
    made = sorted(path for path in DIST.iterdir() if path.name != _SUMS and path.is_file())
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made]
    (DIST / _SUMS).write_text("".join(lines))
    for path in made:
        print(f"dist/{path.name}: {path.stat().st_size:,} bytes")
    print(f"dist/{_SUMS}: sha256sum --check {_SUMS}")
    return 0


def _look_into(wheel: Path) -> None:
    with ZipFile(wheel) as file:
        names = set(file.namelist())
        info = f"cronally-{__version__}.dist-info"
        metadata = BytesParser().parsebytes(file.read(f"{info}/METADATA"))
    _expect(metadata["Version"] == __version__, f"METADATA has the version {metadata['Version']}")
    _expect(metadata["License-Expression"] == "MIT", "METADATA has no licence")
    _expect(f"{info}/licenses/LICENSE" in names, "the licence is missing")
    man = f"cronally-{__version__}.data/data/share/man/man1"
    missing = [page for page in pages() if f"{man}/{page}" not in names]
    _expect(not missing, f"man pages are missing: {missing[:3]}")
    strange = [name for name in names if not name.startswith(("cronally/", info, man))]
    _expect(not strange, f"it has what does not belong there: {strange[:3]}")


def _installed(environment: Path) -> Path:
    """Install the wheel with what the lock pins, and nothing else, in a new environment; return its Python."""
    venv.create(environment, with_pip=False)
    python = environment / "bin/python"
    pip = ("-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet")
    _run(*pip, "--require-hashes", "--requirement", ROOT / "requirements.lock")
    _run(*pip, "--no-deps", "--no-index", DIST / WHEEL)
    _run("-m", "pip", "--python", python, "check")
    said = subprocess.run(
        [environment / "bin/cronally", "--version"], stdout=subprocess.PIPE, text=True, check=True
    )
    _expect(said.stdout == f"cronally {__version__}\n", f"--version says {said.stdout!r}")
    return python


def _bill(python: Path) -> None:
    _run(
        "-m", "cyclonedx_py", "environment", python, "--pyproject", ROOT / "pyproject.toml", "--mc-type", "application",
        "--output-reproducible", "--gather-license-texts", "--output-format", "JSON", "--output-file", DIST / BILL,
    )  # fmt: skip
    bill = json.loads((DIST / BILL).read_text())
    # It reads pyproject.toml, where the version is not.
    bill["metadata"]["component"] |= {"version": __version__, "purl": f"pkg:pypi/cronally@{__version__}"}
    (DIST / BILL).write_text(json.dumps(bill, indent=2) + "\n")


def _run(*words: str | Path) -> None:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    said = "\n".join([*done.stdout.splitlines()[-5:], *done.stderr.splitlines()[-5:]])
    _expect(done.returncode == 0, f"{' '.join(map(str, words[:3]))} has failed:\n{said}")


def _expect(is_right: bool, otherwise: str) -> None:
    if not is_right:
        sys.exit(f"dist: {otherwise}")


if __name__ == "__main__":
    sys.exit(main())
