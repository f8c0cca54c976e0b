#!/bin/sh
# make-env.sh URL: write .env out of .env.example with fresh secrets.
set -eu
cd "$(dirname "$0")/.."
if [ $# = 0 ]; then
    echo "usage: $0 https://edgewise.example" >&2
    exit 2
fi
if [ -e .env ]; then
    echo ".env is there already; change it by hand, its secrets are in use" >&2
    exit 1
fi
url=$1
host=$(echo "$url" | sed -E 's#^[a-z]+://(\[[^]]+\]|[^/:]+).*#\1#')
umask 077
while IFS= read -r line; do
    case $line in
        EDGEWISE_URL=*) echo "EDGEWISE_URL=$url" ;;
        SITE_HOST=*) echo "SITE_HOST=$host" ;;
        *=change-me) echo "${line%change-me}$(openssl rand -hex 32)" ;;
        *) echo "$line" ;;
    esac
done <.env.example >.env.part
mv .env.part .env
echo ".env written for $url; next: docker compose build && docker compose up -d"
