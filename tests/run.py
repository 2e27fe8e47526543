#!/usr/bin/env python3
"""Runs Mysti's tests and ends with one line: N passed, N failed.

usage: tests/run.py [SUITE...] [--seconds S]

Suites, in the order in which they run (all without an argument):
  tree    rules of the source tree: who may include whom, what must not be in the repo
  unit    every ctest program of build/: units, goldens, one back end against the other
  asan    the same under AddressSanitizer and UBSan, for all that needs no prefix
  fuzz    each libFuzzer target from its seeds, S seconds each (default 5)
  page    the page's own unit tests
  api     black box: the real server with scripted workers, node:test
  e2e     the real engines, the real page in Chromium, the official client
  chaos   workers and server killed under load, a few times each, and 200 mixed jobs in too little memory (make chaos:
          200 times, 2,000 jobs)
Each suite says what it runs and how long it took. The output of what failed is shown, the rest is in
build/test-<suite>.log.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
JOBS = str(os.cpu_count() or 1)


def run(command, log, **options):
    """The command's output, which also goes to the log; and its exit status."""
    with open(log, "a", encoding="utf-8") as f:
        f.write("$ " + " ".join(map(str, command)) + "\n")
        f.flush()
        p = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT,
                           text=True, errors="replace", check=False, **options)
        f.write(p.stdout + "\n")
    return p.stdout, p.returncode


def ctest(folder, log):
    out, status = run(["ctest", "--test-dir", folder, "--output-on-failure", "--timeout", "600"], log)
    m = re.search(r"(\d+) tests? failed out of (\d+)", out)
    if not m:
        return 0, 1, out
    failed, total = int(m[1]), int(m[2])
    if total == 0 or (status != 0 and failed == 0):
        failed = max(failed, 1)
    return total - failed, failed, out if failed else ""


def tree(log, _):
    passed, failed, shown = 0, 0, ""
    for check in sorted((ROOT / "tests" / "tree").glob("check_*.py")):
        out, status = run([sys.executable, check], log)
        passed, failed = passed + (status == 0), failed + (status != 0)
        shown += out if status else ""
    return passed, failed, shown


def unit(log, _):
    out, status = run(["cmake", "--build", BUILD, "-j", JOBS], log)
    if status:
        return 0, 1, out
    return ctest(BUILD, log)


def asan(log, _):
    folder = ROOT / "build-asan"
    for command in (["cmake", "--preset", "asan"], ["cmake", "--build", folder, "-j", JOBS]):
        out, status = run(command, log)
        if status:
            return 0, 1, out
    os.environ.setdefault("UBSAN_OPTIONS", "halt_on_error=1:print_stacktrace=1")
    # an absurd size must come back as NULL, as it does without the sanitizer: that is what is tested
    os.environ.setdefault("ASAN_OPTIONS", "allocator_may_return_null=1")
    return ctest(folder, log)


def fuzz(log, seconds):
    folder = ROOT / "build-fuzz"
    for command in (["cmake", "--preset", "fuzz"],
                    ["cmake", "--build", folder, "-j", JOBS, "--target", "fuzz_targets"]):
        out, status = run(command, log)
        if status:
            return 0, 1, out
    passed, failed, shown = 0, 0, ""
    for target in sorted((folder / "fuzz").glob("fuzz_*")):
        if not os.access(target, os.X_OK) or target.suffix:
            continue
        seeds = ROOT / "tests" / "fuzz" / "corpus" / target.name.removeprefix("fuzz_")
        found = folder / "found" / target.name
        shutil.rmtree(found, ignore_errors=True)
        found.mkdir(parents=True)
        out, status = run([target, found, *([seeds] if seeds.is_dir() else []),
                           f"-max_total_time={seconds}", "-rss_limit_mb=2048", "-timeout=10",
                           f"-artifact_prefix={folder}/"], log)
        passed, failed = passed + (status == 0), failed + (status != 0)
        shown += out[-4000:] if status else ""
    return passed, failed, shown


def node(folder, log, options=()):
    files = sorted(str(p) for p in (ROOT / folder).glob("*.test.mjs"))
    if not files:
        return 0, 1, f"no tests in {folder}"
    if not (ROOT / "tests/node_modules").is_dir() and (ROOT / "tests/package-lock.json").exists():
        out, status = run(["npm", "--prefix", "tests", "ci", "--no-audit", "--no-fund"], log)
        if status:
            return 0, 1, out
    out, status = run(["node", "--test", *options, *files], log)
    passed = sum(map(int, re.findall(r"^(?:#|ℹ) pass (\d+)", out, re.M)))
    failed = sum(map(int, re.findall(r"^(?:#|ℹ) (?:fail|cancelled) (\d+)", out, re.M)))
    if status and not failed:
        failed = 1
    shown = ""
    if failed:
        lines = out.splitlines()
        marks = [i for i, line in enumerate(lines) if re.search(r"^\s*not ok|✖", line)]
        keep = sorted({j for i in marks for j in range(i, min(i + 30, len(lines)))})
        shown = "\n".join(lines[j] for j in keep) or out[-4000:]
    return passed, failed, shown


def page(log, _):
    if not (ROOT / "web/node_modules").is_dir():
        out, status = run(["npm", "--prefix", "web", "install", "--no-audit", "--no-fund", "--no-save"], log)
        if status:
            return 0, 1, out
    out, status = run(["npm", "--prefix", "web", "test"], log, env={**os.environ, "NO_COLOR": "1"})
    count = {word: int(m[1]) if (m := re.search(rf"Tests .*?(\d+) {word}", out)) else 0
             for word in ("passed", "failed")}
    failed = max(count["failed"], 1 if status else 0)
    return count["passed"], failed, out if failed else ""


def api(log, _):
    return node("tests/api", log)


def e2e(log, _):
    # one file after the other: each has the machine's cores to itself
    major = int(subprocess.check_output(["node", "--version"], text=True)[1:].split(".")[0])
    return node("tests/e2e", log, ["--test-concurrency=1"] if major >= 20 else [])


def chaos(log, _):
    return node("tests/chaos", log)


SUITES = {"tree": tree, "unit": unit, "asan": asan, "fuzz": fuzz, "page": page, "api": api, "e2e": e2e,
          "chaos": chaos}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", nargs="*", choices=[[], *SUITES], metavar="SUITE")
    parser.add_argument("--seconds", type=int, default=5, help="for each fuzz target")
    arguments = parser.parse_args()
    BUILD.mkdir(exist_ok=True)
    for manifest in sorted((ROOT / ".deps").glob("*.manifest")):
        print(f"-- fetched into .deps/{manifest.stem}:", flush=True)
        print("".join(f"     {line.rsplit(' ', 1)[0]}\n" for line in manifest.read_text().splitlines()),
              end="", flush=True)
    passed = failed = 0
    for name in arguments.suite or SUITES:
        log = BUILD / f"test-{name}.log"
        log.unlink(missing_ok=True)
        print(f"-- {name}: {SUITE_HELP[name]}", flush=True)
        began = time.monotonic()
        ok, bad, shown = SUITES[name](log, arguments.seconds)
        if shown:
            print(shown, flush=True)
        print(f"-- {name}: {ok} passed, {bad} failed in {time.monotonic() - began:.0f} s "
              f"(log: {log.relative_to(ROOT)})", flush=True)
        passed, failed = passed + ok, failed + bad
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


SUITE_HELP = dict(re.findall(r"^  (\w+) +(\S.*)$", __doc__, re.M))

if __name__ == "__main__":
    sys.exit(main())
