#!/usr/bin/env python3
"""What a request costs as work grows: CPU time for each, of moonport and of the raw limit.

One axis at a time, the rest as it is.  Both servers are measured at each point in each round.
"""
import argparse
import contextlib
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time

import charts
import measure
import report
import run

BYTES = {1000: "1 kB", 10000: "10 kB", 100000: "100 kB", 1000000: "1 MB"}
SIZES = {1: "1 B", 64: "64 B", 1024: "1 KiB", 16384: "16 KiB", 131072: "128 KiB", 2**20: "1 MiB"}


class Axis:
    """points, what they are called, and how each is loaded; prepare(server, point), for moonport alone, returns what
    is kept open meanwhile."""

    def __init__(self, title, what, points, load, options="", script=None, prepare=None, names=None):
        self.title, self.what, self.points, self.load = title, what, points, load
        self.options, self.script, self.prepare, self.names = options, script, prepare, names or {}

    def name(self, point):
        return self.names.get(point, f"{point:,}")


def connections(count):
    return f"echo -c {(count + 1) // 2} -i {count // 2} -a 4"


def echo_script():
    with open(measure.HERE + "/../scripts/echo.lua") as f:
        return f.read()


def long_script(folder, size):
    """The echo script, with functions in it until it is that long."""
    head, parts = echo_script().split("return Echo")[0], []
    while len(head) + sum(map(len, parts)) < size:
        i = len(parts)
        parts.append(f"\nEcho.unused{i} = function(a, b)\n  local t = {{ a, b }}\n  return t[1] + t[2] * {i}\nend\n")
    return write_script(folder, head + "".join(parts) + "return Echo\n")


def write_script(folder, text):
    """Replaces it whole, as editors do."""
    path = os.path.join(folder, "echo.lua")
    with open(path + ".new", "w") as f:
        f.write(text)
    os.rename(path + ".new", path)
    return path


def sleep_many(server, count):
    """Returns the connection that the sleepers belong to."""
    client = server.connect()
    request = f"sleepers {count}\n".encode()
    client.sendall(request)
    if client.recv(100) != request:
        raise measure.Failed("the sleepers were not started")
    return client


def reload_often(server, count):
    """A new generation each time, and one request of it.  There is nothing to keep."""
    path = next(word for word in server.command if word.endswith("echo.lua"))
    for i in range(2, count + 2):
        write_script(os.path.dirname(path), echo_script() + f"-- {i}\n")
        os.kill(server.process.pid, signal.SIGHUP)
        until = time.monotonic() + 10
        while f" generation={i} " not in measure.read(server.log):
            if time.monotonic() > until:
                raise measure.Failed(f"generation {i} does not come")
            time.sleep(0.002)
        if not server.answers():
            raise measure.Failed(f"generation {i} does not answer")
    return contextlib.nullcontext()


AXES = {
    "connections": Axis("connections, half of them idle", "connections", [1, 16, 64, 256, 1000, 4000, 16000],
                        connections),
    "size": Axis("bytes of a line, 16 connections", "bytes of a line", list(SIZES), lambda n: f"echo -c 16 -s {n}",
                 "-o max_line=2M", names=SIZES),
    "stream": Axis("bytes sent back as they come, 16 connections", "bytes of a message", list(SIZES),
                   lambda n: f"echo -c 16 -s {n}", script=lambda *_: measure.HERE + "/stream.lua", names=SIZES),
    "depth": Axis("lines sent at once, 64 connections", "lines at once", [1, 2, 4, 8, 16, 32, 64],
                  lambda n: f"echo -c 64 -p {n}"),
    "timers": Axis("sleeping tasks beside 64 connections", "sleeping tasks", [0, 16, 256, 4000, 16000],
                   lambda _: "echo -c 64", options="-o timeout=600",
                   script=lambda *_: measure.HERE + "/sleepers.lua", prepare=sleep_many),
    "script": Axis("bytes of the script, 64 connections", "bytes of the script", list(BYTES), lambda _: "echo -c 64",
                   script=long_script, names=BYTES),
    "generations": Axis("reloads before, 64 connections", "reloads", [0, 1, 10, 100], lambda _: "echo -c 64",
                        script=lambda folder, _: write_script(folder, echo_script()), prepare=reload_often),
}


def sample(bench, axis, point, server):
    """CPU microseconds for each request, and errors, of a fresh server."""
    folder = tempfile.mkdtemp(prefix="bench-")
    try:
        command = run.SERVERS[run.BASE]["tcp"]
        if server == "moonport":
            script = axis.script(folder, point) if axis.script else measure.HERE + "/../scripts/echo.lua"
            command = f"{run.MOON} {script} -l {{url}} -o max_connections=20000 {axis.options}"
        with bench.server(command, "tcp") as running:
            with contextlib.ExitStack() as kept:
                if server == "moonport" and axis.prepare:
                    kept.enter_context(axis.prepare(running, point))
                return bench.echo(running, axis.load(point))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_axis(bench, axis, option, progress, until):
    """[{"name": of the point, "moonport": [sample of each round], "epoll": the same}]"""
    points = [{"name": axis.name(p), "moonport": [], run.BASE: []} for p in axis.points]
    longest = 0
    for i in range(option.rounds):
        began = progress.elapsed()
        if i and began + longest > until:
            progress.say(f"{axis.title}: {i} of {option.rounds} rounds, for lack of time", now=True)
            break
        with run.alone(option):
            for value, point in zip(axis.points, points):
                for server in (run.BASE, "moonport") if i % 2 == 0 else ("moonport", run.BASE):
                    figures = run.least_disturbed(lambda v=value, s=server: sample(bench, axis, v, s), option.noise)
                    point[server].append(figures)
                    progress.say(f"{axis.title}: {point['name']}: {server}, round {i + 1} of {option.rounds}: "
                                 + report.brief(figures))
        longest = max(longest, progress.elapsed() - began)
    return points


def medians(points, server):
    return [statistics.median(s["cpu_us"] for s in p[server]) for p in points]


def growth(points):
    """At each point: how much dearer a request is than at the first, beside how much dearer it is for the raw loop."""
    ratios = [report.ratios(p["moonport"], p[run.BASE], "cpu_us")[1] for p in points]
    return [r / ratios[0] for r in ratios]


def markdown(results):
    parts = [report.machine(results)]
    for key, points in results["axes"].items():
        axis = AXES[key]
        rows = []
        for point, grown in zip(points, growth(points)):
            moon, raw = point["moonport"], point[run.BASE]
            cells = [report.figures(moon, "cpu_us"), report.figures(raw, "cpu_us"), report.ratios(moon, raw, "cpu_us")]
            errors = sum(s["errors"] for s in moon + raw)
            rows.append([point["name"], *map(report.number, cells), f"{grown:.2f}", str(errors)])
        head = [axis.what, "moonport, µs", "raw C, µs", "of raw", "growth beside raw", "errors"]
        parts += [f"### By {axis.title}", report.table(head, rows)]
    return "\n\n".join(parts) + "\n"


def svg(results):
    panels = []
    for key, points in results["axes"].items():
        axis, names = AXES[key], [p["name"].replace(",000", "k") for p in points]
        series = [("base", medians(points, run.BASE)), ("ours", medians(points, "moonport"))]
        panels.append(lambda x, y, a=axis, n=names, s=series: charts.lines(x, y, a.what, a.title, n, s))
    what = "Lines: CPU microseconds for each request, of moonport and of a raw C loop on epoll, along each axis."
    m = results["machine"]
    foot = (f"CPU microseconds for each request. moonport: solid; raw C loop: dashed. "
            f"{m['processors']} processors ({m['processor']}), {results['date']}.")
    return charts.page("What a request costs as work grows", what, foot, panels)


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, epilog="axes: " + ", ".join(AXES))
    run.common_arguments(ap, rounds=5, minutes=10)
    ap.add_argument("-a", "--axes", help="some of them, with commas between")
    return ap.parse_args()


def main():
    option = arguments()
    axes = run.choose(option.axes, AXES, "axis")
    bench, out, results = run.begin(option, "axes.json", "axes", [run.BASE, "moonport"])
    progress = run.Progress(option.minutes)
    count = sum(len(AXES[a].points) for a in axes)
    about = 2 * count * option.rounds * (option.seconds + option.warmup + 0.4) / 60
    progress.say(f"{len(axes)} axes, {option.rounds} rounds: about {about:.0f} min, at most {option.minutes:g}",
                 now=True)
    for i, key in enumerate(axes):
        if progress.elapsed() > progress.limit:
            progress.say(f"{key} is left out, for lack of time", now=True)
            continue
        try:
            results["axes"][key] = run_axis(bench, AXES[key], option, progress, progress.limit * (i + 1) / len(axes))
        except (measure.Unusable, measure.Failed) as why:
            sys.exit(f"{key}: {why}")
        results["axes"] = {a: results["axes"][a] for a in AXES if a in results["axes"]}
        report.write(out, "axes", results, markdown(results), svg(results))
        progress.say(f"{key} done", now=True)
    print("\n" + markdown(results))


if __name__ == "__main__":
    main()
