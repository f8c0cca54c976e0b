#!/bin/sh
# venv.sh REQUIREMENTS: install a requirements file into $VENV (.venv), unless it is there already.
# Everything is said on stderr, so a target's stdout stays its own.
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
wanted=$1
stamp=$venv/.installed-$wanted
say() { echo "$*" >&2; }

# The files that decide what is installed; the development set contains the server's.
device="requirements-device.txt requirements-common.txt"
server="requirements.txt requirements-web.txt $device"
case $wanted in
    requirements-dev.txt) files="requirements-dev.txt requirements-study.txt $server" ;;
    requirements-study.txt) files="requirements-study.txt $device" ;;
    requirements.txt) files=$server ;;
    requirements-device.txt) files=$device ;;
    *) files=$wanted ;;
esac
# shellcheck disable=SC2086
hash=$(cat $files constraints.txt | sha256sum | cut -d' ' -f1)
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$hash" ]; then
    exit 0
fi

python=
for candidate in python3.11 python3.12 python3.13 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    say "Python 3.11 or newer is needed; on Debian: apt-get install python3 python3-venv"
    exit 1
fi
# Debian keeps the part of venv that installs pip in a package of its own.
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing python3-venv ..."
        { apt-get update -qq && apt-get install -y -qq python3-venv; } >&2
    else
        say "$python has no venv; on Debian: apt-get install python3-venv"
        exit 1
    fi
fi
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    say "making $venv with $("$python" --version) ..."
    "$python" -m venv --clear "$venv" >&2
fi
say "installing $wanted into $venv (the first time takes minutes: torch alone is large) ..."
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$wanted" >&2
echo "$hash" >"$stamp"
if [ "$wanted" = requirements-dev.txt ]; then
    # shellcheck disable=SC2086
    cat $server constraints.txt | sha256sum | cut -d' ' -f1 \
        >"$venv/.installed-requirements.txt"
fi
say "installed"
