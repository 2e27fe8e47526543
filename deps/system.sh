#!/bin/sh
# The system packages Mysti is built and tested with, and whether they are here. Says what is missing with
# the exact line that installs it; as root it installs by itself (MYSTI_NO_APT=1 forbids that).
#   deps/system.sh [build|test]
set -eu
what=${1:-build}
me=$(basename "$0")

packages="gcc make cmake git python3 pkg-config libuv1-dev libjansson-dev libyaml-dev libpng-dev libjpeg-dev libwebp-dev libsqlite3-dev
  libcurl4-openssl-dev"
if [ "$what" = test ]; then # cmocka for the unit tests, a browser for the page, clang for libFuzzer
    packages="$packages libcmocka-dev chromium clang libclang-rt-dev"
fi

# Node may come from anywhere (nvm, NodeSource, Debian): ask the program, not the package.
node_major=$(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/' || true)
if [ -z "$node_major" ] || ! command -v npm >/dev/null 2>&1; then
    packages="$packages nodejs npm"
elif [ "$node_major" -lt 18 ]; then
    echo "$me: node $node_major is too old, Mysti's page needs 18 or newer" >&2
    packages="$packages nodejs npm"
fi

have() {
    case $1 in
    gcc | make | cmake | git | python3) command -v "$1" >/dev/null 2>&1 ;;
    pkg-config) command -v pkg-config >/dev/null 2>&1 ;;
    clang) command -v clang >/dev/null 2>&1 ;;
    libclang-rt-dev) ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a >/dev/null 2>&1 ;;
    chromium) command -v chromium >/dev/null 2>&1 ;;
    libuv1-dev) pkg-config --exists libuv 2>/dev/null ;;
    libjansson-dev) pkg-config --exists jansson 2>/dev/null ;;
    libyaml-dev) pkg-config --exists yaml-0.1 2>/dev/null ;;
    libpng-dev) pkg-config --exists libpng 2>/dev/null ;;
    libjpeg-dev) pkg-config --exists libjpeg 2>/dev/null ;;
    libwebp-dev) pkg-config --exists libwebp 2>/dev/null ;;
    libcurl4-openssl-dev) pkg-config --exists libcurl 2>/dev/null ;;
    libsqlite3-dev) pkg-config --exists sqlite3 2>/dev/null ;;
    libcmocka-dev) pkg-config --exists cmocka 2>/dev/null ;;
    *) return 1 ;;
    esac
}

missing=
for p in $packages; do
    have "$p" || missing="$missing $p"
done
# Debian 13 and newer have these themselves; on Debian 12 deps/fetch.sh brings them.
for p in libllhttp-dev libdnnl-dev; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' $p 2>/dev/null)" = installed ] && continue
    version=$(apt-cache policy $p 2>/dev/null | sed -n 's/ *Candidate: //p')
    case $version in '' | '(none)' | [012].* ) continue ;; esac
    missing="$missing $p"
done

[ -z "$missing" ] && exit 0
line="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" = 0 ] && [ -z "${MYSTI_NO_APT:-}" ]; then
    echo "$me: installing$missing (Debian packages, about a minute)"
    log=$(mktemp)
    # shellcheck disable=SC2086
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive $line; } >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        echo "$me: apt could not install$missing; the whole log is $log" >&2
        exit 1
    fi
    rm -f "$log"
else
    echo "$me: these Debian packages are missing:$missing" >&2
    echo "$me: install them with:  sudo apt-get update && sudo $line" >&2
    exit 1
fi
