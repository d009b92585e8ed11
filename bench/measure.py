"""Starts a server on one processor and its load on another, and measures both.

A sample is a dict of numbers: rps (requests a second), cpu_us (CPU time of the server's
processes for each request, in microseconds), server and load (per cent of their
processors), noise (per cent that neither of them used), p50 and p99 (microseconds, where
the load knows them), peak (resident MiB), errors.
"""
import contextlib
import csv
import json
import os
import random
import re
import select
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = shutil.which("python3", path="/usr/bin:/bin") or sys.executable  # the system's
TICK = os.sysconf("SC_CLK_TCK")
ENDS = {signal.SIGTERM, signal.SIGHUP}  # what ends a run


class Unusable(Exception):
    """A server that cannot be started; its text says why."""


class Failed(Exception):
    """A measurement that gave no figures; its text says why."""


def read(path):
    try:
        with open(path) as f:
            return f.read()
    except OSError:
        return ""


def tree(root):
    """The process ids of root and all its descendants."""
    children = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        stat = read(f"/proc/{pid}/stat")
        if stat:
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(pid))
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def cpu_seconds(pids):
    """CPU time of living processes by their own clocks, and that of children they reaped."""
    total = 0.0
    for pid in pids:
        fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        if not fields:
            continue
        total += (int(fields[13]) + int(fields[14])) / TICK
        try:
            total += time.clock_gettime((~pid << 3) | 2)
        except OSError:
            total += (int(fields[11]) + int(fields[12])) / TICK
    return total


def memory(pids):
    """KiB in use, pages that several share counted in parts; and the sum of the peaks."""
    used = peak = 0
    for pid in pids:
        for path, name in (("smaps_rollup", "Pss"), ("status", "VmHWM")):
            found = re.search(rf"^{name}:\s+(\d+)", read(f"/proc/{pid}/{path}"), re.M)
            if found and name == "Pss":
                used += int(found[1])
            elif found:
                peak += int(found[1])
    return used, peak


def busy_seconds(cpu):
    """What a processor has done so far, also for other machines."""
    fields = [int(x) for x in re.search(rf"^cpu{cpu} (.*)", read("/proc/stat"), re.M)[1].split()]
    return (sum(fields[:8]) - fields[3] - fields[4]) / TICK


@contextlib.contextmanager
def ends_wait():
    """What ends a run is put off, so that a process that is started inside is known before it can be forgotten.
    Gives the function by which that process lets go of this."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    try:
        yield lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def on_cpu(cpu):
    """What is started inside runs there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port(kind):
    """Below the range that outgoing connections take theirs from."""
    for _ in range(200):
        port = random.randrange(15000, 30000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as s:
            with contextlib.suppress(OSError):
                s.bind(("127.0.0.1", port))
                return port
    raise Unusable("there is no free port")


class Server:
    """A server under test.  Its command may name {url}, {port}, {path} or {where}, which is one of these two,
    {tmp}, a folder of its own, {build}, {bench} and {python}; kind is tcp, unix, udp, http or resp."""

    def __init__(self, command, kind, cpu, build):
        self.kind, self.tmp = kind, tempfile.mkdtemp(prefix="bench-")
        self.port, self.path = free_port(kind), os.path.join(self.tmp, "s")
        scheme = kind if kind in ("unix", "udp") else "tcp"
        where = self.path if kind == "unix" else self.port
        self.url = f"unix://{self.path}" if kind == "unix" else f"{scheme}://127.0.0.1:{self.port}"
        self.command = shlex.split(command.format(
            url=self.url, port=self.port, path=self.path, where=where, tmp=self.tmp, build=build, bench=HERE,
            python=PYTHON))
        self.log, self.cpu, self.process = os.path.join(self.tmp, "log"), cpu, None

    def __enter__(self):
        try:
            self.start()
            until = time.monotonic() + 10
            while not self.answers():
                if self.process.poll() is not None or time.monotonic() > until:
                    raise Unusable("it does not answer: " + " ".join(read(self.log)[-300:].split()))
                time.sleep(0.01)
            time.sleep(0.02)
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self):
        if not shutil.which(self.command[0]):
            raise Unusable(f"there is no {self.command[0]}")
        with open(self.log, "w") as log, on_cpu(self.cpu):
            with ends_wait() as unblock:
                self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                start_new_session=True, preexec_fn=unblock)

    def connect(self):
        """A socket that is connected, or None."""
        kind = socket.SOCK_DGRAM if self.kind == "udp" else socket.SOCK_STREAM
        s = socket.socket(socket.AF_UNIX if self.kind == "unix" else socket.AF_INET, kind)
        s.settimeout(0.2 if self.kind == "udp" else 5)
        try:
            s.connect(self.path if self.kind == "unix" else ("127.0.0.1", self.port))
            return s
        except OSError:
            s.close()
            return None

    def answers(self):
        s = self.connect()
        if not s:
            return False
        with s:
            if self.kind in ("http", "resp"):
                return True
            try:
                s.send(b"x\n")
                return s.recv(10) == b"x\n"
            except OSError:
                return False

    def __exit__(self, *_):
        for number in (signal.SIGTERM, signal.SIGKILL) if self.process else ():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(2)
        shutil.rmtree(self.tmp, ignore_errors=True)


class Bench:
    """What all samples share: the two processors, the folder of what was built, and how long to measure."""

    def __init__(self, build, cpus, seconds, warmup):
        self.build, self.cpus, self.seconds, self.warmup = build, cpus, seconds, warmup

    def server(self, command, kind):
        return Server(command, kind, self.cpus[0], self.build)

    def state(self, server):
        times = os.times()
        return {
            "wall": time.monotonic(), "server": cpu_seconds(tree(server.process.pid)),
            "busy": [busy_seconds(cpu) for cpu in self.cpus],
            "own": times.user + times.system, "load": times.children_user + times.children_system,
        }

    def sample(self, before, after, figures, load_cpu):
        """Adds to the load's figures what the two states tell."""
        wall = after["wall"] - before["wall"]
        cpu = after["server"] - before["server"]
        used = cpu, load_cpu + after["own"] - before["own"]
        noise = [b - a - u for a, b, u in zip(before["busy"], after["busy"], used)]
        figures |= {"server": 100 * cpu / wall, "load": 100 * load_cpu / wall,
                    "noise": 100 * max(0, *noise) / wall}
        if figures["requests"]:
            if cpu <= 0:
                raise Failed(f"no CPU time of the server was seen in {wall:.3f} s")
            figures |= {"cpu_us": 1e6 * cpu / figures["requests"]}
        return figures

    @contextlib.contextmanager
    def load(self, arguments, url):
        mode, *rest = arguments.split()
        command = [f"{self.build}/bench/load", mode, url, "-d", str(self.seconds), "-w", str(self.warmup), *rest]
        p = None
        try:
            with on_cpu(self.cpus[1]), ends_wait() as unblock:
                p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                     bufsize=0, preexec_fn=unblock)  # unbuffered: select() sees every line
            yield p
        finally:
            if p:
                p.kill()
                p.communicate()

    def echo(self, server, arguments):
        """One run of bench/load.  The server's memory is taken while the connections are there."""
        empty = memory(tree(server.process.pid))[0]
        with self.load(arguments, server.url) as p:
            expect(p, "window", 70 + self.warmup)
            before = self.state(server)
            expect(p, "end", 30 + self.seconds)
            after = self.state(server)
            used, peak = memory(tree(server.process.pid))
            p.stdin.write(b"\n")
            figures = json.loads(line(p, 20))
        if not figures["requests"] and " -c 0 " not in arguments + " ":
            raise Failed(f"no request was answered, {figures['errors']} errors")
        figures["rps"] = figures["requests"] / figures["seconds"]
        figures |= {"peak": peak / 1024, "used": used - empty, "empty": empty / 1024}
        return self.sample(before, after, figures, figures.pop("cpu"))

    def tool(self, server, warm, command, parse):
        """One run of a program that prints its figures itself."""
        with on_cpu(self.cpus[1]):
            try:
                subprocess.run(warm, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20)
                before = self.state(server)
                p = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
                after = self.state(server)
            except (subprocess.TimeoutExpired, FileNotFoundError) as e:
                raise Failed(str(e)) from e
        figures = parse(p.stdout)
        figures["peak"] = memory(tree(server.process.pid))[1] / 1024
        return self.sample(before, after, figures, after["load"] - before["load"])

    def wrk(self, server, connections):
        """Its shortest run is one second."""
        command = ["wrk", "-t1", "-c", connections, "--latency", f"http://127.0.0.1:{server.port}/", "-d"]
        return self.tool(server, command + ["1s"], command + [f"{max(1, round(self.seconds))}s"], parse_wrk)

    def redis_benchmark(self, server, depth):
        def command(count):
            return ["redis-benchmark", "-p", str(server.port), "-c", "64", "-n", str(count), "-P", depth,
                    "-t", "ping_mbulk", "--csv"]

        count = int(1500000 * self.seconds)
        return self.tool(server, command(count // 4), command(count), lambda text: parse_redis(text, count))

    def start_to_answer(self, command):
        """From the start of the process to the first line that came back: milliseconds, the median of five."""
        times = []
        for _ in range(5):
            server = self.server(command, "tcp")
            try:
                began = time.monotonic()
                server.start()
                until = began + 10
                while not server.answers():
                    if server.process.poll() is not None or time.monotonic() > until:
                        raise Unusable("it does not answer: " + read(server.log)[-300:])
                times.append(time.monotonic() - began)
            finally:
                server.__exit__()
        return {"ms": 1e3 * statistics.median(times), "errors": 0}

    def start_to_end(self, command):
        """The same for a program that does nothing and ends."""
        times = []
        with on_cpu(self.cpus[0]):
            for _ in range(5):
                began = time.monotonic()
                try:
                    subprocess.run(shlex.split(command), check=True)
                except (OSError, subprocess.CalledProcessError) as e:
                    raise Unusable(str(e)) from e
                times.append(time.monotonic() - began)
        return {"ms": 1e3 * statistics.median(times), "errors": 0}


def line(p, seconds):
    """The next line that the load generator prints."""
    if not select.select([p.stdout], [], [], seconds)[0]:
        raise Failed("the load generator says nothing")
    text = p.stdout.readline().decode()
    if not text:
        raise Failed("the load generator ended: " + " ".join(p.stderr.read()[-200:].decode().split()))
    return text


def expect(p, word, seconds):
    text = line(p, seconds).strip()
    if text != word:
        raise Failed(f"the load generator says {text}")


def micros(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def parse_wrk(text):
    found = re.search(r"(\d+) requests in ", text)
    if not found:
        raise Failed("wrk gave no figures")
    late = dict(re.findall(r"^\s+(\d+)%\s+([\d.]+\w+)", text, re.M))
    bad = re.findall(r"(?:Socket errors|Non-2xx).*", text)
    return {"requests": int(found[1]), "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),
            "p50": micros(late["50"]), "p99": micros(late["99"]),
            "errors": sum(int(n) for words in bad for n in re.findall(r"\b\d+\b", words))}


def parse_redis(text, count):
    rows = list(csv.reader(text.strip().splitlines()))
    if not rows or len(rows[-1]) < 7:
        raise Failed("redis-benchmark gave no figures")
    row = rows[-1]
    return {"requests": count, "errors": 0, "rps": float(row[1]),
            "p50": float(row[4]) * 1e3, "p99": float(row[6]) * 1e3}
