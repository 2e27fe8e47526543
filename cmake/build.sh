#!/bin/sh
# Builds everything into build/bin: what is missing is fetched, then the programs, the page, and the starter
# models beside them. Says what it does and how long each part took; the compilers' output goes to
# build/build_<part>.log and is shown when a part fails.
#   MYSTI_BUILD_TYPE=Debug|Release   MYSTI_WERROR=ON for warnings as errors
set -eu
cd "$(dirname "$0")/.."
began=$(date +%s)
jobs=$(nproc)

say() { echo "build: $*"; }

# step NAME LOG COMMAND...: runs it with its output in the log
step() {
    name=$1
    log=$2
    shift 2
    at=$(date +%s)
    if ! "$@" >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        say "$name failed; the whole log is $log" >&2
        exit 1
    fi
    say "$name ($(($(date +%s) - at)) s)"
}

deps/system.sh build
deps/fetch.sh
mkdir -p build/bin
step "configured" build/build_configure.log cmake -S . -B build -G "Unix Makefiles" \
    -DCMAKE_BUILD_TYPE="${MYSTI_BUILD_TYPE:-Release}" -DMYSTI_WERROR="${MYSTI_WERROR:-OFF}" \
    -DMYSTI_TESTS="$(pkg-config --exists cmocka && echo ON || echo OFF)"
step "mysti_server" build/build_server.log cmake --build build -j "$jobs" --target mysti_server mysti
step "mysti_sd_worker" build/build_sd_worker.log cmake --build build -j "$jobs" --target mysti_sd_worker
step "mysti_llm_worker" build/build_llm_worker.log cmake --build build -j "$jobs" --target mysti_llm_worker

page() {
    # Not `npm ci`: newer ones refuse a lock file that lacks optional packages of other platforms, and a
    # registry mirror may not have those. `install` keeps to the locked versions as well.
    [ -d web/node_modules ] && [ web/node_modules -nt web/package-lock.json ] ||
        npm --prefix web install --no-audit --no-fund --no-save
    touch web/node_modules
    npm --prefix web run build
}
if [ ! -e build/bin/public/index.html ] ||
    [ -n "$(find web -path web/node_modules -prune -o -newer build/bin/public/index.html -type f -print -quit)" ]; then
    step "page" build/build_page.log page
fi

mkdir -p build/bin/models
rm -rf build/bin/models/starter
cp -R models/starter build/bin/models/starter
say "everything is in build/bin after $(($(date +%s) - began)) s"
