#!/usr/bin/env bash
# Resolve requirements*.in into requirements*.txt, with the hashes of every file of a
# version (all platforms, all Pythons). Run with the oldest supported Python, so that
# no version is chosen that has dropped it. pip-tools stands in an environment of its
# own: it needs pip's internals, and must not decide about the project's pip.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q pip-tools
# A folder of local wheels must not decide about the hashes.
unset PIP_FIND_LINKS
for name in requirements-build requirements requirements-dev requirements-bench requirements-bqemulator; do
  echo "lock: $name.txt"
  CUSTOM_COMPILE_COMMAND="make lock" "$work/venv/bin/pip-compile" -q --generate-hashes --strip-extras \
    --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
    "$@" -o "$name.txt" "$name.in"
done
# Airflow's 140 packages: pip-tools would download every file of each to hash it, 10 GB; uv takes the index's hashes.
echo "lock: requirements-airflow.txt"
"$work/venv/bin/pip" install -q uv
"$work/venv/bin/uv" pip compile -q --generate-hashes --universal --python-version 3.11 --no-emit-index-url \
  --custom-compile-command "make lock" "$@" -o requirements-airflow.txt requirements-airflow.in
