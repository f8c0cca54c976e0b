#!/bin/sh
# broker.sh: start the site's broker (Valkey or Redis). broker.sh ping: does it answer?
#
# BROKER_PASSWORD opens it. It stores nothing on disk: the database has everything that matters.
set -eu
folder=${BROKER_DIR:-/run/broker}
port=${BROKER_PORT:-6379}

program() { command -v "valkey-$1" || command -v "redis-$1"; }

if [ "${1:-}" = ping ]; then
    export VALKEYCLI_AUTH="$BROKER_PASSWORD" REDISCLI_AUTH="$BROKER_PASSWORD"
    [ "$("$(program cli)" --no-auth-warning -p "$port" ping)" = PONG ]
    exit
fi

umask 077
mkdir -p "$folder"
hash=$(printf %s "$BROKER_PASSWORD" | sha256sum | cut -d' ' -f1)
unset BROKER_PASSWORD
# The cache's entries have an end and may go when memory is short; messages have none.
cat >"$folder/broker.conf" <<EOF
bind ${BROKER_BIND:-*}
port $port
dir $folder
save ""
appendonly no
maxmemory ${BROKER_MAXMEMORY:-256mb}
maxmemory-policy volatile-lru
tcp-keepalive 60
user default on #$hash ~* &* +@all
EOF
exec "$(program server)" "$folder/broker.conf"
