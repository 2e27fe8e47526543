#!/usr/bin/env python3
"""Measures the front and the proxy beside nginx: the same fast upstream, the same load, one after the other in
rounds, medians of the rounds. Fetches nothing. python3, wrk and nginx must be here.

usage: tests/bench/proxy.py [--server build/bin/mysti_server] [--nginx /usr/sbin/nginx] [--rounds 3] [--seconds 3]

  direct      no proxy: what upstream and load cost by themselves
  nginx       one worker, no buffering, 1024 kept connections
  proxy_only  Mysti's HTTP server and proxy without the rest
  server      mysti_server, with the upstream in the place of llama-server

Says requests per second (32 connections), microseconds of the proxy's processor time per request, the median delay of
an event at 100 and 1,000 streams and what of it the proxy added, memory (RssAnon) idle and with 1,000 streams open,
and the time from exec to the first answer of /health. Upstream and load run on the first core, the proxies on the
last. Ratios hold between stacks of one run; absolute numbers are the machine's.
"""
import argparse
import json
import os
import pathlib
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CORES = sorted(os.sched_getaffinity(0))
STREAMS = 1000
PATH = "/v1/completions"
BODY = '{"prompt":"a red circle on a blue background","max_tokens":1}'


def pinned(core):
    return lambda: os.sched_setaffinity(0, {core})


def start(command, core, **options):
    return subprocess.Popen([str(c) for c in command], preexec_fn=pinned(core), **options)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listening(process):
    """The port from the line 'listening 127.0.0.1:PORT'."""
    line = process.stdout.readline().decode()
    if not line.startswith("listening "):
        sys.exit(f"unexpected: {line!r}")
    return int(line.rsplit(":", 1)[1])


def ask(port, path, timeout=2.0):
    """(status, body) of a GET, or None while nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as s:
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            data = b""
            while chunk := s.recv(65536):
                data += chunk
    except OSError:
        return None
    head, _, body = data.partition(b"\r\n\r\n")
    return (int(head.split()[1]), body) if head.startswith(b"HTTP/1.1 ") else None


def wait_until(condition, what, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    sys.exit(f"still not after {seconds} s: {what}")


def anonymous_kb(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    return 0


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_of(pid):
    return [int(c) for c in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def same_priority(pid):
    """A process in a session of its own has a priority of its own where the kernel groups by session."""
    try:
        nice = pathlib.Path("/proc/self/autogroup").read_text().split()[-1]
        pathlib.Path(f"/proc/{pid}/autogroup").write_text(nice)
    except (OSError, IndexError):
        pass


NGINX = """worker_processes 1; daemon off; pid {d}/nginx.pid; error_log {d}/error.log crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; tcp_nodelay on;
  client_body_temp_path {d}/b; proxy_temp_path {d}/p; fastcgi_temp_path {d}/f; uwsgi_temp_path {d}/u; scgi_temp_path {d}/s;
  upstream up {{ server 127.0.0.1:{up}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
                  proxy_request_buffering off; proxy_read_timeout 600s; }}
  }}
}}
"""


def gguf(path):
    """A model file of one small tensor: enough to be taken for one."""
    def text(s):
        return struct.pack("<Q", len(s)) + s.encode()
    pairs = {"general.architecture": "llama", "general.name": "bench"}
    data = b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs))
    for key, value in pairs.items():
        data += text(key) + struct.pack("<I", 8) + text(value)
    data += text("token_embd.weight") + struct.pack("<IQIQ", 1, 8, 0, 0)
    path.write_bytes(data + bytes(-len(data) % 32) + bytes(32))


class Bench:
    def __init__(self, options, folder):
        self.o, self.folder = options, folder
        self.tools = options.build / "tests"
        self.processes, self.stacks = [], {}
        up = self.keep(start([self.tools / "proxy_upstream"], CORES[0], stdout=subprocess.PIPE))
        self.up = listening(up)
        self.stacks["direct"] = (self.up, None)
        self.lua = folder / "post.lua"
        self.lua.write_text(f"wrk.method = 'POST'\nwrk.body = '{BODY}'\n"
                            "wrk.headers['Content-Type'] = 'application/json'\n")

    def keep(self, process):
        self.processes.append(process)
        return process

    def stop(self):
        for p in reversed(self.processes):
            p.terminate()
        for p in self.processes:
            try:
                p.wait(10)
            except subprocess.TimeoutExpired:
                p.kill()

    def start_nginx(self):
        port, conf = free_port(), self.folder / "nginx.conf"
        conf.write_text(NGINX.format(d=self.folder, up=self.up, port=port))
        p = self.keep(start([self.o.nginx, "-c", conf], CORES[-1]))
        wait_until(lambda: ask(port, "/x"), "nginx answers")
        self.stacks["nginx"] = (port, children_of(p.pid)[0])

    def start_proxy_only(self):
        p = self.keep(start([self.tools / "proxy_only", "--upstream-port", self.up], CORES[-1],
                            stdout=subprocess.PIPE))
        self.stacks["proxy_only"] = (listening(p), p.pid)

    def server_command(self, port, home):
        home.mkdir(exist_ok=True)
        gguf(home / "bench.gguf")
        return [self.o.server, "--listen-port", port, "--sd-port", 0, "--llm-port", 0, "--home", home, "--model-dir", home,
                "--llm-model", home / "bench.gguf", "--llm-slots", STREAMS]

    def start_server(self):
        port, home = free_port(), self.folder / "home"
        log = open(self.folder / "server.log", "wb")
        p = self.keep(start(self.server_command(port, home), CORES[-1], stdout=log, stderr=log,
                            env={**os.environ, "MYSTI_LLAMA_SERVER": str(self.tools / "proxy_upstream")}))
        ready = f'curl -s -o /dev/null -w %{{http_code}} -m 2 -d \'{BODY}\' http://127.0.0.1:{port}{PATH}'
        try:
            wait_until(lambda: subprocess.run(ready, shell=True, capture_output=True, check=False).stdout == b"200",
                       "mysti_server forwards")
        except SystemExit:
            print((self.folder / "server.log").read_text()[-3000:])
            raise
        for child in children_of(p.pid):  # the upstream in its place runs where the other one does
            os.sched_setaffinity(child, {CORES[0]})
            same_priority(child)
        self.stacks["server"] = (port, p.pid)

    def requests(self, name):
        port, pid = self.stacks[name]
        before = cpu_seconds(pid) if pid else 0
        out = subprocess.run(["wrk", "-t1", "-c32", f"-d{self.o.seconds}", "-s", self.lua, f"http://127.0.0.1:{port}{PATH}"],
                             capture_output=True, text=True, check=True, preexec_fn=pinned(CORES[0])).stdout
        words = out.split()
        rate = float(words[words.index("Requests/sec:") + 1])
        count = int(words[words.index("requests") - 1])
        if "Non-2xx" in out or "Socket errors" in out:
            print(f"  {name}: {out}")
        cost = (cpu_seconds(pid) - before) / count * 1e6 if pid else 0
        return {"rate": rate, "cpu_us": cost}

    def streams(self, name, count):
        port, pid = self.stacks[name]
        load = start([self.tools / "proxy_load", "--port", port, "--path", "/v1/chat/completions", "--streams", count,
                      "--events", self.o.events, "--gap-us", 20000 if count <= 100 else 50000],
                     CORES[0], stdout=subprocess.PIPE)
        before = cpu_seconds(pid) if pid else 0
        opened = load.stdout.readline()
        memory = anonymous_kb(pid) if pid and opened == b"open\n" else 0
        result = json.loads(load.stdout.readline() if opened == b"open\n" else opened)
        load.wait()
        result["rss_kb"] = memory
        result["cpu_us"] = (cpu_seconds(pid) - before) / max(result["events"], 1) * 1e6 if pid else 0
        return result

    def health_ms(self):
        """From exec to the first answer of /health, a fresh state each time."""
        times = []
        for i in range(5):
            port = free_port()
            log = open(self.folder / "start.log", "wb")
            command = [str(c) for c in self.server_command(port, self.folder / f"home{i}")]
            began = time.monotonic()
            p = subprocess.Popen(command, stdout=log, stderr=log,
                                 env={**os.environ, "MYSTI_LLAMA_SERVER": str(self.tools / "proxy_upstream")})
            while not ask(port, "/health") and time.monotonic() < began + 10:
                time.sleep(0.0005)
            times.append((time.monotonic() - began) * 1000)
            p.terminate()
            p.wait()
        return statistics.median(times)


def median_of(rounds, key):
    return statistics.median(r[key] for r in rounds)


def verdict(text, value, limit, at_least=False):
    good = value >= limit if at_least else value <= limit
    print(f"  {'ok  ' if good else 'MISS'}  {text}: {value:.2f} ({'at least' if at_least else 'at most'} {limit})")
    return good


def report(b, idle, rate, at100, at1000):
    print(f"\n{'':12}{'req/s':>9}{'cpu us/req':>12}{'p50 us @100':>13}{'p99':>8}{'p50 us @1000':>14}{'p99':>8}"
          f"{'cpu us/event':>14}{'lost':>6}{'idle KB':>9}{'KB @1000':>10}")
    for name in b.stacks:
        print(f"{name:12}{median_of(rate[name], 'rate'):9.0f}{median_of(rate[name], 'cpu_us'):12.1f}"
              f"{median_of(at100[name], 'p50_us'):13.0f}{median_of(at100[name], 'p99_us'):8.0f}"
              f"{median_of(at1000[name], 'p50_us'):14.0f}{median_of(at1000[name], 'p99_us'):8.0f}"
              f"{median_of(at1000[name], 'cpu_us'):14.1f}"
              f"{sum(r['lost'] for r in at100[name] + at1000[name]):6}{idle.get(name, 0):9}"
              f"{median_of(at1000[name], 'rss_kb'):10.0f}")
    print()
    good = True
    for name in ("proxy_only", "server"):
        if name not in b.stacks:
            continue
        if "nginx" in b.stacks:
            good &= verdict(f"{name}: requests/s to nginx's", median_of(rate[name], "rate") /
                            median_of(rate["nginx"], "rate"), 0.9, at_least=True)
            for count, rounds in ((100, at100), (1000, at1000)):
                base = median_of(rounds["direct"], "p50_us")
                added = max(median_of(rounds[name], "p50_us") - base, 1)
                theirs = max(median_of(rounds["nginx"], "p50_us") - base, 1)
                good &= verdict(f"{name}: median added time per event to nginx's, {count} streams",
                                added / theirs, 1.1)
        good &= verdict(f"{name}: MB of RssAnon with 1,000 streams", median_of(at1000[name], "rss_kb") / 1024, 10)
        good &= verdict(f"{name}: MB of RssAnon idle", idle[name] / 1024, 4)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=pathlib.Path, default=ROOT / "build/bin/mysti_server")
    parser.add_argument("--nginx", default=shutil.which("nginx") or shutil.which("/usr/sbin/nginx"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--events", type=int, default=100, help="per stream")
    parser.add_argument("--build", type=pathlib.Path, help="where tests/proxy_upstream is; default: the server's build")
    o = parser.parse_args()
    o.server = o.server.resolve()
    o.build = (o.build or o.server.parent.parent).resolve()
    if not shutil.which("wrk"):
        sys.exit("wrk is not here: apt install wrk")
    for tool in ("proxy_upstream", "proxy_load", "proxy_only"):
        if not (o.build / "tests" / tool).exists():
            sys.exit(f"{o.build}/tests/{tool} is not built")
    with tempfile.TemporaryDirectory() as folder:
        b = Bench(o, pathlib.Path(folder))
        try:
            if o.nginx:
                b.start_nginx()
            b.start_proxy_only()
            if o.server.exists():
                b.start_server()
            time.sleep(1)
            idle = {name: anonymous_kb(pid) for name, (_, pid) in b.stacks.items() if pid}
            rate, at100, at1000 = ({name: [] for name in b.stacks} for _ in range(3))
            for i in range(o.rounds):
                for name in b.stacks:
                    print(f"round {i + 1}: {name} (load {os.getloadavg()[0]:.1f})", flush=True)
                    rate[name].append(b.requests(name))
                    at100[name].append(b.streams(name, 100))
                    at1000[name].append(b.streams(name, 1000))
            good = report(b, idle, rate, at100, at1000)
        finally:
            b.stop()
        if o.server.exists():
            good &= verdict("server: ms from exec to /health", b.health_ms(), 50)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
