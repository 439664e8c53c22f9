#!/bin/sh
# Installs what the tests need beside Python: Java and Maven (the broker), Node.js (the example client), iproute2 (a
# machine that is gone), and promtool, which is taken out of Debian's package into the folder $1, since the server in the package is not wanted.
# Does nothing where all of it is there. Without root and apt it says what is missing; the tests that need it say so too.
set -eu
into=$1
missing=''
want() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
want java openjdk-17-jre-headless
want mvn maven
want node nodejs
want npm npm
want ip iproute2
promtool=''
command -v promtool >/dev/null 2>&1 || promtool=prometheus
[ -n "$missing$promtool" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "not installed, so tests that need it cannot run: apt-get install$missing $promtool" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086 # a list of packages
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
if [ -n "$promtool" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    chmod 755 "$work" # apt's sandbox user writes here
    (cd "$work" && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb . && cp usr/bin/promtool "$into")
fi
