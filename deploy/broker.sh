#!/bin/sh
# broker.sh site|devices: start one of the two brokers; broker.sh ping site|devices: is it well?
#
# BROKER_PASSWORD opens it. The devices' broker speaks TLS only (certificates of make-certs.sh in
# BROKER_CERTS), its default user is off, and the site is the user "edgewise"; a device gets a user
# of its own when it enrols. It refuses writes when it is full, so a device that floods it cannot
# push out what others wait for.
set -eu
folder=${BROKER_DIR:-/run/broker}
certs=${BROKER_CERTS:-/certs}
bind=${BROKER_BIND:-*}

if [ "$1" = ping ]; then
    export REDISCLI_AUTH="$BROKER_PASSWORD"
    if [ "$2" = devices ]; then
        set -- --tls --cacert "$certs/ca.crt" --user edgewise -p "${BROKER_PORT:-6380}"
    else
        set -- -p "${BROKER_PORT:-6379}"
    fi
    [ "$(redis-cli --no-auth-warning "$@" ping)" = PONG ]
    exit
fi

umask 077
mkdir -p "$folder"
hash=$(printf %s "$BROKER_PASSWORD" | sha256sum | cut -d' ' -f1)
common="bind $bind
dir $folder
save \"\"
appendonly no
maxmemory ${BROKER_MAXMEMORY:-256mb}
tcp-keepalive 60"

case $1 in
    site)
        # The cache's entries have an end and may go when memory is short; messages have none.
        cat >"$folder/broker.conf" <<EOF
$common
port ${BROKER_PORT:-6379}
maxmemory-policy volatile-lru
user default on #$hash ~* &* +@all
EOF
        ;;
    devices)
        cp "$certs/broker.crt" "$certs/broker.key" "$certs/ca.crt" "$folder/"
        cat >"$folder/broker.conf" <<EOF
$common
port 0
tls-port ${BROKER_PORT:-6380}
tls-cert-file $folder/broker.crt
tls-key-file $folder/broker.key
tls-ca-cert-file $folder/ca.crt
tls-auth-clients no
tls-protocols "TLSv1.2 TLSv1.3"
maxmemory-policy noeviction
user default off
user edgewise on #$hash ~* &* +@all
EOF
        ;;
    *)
        echo "name site or devices" >&2
        exit 2
        ;;
esac
unset BROKER_PASSWORD

# In the image of Redis its entry point gives up root first.
if command -v docker-entrypoint.sh >/dev/null; then
    chown -R redis: "$folder"
    exec docker-entrypoint.sh redis-server "$folder/broker.conf"
fi
exec redis-server "$folder/broker.conf"
