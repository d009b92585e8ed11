#!/usr/bin/env python3
"""Compares moonport with the raw limit of the machine and with other servers.

Every sample starts a fresh server on one processor and its load on another.  Rounds visit
the servers in turn, every other round backwards, and ratios are taken within a round, so
that what the machine does slowly cancels.  docs/performance.md explains the figures.
"""
import argparse
import contextlib
import fcntl
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time

import measure
import report

MOON = "{build}/moonport serve "
FORKING = " -m forking -o max_requests_per_child=1000"
LIMIT = "{build}/bench/limit "
ECHO, HTTP, RESP = (f"{{bench}}/../scripts/{name}.lua -l {{url}}" for name in ("echo", "http_hello", "redis_lite"))


def moonport(options="", **more):
    """A row of moonport, with these options."""
    script = {"tcp": ECHO, "unix": ECHO, "udp": ECHO, "http": HTTP, "resp": RESP}
    return {kind: MOON + text + options for kind, text in script.items()} | {
        "idle": "-o max_connections=20000", "version": "{build}/moonport --version"} | more


def peer(command, kinds, version, **more):
    return {kind: command.replace("KIND", kind) for kind in kinds.split()} | {"version": version} | more


# Each names its command for every kind of address, and its version.  "max": connections that it can take,
# "most": idle ones that it is given, "idle": what is added to its command for them, "only": workloads that it is for,
# "asks": options that are added when this moonport has them; one that has none of them has no such row.
SERVERS = {
    "epoll": {kind: LIMIT + "echo {url}" for kind in ("tcp", "unix", "udp")} | {
        "http": LIMIT + "http {url}", "resp": LIMIT + "resp {url}", "version": "gcc -dumpfullversion"},
    "moonport": moonport(),
    "moonport-epoll": moonport(asks=["--loop epoll", "--busy-poll off"]),
    "moonport-uring": moonport(asks=["--loop io_uring", "--busy-poll off"]),
    "moonport-threading": moonport(" -m threading", only="echo64 conn unixconn idle", most=1000,
                                   idle="-o max_threads=2000"),
    "moonport-forking": moonport(FORKING, only="conn unixconn"),
    "c-prefork": {kind: LIMIT + "prefork {url}" for kind in ("tcp", "unix")} | {"only": "conn unixconn"},
    "luv": peer("lua5.4 {bench}/peers/luv_echo.lua KIND {where}", "tcp unix udp", "dpkg-query -W lua-luv"),
    "cqueues": peer("lua5.4 {bench}/peers/cqueues_echo.lua KIND {where}", "tcp unix", "dpkg-query -W lua-cqueues"),
    "copas": peer("lua5.1 {bench}/peers/copas_echo.lua KIND {where}", "tcp", "dpkg-query -W lua-copas",
                  max=900, most=900),
    "haproxy-lua": {"tcp": "env BENCH_BIND=127.0.0.1:{port} BENCH_LUA={bench}/peers/haproxy.lua "
                           "haproxy -q -f {bench}/peers/haproxy.cfg",
                    "unix": "env BENCH_BIND=unix@{path} BENCH_LUA={bench}/peers/haproxy.lua "
                            "haproxy -q -f {bench}/peers/haproxy.cfg", "version": "haproxy -v"},
    "node": peer("node {bench}/peers/node.js KIND {where}", "tcp unix udp http", "node --version"),
    "asyncio": peer("{python} {bench}/peers/asyncio_echo.py KIND {where}", "tcp unix", "{python} --version"),
    "py-threading": peer("{python} {bench}/peers/socketserver_echo.py Threading KIND {where}", "tcp unix udp",
                         "{python} --version", most=1000),
    "py-forking": peer("{python} {bench}/peers/socketserver_echo.py Forking KIND {where}", "tcp unix",
                       "{python} --version", max=100, most=200),
    "nginx-lua": {"http": "sh -c \"sed 's,@PORT@,{port},;s,@TMP@,{tmp},' {bench}/peers/nginx.conf > {tmp}/nginx.conf"
                          " && exec nginx -e stderr -c {tmp}/nginx.conf\"", "version": "nginx -v"},
    "redis": {"resp": "redis-server --port {port} --bind 127.0.0.1 --save '' --appendonly no --dir {tmp}",
              "version": "redis-server --version"},
    # What starting anything costs.
    "lua5.4 -e ''": {"ends": "lua5.4 -e ''", "version": "lua5.4 -v"},
    "true": {"ends": "true"},
}
BASE = "epoll"
KINDS = "tcp", "unix", "udp", "http", "resp"

# name: the kind of address, how it is measured, with what, connections, and what to call it.
WORKLOADS = {
    "echo1": ("tcp", "echo", "echo -c 1", 1, "64 B lines, 1 connection"),
    "echo64": ("tcp", "echo", "echo -c 64", 64, "64 B lines, 64 connections"),
    "echo1000": ("tcp", "echo", "echo -c 1000", 1000, "64 B lines, 1,000 connections"),
    "big64": ("tcp", "echo", "echo -c 64 -s 16384", 64, "16 KiB lines, 64 connections"),
    "conn": ("tcp", "echo", "conn -c 16 -a 8", 16, "connect, request, close"),
    "unixconn": ("unix", "echo", "conn -c 16", 16, "connect, request, close, Unix"),
    "unix64": ("unix", "echo", "echo -c 64", 64, "64 B lines, 64 connections, Unix"),
    "udp64": ("udp", "echo", "echo -c 64", 64, "64 B datagrams, 64 clients"),
    "http64": ("http", "wrk", "64", 64, "HTTP greeting, 64 connections"),
    "ping16": ("resp", "redis_benchmark", "16", 64, "RESP PING, 16 at a time"),
    "idle": ("tcp", "idle", "echo -c 0 -i {count} -a 2", 8000, "idle connections"),
    "start": ("tcp", "start", "", 1, "start to first answer"),
}


def version(command):
    """What a program calls its version, or nothing."""
    try:
        p = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=10)
    except subprocess.TimeoutExpired:
        return ""
    found = re.search(r"\d+\.\d[^\s,]*|\bv\d[^\s,]*", p.stdout + p.stderr)
    return found[0] if found and not p.returncode else ""


def machine(cpus):
    cpu = re.search(r"^model name\s*:\s*(.*)", measure.read("/proc/cpuinfo"), re.M)
    memory = re.search(r"^MemTotal:\s+(\d+)", measure.read("/proc/meminfo"), re.M)
    system = re.search(r'^PRETTY_NAME="(.*)"', measure.read("/etc/os-release"), re.M)
    virtual = " hypervisor" in measure.read("/proc/cpuinfo")
    return {
        "processor": (cpu[1] if cpu else platform.machine()) + (", virtual" if virtual else ""),
        "processors": os.cpu_count(), "memory_gib": round(int(memory[1]) / 2**20, 1) if memory else None,
        "system": system[1] if system else platform.system(), "kernel": platform.release(), "cpus": cpus,
    }


def takes(name, server, workload):
    """Whether the server has a place in the workload."""
    kind, how, _, connections, _ = WORKLOADS[workload]
    if workload not in server.get("only", workload).split():
        return False
    if how == "start":
        return "ends" in server or "tcp" in server
    return kind in server and (how == "idle" or connections <= server.get("max", connections))


def take(bench, server, workload):
    """One sample."""
    kind, how, arguments, count, _ = WORKLOADS[workload]
    if how == "start":
        return bench.start_to_end(server["ends"]) if "ends" in server else bench.start_to_answer(server["tcp"])
    if how == "idle":
        count = min(count, server.get("most", count))
        with bench.server(server[kind] + " " + server.get("idle", ""), kind) as running:
            figures = bench.echo(running, arguments.format(count=count))
        return {"count": count, "kib": figures["used"] / count, "empty": figures["empty"], "errors": figures["errors"]}
    with bench.server(server[kind], kind) as running:
        if how == "echo":
            return bench.echo(running, arguments)
        return getattr(bench, how)(running, arguments)


class Progress:
    """One line that is written over on a terminal, and a line now and then elsewhere."""

    def __init__(self, minutes):
        self.began, self.limit, self.shown = time.monotonic(), minutes * 60, 0

    def elapsed(self):
        return time.monotonic() - self.began

    def say(self, text, now=False):
        stamp = f"[{int(self.elapsed()) // 60}:{int(self.elapsed()) % 60:02d}] "
        if sys.stderr.isatty():
            print("\r\033[K" + (stamp + text)[:110], end="\n" if now else "", file=sys.stderr, flush=True)
        elif now or self.elapsed() - self.shown > 5:
            self.shown = self.elapsed()
            print(stamp + text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def alone(option):
    """Others who take the lock as well wait meanwhile."""
    if not option.lock:
        yield
        return
    with open(option.lock, "a") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def least_disturbed(take, noise, most=3):
    """The best of a few samples, and how many were taken: one without figures is taken again, too."""
    best = why = None
    for tries in range(1, most + 1):
        try:
            figures = take()
        except measure.Failed as e:
            why = e
            continue
        except measure.Unusable:
            if not best:
                raise
            break
        if best is None or figures.get("noise", 0) < best.get("noise", 0):
            best = figures
        if best.get("noise", 0) <= noise:
            break
    if not best:
        raise why
    return best | {"tries": tries}


def run_round(bench, workload, servers, option, say, hurry, left_out):
    """{name: sample or None}, in the order of servers; who fails is left out from then on."""
    taken = {}
    for name, server in servers.items():
        taken[name] = None
        if name in left_out:
            continue
        try:
            taken[name] = least_disturbed(lambda s=server: take(bench, s, workload), option.noise,
                                          1 if hurry() else 3)
            say(f"{name} {report.brief(taken[name])}")
        except (measure.Unusable, measure.Failed) as why:
            left_out[name] = str(why)
            say(f"{name} is left out: {why}", now=True)
    return taken


def run_workload(bench, workload, servers, option, progress, until):
    """{"servers": {name: [sample or None of each round]}, "left_out": {name: why}}, and what the workload is."""
    chosen = {n: s for n, s in servers.items() if takes(n, s, workload)}
    title, how = WORKLOADS[workload][4], WORKLOADS[workload][1]
    results, left_out, longest = {n: [] for n in chosen}, {}, 0
    rounds = min(option.rounds, 3) if how == "idle" else option.rounds
    for i in range(rounds):
        began = progress.elapsed()
        if i and began + longest > until:
            progress.say(f"{workload}: {i} of {rounds} rounds, for lack of time", now=True)
            break

        def say(text, now=False, i=i):
            progress.say(f"{workload}, round {i + 1} of {rounds}: {text}", now)

        order = chosen if i % 2 == 0 else dict(reversed(chosen.items()))
        with alone(option):
            taken = run_round(bench, workload, order, option, say, lambda: progress.elapsed() > until, left_out)
        for name, figures in taken.items():
            results[name].append(figures)
        longest = max(longest, progress.elapsed() - began)
    return {"title": title, "how": how, "left_out": left_out, "servers": {n: r for n, r in results.items() if any(r)}}


def choose(words, known, what):
    if not words:
        return list(known)
    chosen = [w for w in words.split(",") if w]
    for word in chosen:
        if word not in known:
            sys.exit(f"there is no {what} {word}; there are: {', '.join(known)}")
    return chosen


def usable(build, chosen):
    """The chosen servers, with the options that they ask for."""
    text = subprocess.run([f"{build}/moonport", "--help"], capture_output=True, text=True).stdout
    servers = {}
    for name in chosen:
        server = SERVERS[name]
        asked = [option for option in server.get("asks", []) if option.split()[0] + " " in text]
        if asked or "asks" not in server:
            added = {kind: " ".join([server[kind]] + asked) for kind in KINDS if kind in server}
            servers[name] = server | added
    return servers


def seconds_of(workload, servers, option):
    """About how long it takes."""
    count = sum(takes(n, s, workload) for n, s in servers.items())
    how = WORKLOADS[workload][1]
    each = {"echo": option.seconds + option.warmup + 0.3, "wrk": 2.4, "redis_benchmark": 2 * option.seconds + 0.5,
            "idle": option.seconds + 1.2, "start": 0.4}[how]
    return count * each * (min(option.rounds, 3) if how == "idle" else option.rounds)


def common_arguments(ap, rounds, minutes):
    ap.add_argument("-b", "--build", default="build", help="where the programs are (build)")
    ap.add_argument("-o", "--out", help="the folder for the results (BUILD/bench)")
    ap.add_argument("-r", "--rounds", type=int, default=rounds, help=f"({rounds})")
    ap.add_argument("-d", "--seconds", type=float, default=0.4, help="measured in a sample (0.4)")
    ap.add_argument("--warmup", type=float, default=0.15, help="seconds of load before that (0.15)")
    ap.add_argument("-m", "--minutes", type=float, default=minutes,
                    help=f"of the whole run, at most: fewer rounds then ({minutes})")
    ap.add_argument("--noise", type=float, default=10, help="per cent of a processor that others may use; above that a "
                    "sample is taken again, twice at most (10)")
    ap.add_argument("--cpus", help="two processors, SERVER,LOAD")
    ap.add_argument("--nice", type=int, default=0,
                    help="of server and load: below 0, which root may, others disturb less (0)")
    ap.add_argument("--lock", metavar="FILE", help="hold its lock, as flock(1) does, during each round")
    ap.add_argument("--add", action="store_true", help="keep the other results that are there")


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                 epilog=f"servers: {', '.join(SERVERS)}\nworkloads: {', '.join(WORKLOADS)}")
    common_arguments(ap, rounds=7, minutes=15)
    ap.add_argument("-w", "--workloads", help="some of them, with commas between")
    ap.add_argument("-s", "--servers", help="some of them; epoll is always there")
    return ap.parse_args()


def end_all_with_this():
    """Whoever ends the run ends the server and the load as well."""
    def end(number, _):
        for other in measure.ENDS:
            signal.signal(other, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in measure.ENDS:
        signal.signal(number, end)


def begin(option, name, key, chosen):
    """The bench, the folder for results, and what they begin with: this machine, and with --add what is there."""
    available = sorted(os.sched_getaffinity(0))
    cpus = [available[0], available[min(1, len(available) - 1)]]
    if option.cpus:
        cpus = [int(x) for x in option.cpus.split(",")]
    if cpus[0] == cpus[1]:
        print("Server and load share a processor: no figure means much.", file=sys.stderr)
    build = os.path.abspath(option.build)
    out = option.out or build + "/bench"
    results = {key: {}, "versions": {}}
    if option.add and os.path.exists(os.path.join(out, name)):
        with open(os.path.join(out, name)) as f:
            results = json.load(f)
    versions = {n: version(s["version"].format(build=build, python=measure.PYTHON))
                for n, s in SERVERS.items() if n in chosen and "version" in s}
    if key == "workloads":
        versions["wrk"] = version("dpkg-query -W wrk")
    results |= {"base": BASE, "order": list(SERVERS), "date": time.strftime("%Y-%m-%d"), "machine": machine(cpus),
                "rounds": option.rounds, "seconds": option.seconds, "versions": results["versions"] | versions}
    end_all_with_this()
    os.nice(option.nice)
    os.sched_setaffinity(0, {cpus[1]})
    return measure.Bench(build, cpus, option.seconds, option.warmup), out, results


def main():
    option = arguments()
    workloads = choose(option.workloads, WORKLOADS, "workload")
    chosen = choose(option.servers, SERVERS, "server")
    chosen = [BASE] * (BASE not in chosen) + chosen
    bench, out, results = begin(option, "results.json", "workloads", chosen)
    servers = usable(bench.build, chosen)
    weights = {w: seconds_of(w, servers, option) for w in workloads}
    total, due = sum(weights.values()), 0
    progress = Progress(option.minutes)
    progress.say(f"{len(workloads)} workloads, {len(servers)} servers, {option.rounds} rounds: about "
                 f"{max(1, round(total / 60))} min, at most {option.minutes:g}", now=True)
    for workload in workloads:
        due += weights[workload]
        if progress.elapsed() > progress.limit:
            progress.say(f"{workload} is left out, for lack of time", now=True)
            continue
        until = progress.limit * due / total
        results["workloads"][workload] = run_workload(bench, workload, servers, option, progress, until)
        results["workloads"] = {w: results["workloads"][w] for w in WORKLOADS if w in results["workloads"]}
        report.write_all(results, out)
        progress.say(f"{workload} done", now=True)
    print("\n" + report.markdown(results))
    progress.say(f"results.json, results.md and results.svg are in {os.path.relpath(out)}", now=True)


if __name__ == "__main__":
    main()
