#!/bin/sh
# Build Cronally's wheel from SOURCE and install it into TARGET, a new virtual environment, with what the lock pins and
# nothing else: no file comes in whose hash is not in requirements.lock or requirements-build.lock.
set -eu
source=$1
target=$2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/build"
pip() { "$work/build/bin/python" -m pip --disable-pip-version-check "$@"; }
pip install --quiet --require-hashes --requirement "$source/requirements-build.lock"
"$work/build/bin/python" -m build --no-isolation --wheel --outdir "$work" "$source" >/dev/null

python3 -m venv --without-pip "$target"  # an installer is of no use where nothing is installed any more
pip --python "$target/bin/python" install --quiet --require-hashes --requirement "$source/requirements.lock"
pip --python "$target/bin/python" install --quiet --no-deps --no-index "$work"/cronally-*.whl
"$target/bin/cronally" --version
