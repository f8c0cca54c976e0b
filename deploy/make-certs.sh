#!/bin/sh
# make-certs.sh HOST...: an authority of your own and a certificate for the devices' broker.
#
# HOST is each name or address under which devices reach the broker. Everything goes to
# deploy/certs (CERTS overrides). Run it again to renew the broker's certificate or to add a host:
# the authority stays, so devices keep the ca.crt they have.
set -eu
cd "$(dirname "$0")"
certs=${CERTS:-certs}
if [ $# = 0 ]; then
    echo "usage: $0 HOST..." >&2
    exit 2
fi
umask 077
mkdir -p "$certs"
cd "$certs"

if [ ! -f ca.key ]; then
    openssl ecparam -genkey -name prime256v1 -noout -out ca.key
    openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj "/CN=Edgewise authority" \
        -addext "basicConstraints=critical,CA:TRUE,pathlen:0" \
        -addext "keyUsage=critical,keyCertSign,cRLSign" -out ca.crt
fi

# The server's own processes call it by the name of its service.
names="DNS:redis-devices,DNS:localhost,IP:127.0.0.1"
for host in "$@"; do
    case $host in
        *[!0-9.]*)
            case $host in
                *:*) names="$names,IP:$host" ;;
                *) names="$names,DNS:$host" ;;
            esac
            ;;
        *) names="$names,IP:$host" ;;
    esac
done
extensions=$(mktemp)
trap 'rm -f "$extensions" broker.csr' EXIT
cat >"$extensions" <<EOF
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = $names
EOF
openssl ecparam -genkey -name prime256v1 -noout -out broker.key.part
openssl req -new -key broker.key.part -subj "/CN=$1" -out broker.csr
openssl x509 -req -in broker.csr -CA ca.crt -CAkey ca.key -CAcreateserial -sha256 -days 825 \
    -extfile "$extensions" -out broker.crt.part 2>/dev/null
mv broker.key.part broker.key
mv broker.crt.part broker.crt
# Devices and the server's processes read the authority; the keys are their owner's alone.
chmod 755 .
chmod 644 ca.crt broker.crt
echo "$PWD: broker.crt for $names until$(openssl x509 -noout -enddate -in broker.crt | cut -d= -f2 | sed 's/^/ /')"
echo "give ca.crt to the devices (EDGEWISE_CA_FILE); keep ca.key off line"
