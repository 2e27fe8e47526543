#!/bin/sh
# clang-tidy and cppcheck over our own code, with the compile commands of build/. Slow (minutes), so it is a
# target of its own and not part of make test. Exit 1 when either has something to say.
set -eu
cd "$(dirname "$0")/.."
[ -e build/compile_commands.json ] || cmake -S . -B build >/dev/null
status=0
git ls-files 'src/*.c' | xargs -P "$(nproc)" -n 4 clang-tidy -p build --quiet 2>/dev/null >build/lint-tidy.log || true
grep -E 'warning:|error:' build/lint-tidy.log | sort -u && status=1
cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --suppress=missingIncludeSystem \
    --suppress=normalCheckLevelMaxBranches -j "$(nproc)" -I src src 2>build/lint-cppcheck.log || true
cat build/lint-cppcheck.log
[ -s build/lint-cppcheck.log ] && status=1
exit $status
