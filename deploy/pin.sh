#!/bin/sh
# Write constraints.txt again: the version of everything that the requirements files only imply.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
header='# What the requirements files only imply, pinned too. Written by `make constraints`; do not edit.'
echo "$header" >constraints.txt
VENV=$folder/venv deploy/venv.sh requirements-dev.txt
"$folder/venv/bin/python" deploy/pin.py >>constraints.txt
echo "constraints.txt: $(grep -c == constraints.txt) versions" >&2
