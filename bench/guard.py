#!/usr/bin/env python3
"""What each hot path costs, in instructions, compared with what it cost: `make bench-guard`.

The real program runs under callgrind, twice for each path: with a short run of requests, which fills its pools, and
with the same and COUNT more.  The difference, divided by COUNT, is the cost of one.  So that it is the same each time,
the client goes on when the program sleeps, and bench/guard/fixed.c takes time of day and random numbers away.
"""

import argparse
import concurrent.futures
import glob
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import namedtuple

HERE = os.path.relpath(os.path.dirname(os.path.abspath(__file__)))
RECORD = os.path.join(HERE, "guard.json")
COUNTS = "instructions"
PATIENCE = 60  # seconds that any one wait may take
# libc picks its functions by what the processor has and how large its caches are: the plain ones everywhere.
FEWER = ("glibc.cpu.hwcaps=-AVX2,-AVX,-AVX512F,-AVX512VL,-ERMS,-FSRM,-BMI1,-BMI2,-LZCNT,-RTM,-SSE4_1,-SSE4_2:"
         "glibc.cpu.x86_rep_movsb_threshold=0x800:glibc.cpu.x86_non_temporal_threshold=0x1000000")

# ---------------------------------------------------------------- what was counted


def read(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def change(before, now):
    return (now - before) * 100 / before


def table(recorded, now):
    """Lines of text, one for each path."""
    names = list(now) + [name for name in recorded if name not in now]
    width = max(map(len, ["path", *names]))
    lines = [f"{'path':{width}} {'recorded':>10} {'now':>10} {'change':>9}"]
    for name in names:
        a, b = recorded.get(name), now.get(name)
        both = f"{change(a, b):+8.2f}%" if a and b else "-"
        lines.append(f"{name:{width}} {a or '-':>10} {b or '-':>10} {both:>9}")
    return lines


def verdicts(recorded, now, margin):
    """Sentences: what is wrong, and what is only to be known."""
    wrong, remarks = [], []
    for name, count in now.items():
        before = recorded.get(name)
        if not before:
            wrong.append(f"{name} has no recorded count: make bench-guard RECORD=1 writes it.")
        elif change(before, count) > margin:
            wrong.append(f"{name} takes {change(before, count):.2f} % more instructions than recorded, "
                         f"{count} for {before}; {margin:g} % are allowed.")
        elif change(before, count) < -margin:
            remarks.append(f"{name} is {-change(before, count):.2f} % cheaper than recorded: record it "
                           "(make bench-guard RECORD=1).")
    for name in recorded:
        if name not in now:
            wrong.append(f"{name} is recorded, but was not measured: make bench-guard RECORD=1 forgets it.")
    return wrong, remarks


def differences(recorded, now):
    """Between two toolchains, a text for each."""
    return [f"{name}: recorded with {recorded.get(name, 'none')}, here {now.get(name, 'none')}"
            for name in sorted({*recorded, *now}) if recorded.get(name) != now.get(name)]


def compare(recorded, now, margin, whole=True):
    """Prints what has changed; the program's status."""
    before = recorded[COUNTS]
    if not whole:
        before = {name: count for name, count in before.items() if name in now[COUNTS]}
    print("\n".join(table(before, now[COUNTS])))
    other = differences(recorded["toolchain"], now["toolchain"])
    wrong, remarks = verdicts(before, now[COUNTS], margin)
    for line in remarks:
        print(line)
    for line in wrong:
        print(("with another toolchain: " if other else "FAILED: ") + line)
    if other:
        print("WARNING: the recorded counts are of another toolchain, so nothing is decided.  What differs:")
        for line in other:
            print("  " + line)
        print("To compare with this one, record at the commit to compare with: make bench-guard RECORD=1")
        return 0
    return 1 if wrong else 0


def record(path, now, whole=True):
    old = read(path) if os.path.exists(path) else None
    if not whole and old:
        if differences(old["toolchain"], now["toolchain"]):
            sys.exit("The other counts are of another toolchain: record all of them.")
        now = {**now, COUNTS: {**old[COUNTS], **now[COUNTS]}}
    if old:
        print("\n".join(table(old[COUNTS], now[COUNTS])))
    with open(path, "w", encoding="utf-8") as f:
        json.dump(now, f, indent=2)
        f.write("\n")
    print(f"recorded in {path}")


def first_line(*command):
    """What a command says of itself, without the folder that it is in."""
    try:
        said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return said.split("\n", 1)[0].strip()


def toolchain():
    compiler = first_line(*os.environ.get("CC", "cc").split(), "--version")
    lua = first_line("dpkg-query", "-W", "-f", "${Version}", "liblua5.4-dev")
    return {
        "compiler": compiler.split(" ", 1)[-1],  # without the name that it was called by
        "flags": os.environ.get("GUARD_FLAGS", ""),
        "libc": os.confstr("CS_GNU_LIBC_VERSION"),
        "lua": lua if lua != "none" else first_line("lua5.4", "-v"),
        "machine": platform.machine(),
        "valgrind": first_line("valgrind", "--version"),
    }


# ---------------------------------------------------------------- the program, and its client


class Program:
    """The program under callgrind, from its start to end(), which gives the count."""

    def __init__(self, build, path, folder):
        self.folder = folder
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/",
            "LD_PRELOAD": os.path.abspath(os.path.join(build, "fixed.so")),
            "GLIBC_TUNABLES": FEWER,
        }
        command = [*still(), "valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={folder}/out.%p",
                   "--fair-sched=yes", os.path.join(build, "moonport"), *path.command, "--ready-file", "-"]
        if path.command[0] == "serve":
            command += ["-o", "time_slice=none", "-o", "cpu_limit=none"]
        if "--log-level" not in command:
            command += ["--log-level", "warn"]
        self.log = open(os.path.join(folder, "log"), "w+b")
        self.process = subprocess.Popen([*command, *settings(build)], env=environment, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=self.log)
        ready = self.process.stdout.readline()
        if not ready:
            self.fail("ended before it was ready")
        self.url = next(iter(json.loads(ready)["servers"].values()))["url"]

    def fail(self, what):
        self.process.kill()
        self.log.seek(0)
        raise RuntimeError(f"the program {what}: {self.log.read().decode(errors='replace')}")

    def processes(self):
        found = [self.process.pid]
        for pid in found:
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
                found.extend(map(int, f.read().split()))
        return found

    def await_state(self, wanted, pids):
        """Returns when all their threads are in it."""
        deadline = time.monotonic() + PATIENCE
        for pid in pids:
            for thread in os.listdir(f"/proc/{pid}/task"):
                while state(pid, thread) not in (wanted, None):
                    if time.monotonic() > deadline or self.process.poll() is not None:
                        self.fail("does not come to rest")

    def settle(self):
        """Returns when all of it sleeps."""
        self.await_state("S", self.processes())

    def stop(self):
        """Returns when it stands still, asleep."""
        pids = self.processes()
        self.await_state("S", pids)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        self.await_state("T", pids)

    def go_on(self):
        for pid in self.processes():
            os.kill(pid, signal.SIGCONT)

    def end(self):
        self.process.terminate()
        if self.process.wait(PATIENCE) != 0:
            self.fail("failed")
        self.process.stdout.close()
        self.log.close()
        return sum(map(total, glob.glob(f"{self.folder}/out.*")))


def state(pid, thread):
    """A letter; None: it has ended."""
    try:
        with open(f"/proc/{pid}/task/{thread}/stat", "rb") as f:
            return f.read().rsplit(b") ", 1)[1][:1].decode()
    except (FileNotFoundError, ProcessLookupError):
        return None


def total(path):
    with open(path, encoding="utf-8") as f:
        for line in f:
            if line.startswith("totals:"):
                return int(line.split()[1])
    raise RuntimeError(f"{path} has no totals")


def still():
    """Fixed addresses, where that is allowed; valgrind itself fixes nearly all."""
    tried = subprocess.run(["setarch", "-R", "true"], stderr=subprocess.DEVNULL, check=False)
    return ["setarch", "-R"] if tried.returncode == 0 else []


def settings(build):
    """What the program has to be told so that it is the same everywhere, if it knows that."""
    known = subprocess.run([os.path.join(build, "moonport"), "--help"], stdout=subprocess.PIPE, check=True, text=True)
    fixed = {"--loop": "epoll", "--busy-poll": "off"}
    return [word for name, value in fixed.items() if name + " " in known.stdout for word in (name, value)]


def connect(url):
    scheme, address = url.split("://")
    if scheme == "unix":
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.settimeout(PATIENCE)
        s.connect(address)
        return s
    host, port = address.rsplit(":", 1)
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM)
    s.settimeout(PATIENCE)
    s.connect((host, int(port)))
    if s.type == socket.SOCK_STREAM:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def receive(s, size):
    """So many bytes; fewer at the end."""
    got = b""
    while len(got) < size:
        part = s.recv(size - len(got))
        if not part:
            break
        got += part
    return got


def expect(s, answer):
    got = receive(s, len(answer)) if answer else s.recv(1)
    if got != answer:
        raise RuntimeError(f"the program answered {got[:100]!r}, not {answer[:100]!r}")


# ---------------------------------------------------------------- the paths


def ask(request, answer=None, first=b"", stop=False):
    """One connection, one request after the other."""
    answer = request if answer is None else answer

    def run(program, count):
        with connect(program.url) as s:
            if first:
                s.sendall(first)
                s.recv(65536)
            for _ in range(count):
                program.stop() if stop else program.settle()
                s.sendall(request)
                if stop:
                    program.go_on()
                expect(s, answer)
            program.settle()
    return run


def visit(request, together=1):
    """Connects, asks, reads the answer, ends its side and reads the end: so many at the same time."""
    def run(program, count):
        for _ in range(count // together):
            program.stop()
            visitors = [connect(program.url) for _ in range(together)]
            for s in visitors:
                s.sendall(request)
            program.go_on()
            for s in visitors:
                expect(s, request)
            program.stop()
            for s in visitors:
                s.shutdown(socket.SHUT_WR)
            program.go_on()
            for s in visitors:
                expect(s, b"")
                s.close()
        program.settle()
    return run


def crowd(request, clients):
    """All of so many clients at once: they write while the program stands still."""
    def run(program, count):
        sockets = [connect(program.url) for _ in range(clients)]
        for _ in range(count // clients):
            program.stop()
            for s in sockets:
                s.sendall(request)
            program.go_on()
            for s in sockets:
                expect(s, request)
        program.settle()
        for s in sockets:
            s.close()
    return run


def reload(program, count):
    for number in range(count):
        program.settle()
        program.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE
        while count_reloads(program) <= number:
            if time.monotonic() > deadline:
                program.fail("does not reload")
    program.settle()


def count_reloads(program):
    with open(program.log.name, "rb") as f:
        return f.read().count(b" reloaded ")


TCP, UDP = "tcp://127.0.0.1:0", "udp://127.0.0.1:0"
UNIX = "unix://"  # in a folder of the run
LINE, LONG = b"x" * 63 + b"\n", b"x" * 16383 + b"\n"
GET = b"GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: guard\r\nAccept: */*\r\n\r\n"
HELLO = b"Hello, world!\n"
PING, PONG = b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def serve(script, url, *more):
    return ["serve", script, "--listen", url, *more]


def hello(program, count):
    with connect(program.url) as s:
        s.sendall(GET)
        answer = s.recv(65536)
        if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(HELLO):
            raise RuntimeError(f"the program answered {answer!r}")
        for _ in range(count):
            program.settle()
            s.sendall(GET)
            expect(s, answer)
        program.settle()


# name, arguments of the program, client(program, count), requests that fill the pools, requests that are counted
Path = namedtuple("Path", "name command client warm count")

ECHO = "scripts/echo.lua"
PATHS = [
    Path("TCP, 64 B lines", serve(ECHO, TCP), ask(LINE), 1000, 10000),
    Path("TCP, 64 B lines, 64 clients at once", serve(ECHO, TCP), crowd(LINE, 64), 640, 12800),
    Path("TCP, 16 KiB lines", serve(ECHO, TCP), ask(LONG, stop=True), 200, 2000),
    Path("Unix stream, 64 B lines", serve(ECHO, UNIX), ask(LINE), 1000, 10000),
    Path("TCP, connect, ask, close", serve(ECHO, TCP), visit(LINE), 200, 2000),
    Path("TCP, connect, ask, close, 16 at once", serve(ECHO, TCP), visit(LINE, 16), 320, 3200),
    Path("UDP, 64 B", serve("bench/guard/udp_echo.lua", UDP), ask(LINE), 1000, 6000),
    Path("UDP, 64 B, 32 at once", serve("bench/guard/udp_echo.lua", UDP), crowd(LINE, 32), 640, 6400),
    Path("HTTP hello, keep-alive", serve("scripts/http_hello.lua", TCP), hello, 500, 4000),
    Path("RESP PING, 16 at a time", serve("scripts/redis_lite.lua", TCP), ask(PING * 16, PONG * 16), 200, 2000),
    Path("mock of Redis, GET", ["mock", "scripts/mocks/redis.lua"],
         ask(command(b"GET", b"greeting"), b"$5\r\nhello\r\n", command(b"SET", b"greeting", b"hello")), 500, 3000),
    Path("a task, an event and a timer", serve("bench/guard/task.lua", TCP), ask(LINE), 500, 4000),
    Path("TCP, 64 B lines, with time limits",
         serve(ECHO, TCP, "-o", "timeout=100", "-o", "idle_timeout=100"), ask(LINE), 1000, 8000),
    Path("reload", serve(ECHO, TCP, "--log-level", "info"), reload, 5, 40),
    Path("start to ready, and the stop", serve(ECHO, TCP), None, 0, 1),
]

Job = namedtuple("Job", "index requests build keep")


def run(job):
    """The instructions of a whole run."""
    path = PATHS[job.index]
    with tempfile.TemporaryDirectory(prefix="moonport-guard-") as folder:
        unix = f"unix://{folder}/socket"
        path = path._replace(command=[unix if word == UNIX else word for word in path.command])
        program = Program(job.build, path, folder)
        try:
            if path.client:
                path.client(program, job.requests)
            count = program.end()
            if job.keep:
                for file in glob.glob(f"{folder}/out.*"):
                    shutil.copy(file, f"{job.keep}.{job.requests}.{file.rsplit('.', 1)[1]}")
            return count
        finally:
            if program.process.poll() is None:
                program.process.kill()
                program.process.wait()


def measure(build, names, profile=None):
    """The cost of one request of each path."""
    chosen = [i for i, path in enumerate(PATHS) if any(name in path.name for name in names or [""])]
    lengths = [(i, n) for i in chosen for n in ({PATHS[i].warm, PATHS[i].warm + PATHS[i].count}
                                                if PATHS[i].client else {0})]
    with concurrent.futures.ProcessPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        jobs = {(i, n): pool.submit(run, Job(i, n, build, profile and f"{profile}-{i}")) for i, n in lengths}
        counts = {}
        for i in chosen:
            path = PATHS[i]
            try:
                first = jobs[i, path.warm].result()
                more = jobs[i, path.warm + path.count].result() if path.client else 0
            except (RuntimeError, OSError) as e:
                sys.exit(f"{path.name}: {e}")
            counts[path.name] = round((more - first) / path.count) if path.client else first
        return {"toolchain": toolchain(), COUNTS: counts}


# ---------------------------------------------------------------- the command


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--build", default="build", help="the folder of moonport and fixed.so")
    parser.add_argument("--recorded", default=RECORD, help="the file of recorded counts")
    parser.add_argument("--margin", type=float, default=3, help="per cent that a path may be dearer")
    parser.add_argument("--record", action="store_true", help="write the counts instead of comparing them")
    parser.add_argument("--counts", help="a file of counts to take instead of measuring")
    parser.add_argument("--profile", metavar="PREFIX", help="keep callgrind's files, as PREFIX-NUMBER.REQUESTS")
    parser.add_argument("paths", nargs="*", help="only paths whose name holds one of these words")
    return parser.parse_args()


def main():
    options = arguments()
    if not options.record and not os.path.exists(options.recorded):
        sys.exit(f"{options.recorded} is not there: make bench-guard RECORD=1 writes it.")
    now = read(options.counts) if options.counts else measure(options.build, options.paths, options.profile)
    if options.record:
        record(options.recorded, now, not options.paths)
        return 0
    return compare(read(options.recorded), now, options.margin, not options.paths)


if __name__ == "__main__":
    sys.exit(main())
