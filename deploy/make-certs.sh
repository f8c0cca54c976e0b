#!/bin/sh
# make-certs.sh HOST...: an authority of your own and a certificate for the site's proxy.
#
# For sites that no public authority can reach. HOST is each name or address of the site. Everything
# goes to deploy/certs (CERTS overrides). Run it again to renew the certificate or to add a host: the
# authority stays, so devices keep the ca.crt they have.
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

names="DNS:localhost,IP:127.0.0.1"
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
trap 'rm -f "$extensions" site.csr' EXIT
cat >"$extensions" <<EOF
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = $names
EOF
openssl ecparam -genkey -name prime256v1 -noout -out privkey.pem.part
openssl req -new -key privkey.pem.part -subj "/CN=$1" -out site.csr
openssl x509 -req -in site.csr -CA ca.crt -CAkey ca.key -CAcreateserial -sha256 -days 825 \
    -extfile "$extensions" -out fullchain.pem.part 2>/dev/null
mv privkey.pem.part privkey.pem
mv fullchain.pem.part fullchain.pem
# Devices read the authority; the keys are their owner's alone.
chmod 755 .
chmod 644 ca.crt fullchain.pem
echo "$PWD: fullchain.pem for $names until$(openssl x509 -noout -enddate -in fullchain.pem | cut -d= -f2 | sed 's/^/ /')"
echo "the proxy reads privkey.pem as root; give ca.crt to the devices (EDGEWISE_CA_FILE); keep ca.key off line"
