#!/bin/sh
# Brings what this Debian lacks into private prefixes under .deps/, one folder per Debian release:
#   stable   Debian 13: what we link (oneDNN, llhttp) with the C library of that release
#   testing  Debian 14: llama-server and its ggml plug-ins, a process of its own
# apt itself resolves, downloads and verifies (the system's debian-archive-keyring), with a state folder of
# its own: no root, nothing installed on the system. A prefix is replaced as a whole, and only by a complete
# one: when the archive is out of reach or in transition the last good prefix stays. What was fetched is in
# .deps/<release>.manifest (package, version, SHA-256).
#   deps/fetch.sh [--refresh] [stable] [testing]
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
root=${MYSTI_DEPS:-$here/.deps}
mirror=${MYSTI_DEBIAN_MIRROR:-http://deb.debian.org/debian}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
arch=$(dpkg --print-architecture)
refresh=
wanted=

say() { echo "deps: $*"; }

for arg in "$@"; do
    case $arg in
    --refresh) refresh=1 ;;
    stable | testing) wanted="$wanted $arg" ;;
    -h | --help) sed -n '2,10p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
    *) echo "deps/fetch.sh: unknown argument '$arg'; it takes --refresh, stable, testing" >&2; exit 2 ;;
    esac
done

suite_of() { case $1 in stable) echo trixie ;; testing) echo forky ;; esac; }
# ggml is younger than Debian 13 and comes to it by way of its backports.
backports_of() { case $1 in stable) echo trixie-backports ;; esac; }
packages_of() {
    case $1 in
    # libuv, jansson and the picture formats again, so that a process on this prefix has all its libraries from one release
    stable) echo libdnnl-dev libllhttp-dev libuv1t64 libjansson4 libpng16-16t64 libjpeg62-turbo libwebp7 \
        libgomp1 libggml-dev ;;
    # the Vulkan back end finds a card by the driver that the system has, and is silent without one
    testing) echo llama.cpp-tools libggml0 libggml0-backend-vulkan ;;
    esac
}
# Does the system itself have it? Then no prefix is made.
system_has() {
    case $1 in
    stable)
        [ -e "/usr/lib/$(gcc -print-multiarch)/libllhttp.a" ] &&
            [ -e /usr/include/oneapi/dnnl/dnnl_ukernel.h ]
        ;;
    testing) command -v llama-server >/dev/null 2>&1 ;;
    esac
}

# Was everything that is wanted now fetched then? A newer Mysti may need more than the prefix of an older one has.
is_complete() {
    for package in $(packages_of "$1"); do
        grep -q "^$package " "$root/$1.manifest" 2>/dev/null || return 1
    done
}

fetch() {
    release=$1
    suite=$(suite_of "$release")
    prefix=$root/$release
    state=$root/apt/$release
    new=$root/$release.new
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    : >"$state/status"
    for part in $suite $(backports_of "$release"); do
        echo "deb [signed-by=$keyring arch=$arch] $mirror $part main"
    done >"$state/sources.list"
    set -- -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::Etc::preferencesparts=- -o "Dir::State::Lists=$state/lists" \
        -o "Dir::Cache=$state/cache" -o "Dir::State::status=$state/status" \
        -o "APT::Architecture=$arch" -o "APT::Architectures=$arch" -o APT::Sandbox::User=root \
        -o APT::Install-Recommends=false -o Acquire::Retries=2 -o Acquire::Languages=none \
        -o Acquire::http::Timeout=20 -o Dir::Log="$state"
    apt-get "$@" -q update -o APT::Update::Error-Mode=any >"$state/apt.log" 2>&1 || return 1
    rm -f "$state"/cache/archives/*.deb
    # shellcheck disable=SC2046
    apt-get "$@" -q -y --download-only -o Debug::NoLocking=1 install $(packages_of "$release") \
        >>"$state/apt.log" 2>&1 || return 1
    rm -rf "$new"
    mkdir -p "$new"
    : >"$state/manifest"
    for deb in "$state"/cache/archives/*.deb; do
        # maintainer scripts never run: only libraries and programs are used
        case ${deb##*/} in
        debconf_* | dpkg_* | tar_* | perl-base_* | cdebconf* | install-info_*) continue ;;
        esac
        dpkg -x "$deb" "$new"
        echo "$(dpkg-deb -W --showformat='${Package} ${Version}' "$deb")" \
            "$(sha256sum "$deb" | cut -d' ' -f1)" >>"$state/manifest"
    done
    check "$release" "$new" || return 1
    rm -rf "$prefix.old"
    [ -e "$prefix" ] && mv "$prefix" "$prefix.old"
    mv "$new" "$prefix"
    cp "$state/manifest" "$root/$release.manifest.new"
    mv "$root/$release.manifest.new" "$root/$release.manifest"
    rm -rf "$prefix.old" "$state"/cache/archives/*.deb
}

# A prefix counts as good when what it is for starts: the library is there with its C library, or the
# program answers its version through the prefix's own loader.
check() {
    lib=$2/usr/lib/$(gcc -print-multiarch)
    loader=$(ls "$lib"/ld-linux*.so.* 2>/dev/null | head -n 1)
    [ -n "$loader" ] || { echo "no loader in $lib" >>"$root/apt/$1/apt.log"; return 1; }
    case $1 in
    stable) [ -e "$lib/libllhttp.a" ] && [ -e "$lib/libdnnl.so" ] ;;
    testing)
        "$loader" --library-path "$lib:$lib/llama" "$2/usr/bin/llama-server" --version \
            >>"$root/apt/$1/apt.log" 2>&1
        ;;
    esac
}

mkdir -p "$root"
for release in ${wanted:-stable testing}; do
    if system_has "$release"; then
        say "$release: the system has it, no prefix needed"
        continue
    fi
    if is_complete "$release" && [ -z "$refresh" ]; then
        continue
    fi
    say "$release: fetching $(packages_of "$release") from Debian $(suite_of "$release") (20 s to 2 min)"
    began=$(date +%s)
    if fetch "$release"; then
        say "$release: $(wc -l <"$root/$release.manifest") packages in $(($(date +%s) - began)) s," \
            "recorded in ${root#"$here"/}/$release.manifest"
    elif is_complete "$release"; then
        say "$release: the archive did not give a complete set (see $root/apt/$release/apt.log);" \
            "keeping the last good prefix of $(date -r "$root/$release.manifest" +%F)"
    else
        tail -n 12 "$root/apt/$release/apt.log" >&2
        say "$release: the archive at $mirror did not give a complete set and no earlier prefix that would do is here." >&2
        say "Check the network, or set MYSTI_DEBIAN_MIRROR; the log is $root/apt/$release/apt.log" >&2
        exit 1
    fi
done
