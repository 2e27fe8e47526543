#!/usr/bin/env python3
"""Plays the service manager: binds sockets, starts a program with them, and prints what the program says.

usage: systemd.py [--sockets N] [--udp] [--watchdog MICROSECONDS] [--abstract] PROGRAM [ARGUMENT...]

One JSON line for each thing that happens: {"ports": [...]} and {"pid": N} first, {"notify": "READY=1\\n..."} for each message, {"exit": N}
last. The program's own output goes to standard error. SIGTERM is passed on.
"""
import argparse
import json
import os
import select
import signal
import socket
import sys
import tempfile


def tell(**what):
    sys.stdout.write(json.dumps(what) + "\n")  # in one piece, whatever Python's buffering is: the program's output goes beside it
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sockets", type=int, default=0)
    parser.add_argument("--udp", action="store_true")
    parser.add_argument("--watchdog", type=int, default=0)
    parser.add_argument("--abstract", action="store_true")
    parser.add_argument("program", nargs=argparse.REMAINDER)
    o = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="mysti-notify-")
    path = f"\0mysti-test-{os.getpid()}" if o.abstract else folder + "/notify"
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(path)
    sockets = []
    for i in range(o.sockets):
        s = socket.socket(socket.AF_INET6 if i == 1 else socket.AF_INET, socket.SOCK_DGRAM if o.udp else socket.SOCK_STREAM)
        s.bind(("::1" if i == 1 else "127.0.0.1", 0))
        if not o.udp:
            s.listen(16)
        sockets.append(s)
    tell(ports=[s.getsockname()[1] for s in sockets])

    def become():
        for i, s in enumerate(sockets):
            os.dup2(s.fileno(), 100 + i)
        for i in range(len(sockets)):
            os.dup2(100 + i, 3 + i)
            os.close(100 + i)
        os.environ.update(NOTIFY_SOCKET=path.replace("\0", "@"), LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(sockets)))
        if o.watchdog:
            os.environ.update(WATCHDOG_USEC=str(o.watchdog), WATCHDOG_PID=str(os.getpid()))
        os.execv(o.program[0], o.program)

    child = os.fork()
    if child == 0:
        os.dup2(2, 1)
        become()
    tell(pid=child)
    for s in sockets:
        s.close()
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    while True:
        ready, _, _ = select.select([heard], [], [], 0.05)
        if ready:
            tell(notify=heard.recv(4096).decode())
            continue
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            tell(exit=os.waitstatus_to_exitcode(status))
            return


if __name__ == "__main__":
    main()
