"""From samples to medians, tables and plots.

report.py RESULTS.json FOLDER     writes results.md and results.svg there again
"""
import json
import os
import statistics
import sys

import charts

PLOTTED = "echo1", "echo64", "conn", "udp64", "http64", "ping16"
NAMES = {"epoll": "raw C, epoll", "c-prefork": "raw C, pre-forked", "haproxy-lua": "HAProxy Lua",
         "nginx-lua": "nginx Lua", "py-threading": "Python Threading", "py-forking": "Python Forking",
         "redis": "redis-server", "copas": "Copas",
         "moonport-threading": "moonport threading", "moonport-forking": "moonport forking",
         "moonport-epoll": "moonport epoll", "moonport-uring": "moonport io_uring"}

PROGRAMS = {"epoll": "gcc", "asyncio": "Python", "haproxy-lua": "HAProxy", "nginx-lua": "nginx", "lua5.4 -e ''": "Lua"}


def name(server):
    return NAMES.get(server, server)


def quartiles(values):
    """The first, the median and the third; of fewer than four values, the least and the greatest."""
    values = sorted(values)
    middle = statistics.median(values)
    if len(values) < 4:
        return values[0], middle, values[-1]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, middle, third


def figures(samples, key):
    """Quartiles over the rounds, or None."""
    values = [s[key] for s in samples if s and key in s]
    return quartiles(values) if values else None


def ratios(samples, base, key):
    """Quartiles of the ratios within a round, or None."""
    values = [s[key] / b[key] for s, b in zip(samples, base) if s and b and key in s and b.get(key)]
    return quartiles(values) if values else None


def brief(sample):
    parts = [f"{sample['rps']:,.0f}/s" if "rps" in sample and sample["rps"] else "",
             f"{sample['cpu_us']:.2f} us" if "cpu_us" in sample else "",
             f"{sample['kib']:.2f} KiB" if "kib" in sample else "", f"{sample['ms']:.1f} ms" if "ms" in sample else "",
             f"{sample['errors']} errors" if sample.get("errors") else ""]
    return " ".join(filter(None, parts))


def table(head, rows):
    """Markdown; all columns but the first are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def digits_of(value, digits):
    return f"{value + 0:,.{max(0, digits - 1 if abs(value) >= 100 else digits)}f}".replace("-0.00", "0.00")


def number(quartet, digits=2):
    return "" if quartet is None else digits_of(quartet[1], digits)


def span(quartet, digits=2):
    return "" if quartet is None else digits_of(quartet[0], digits) + "–" + digits_of(quartet[2], digits)


def loads(results):
    """The workloads that are measured in requests, by name."""
    return {n: w for n, w in results["workloads"].items() if w["how"] not in ("idle", "start")}


def overview(results, cell):
    """One row for each server, one column for each workload; cell(workload, samples) is what stands there."""
    columns = loads(results)
    servers = [s for s in results["order"] if any(s in w["servers"] for w in columns.values())]
    rows = []
    for server in servers:
        cells = [cell(w, w["servers"][server]) if server in w["servers"] else "" for w in columns.values()]
        rows.append([name(server)] + cells)
    return table([""] + [f"`{n}`" for n in columns], rows)


def detail(workload, base):
    """All figures of one workload."""
    reference = workload["servers"].get(base, [])
    rows = []
    for server, samples in workload["servers"].items():
        taken = [s for s in samples if s]
        cpu, peak = figures(samples, "cpu_us"), figures(samples, "peak")
        rows.append([name(server), number(figures(samples, "rps"), 0), span(figures(samples, "rps"), 0),
                     number(ratios(samples, reference, "rps")), span(ratios(samples, reference, "rps"), 2),
                     number(cpu), span(cpu, 2), number(ratios(samples, reference, "cpu_us")),
                     number(figures(samples, "server"), 0), number(figures(samples, "load"), 0),
                     number(figures(samples, "p50"), 0), number(figures(samples, "p99"), 0), number(peak, 1),
                     number(figures(samples, "noise"), 0), str(sum(s["errors"] for s in taken)), str(len(taken))])
    return table(["server", "req/s", "quartiles", "of raw", "quartiles", "CPU µs/req", "quartiles", "of raw",
                  "server %", "load %", "p50 µs", "p99 µs", "peak MiB", "noise %", "errors", "rounds"], rows)


def idle(workload):
    rows = []
    for server, samples in workload["servers"].items():
        kib = figures(samples, "kib")
        rows.append([name(server), number(figures(samples, "count"), 0), number(kib), span(kib),
                     number(figures(samples, "empty"), 1), str(sum(s["errors"] for s in samples if s))])
    return table(["server", "idle connections", "KiB for each", "quartiles", "MiB without any", "errors"], rows)


def start(workload):
    base, rows = workload["servers"].get("lua5.4 -e ''", []), []
    for server, samples in workload["servers"].items():
        ms, called = figures(samples, "ms"), name(server)
        rows.append([called, number(ms, 1), span(ms, 1), number(ratios(samples, base, "ms"), 1)])
    return table(["program", "ms", "quartiles", "of `lua5.4 -e ''`"], rows)


def rounds(results):
    """How many there were: some workloads may have had no time for all."""
    base = results["base"]
    counts = {len(w["servers"].get(base, [])) for w in loads(results).values()} if "workloads" in results else {
        len(points[0][base]) for points in results["axes"].values()}
    counts = sorted(counts) or [results["rounds"]]
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def noise(results):
    """Of all samples: what others took of the busier processor, in per cent."""
    groups = [w["servers"].values() for w in results.get("workloads", {}).values()]
    groups += [(p["moonport"], p[results["base"]]) for points in results.get("axes", {}).values() for p in points]
    values = [s["noise"] for group in groups for samples in group for s in samples if s and "noise" in s]
    return f"{statistics.median(values):.0f} %" if values else "unknown"


def machine(results):
    m = results["machine"]
    versions = ", ".join(f"{PROGRAMS.get(n, name(n))} {v}" for n, v in results["versions"].items()
                         if v and not n.startswith(("moonport-", "py-")))
    return (f"{m['processors']} processors ({m['processor']}), {m['memory_gib']} GiB, {m['system']}, "
            f"Linux {m['kernel']}; the server on processor {m['cpus'][0]}, the load on {m['cpus'][1]}. "
            f"{results['date']}, {rounds(results)} rounds, {results['seconds']:g} s for each sample; "
            f"median noise {noise(results)}.\n\n"
            f"Versions: {versions}.")


def markdown(results):
    base, parts = results["base"], [machine(results)]
    shown = loads(results)

    def of_raw(workload, samples):
        return number(ratios(samples, workload["servers"].get(base, []), "rps"))

    if shown:
        parts += ["Requests a second, of the raw C loop's in the same round (medians):", overview(results, of_raw),
                  "CPU time of the server for each request, in microseconds (medians):",
                  overview(results, lambda _, samples: number(figures(samples, "cpu_us")))]
    for key, build in (("idle", idle), ("start", start)):
        if key in results["workloads"]:
            parts += [f"### {results['workloads'][key]['title'].capitalize()}", build(results["workloads"][key])]
    for key, workload in shown.items():
        parts.append(f"<details><summary><code>{key}</code>: {workload['title']}</summary>\n\n"
                     f"{detail(workload, base)}\n\n</details>")
    left = [f"`{key}`: {name(n)}: {why}" for key, w in results["workloads"].items() for n, why in w["left_out"].items()]
    if left:
        parts += ["### Left out", "\n".join("- " + text for text in left)]
    return "\n\n".join(parts) + "\n"


def css(server, base):
    return "base" if server in (base, "c-prefork") else "ours" if server.startswith("moonport") else "peer"


def panel(workload, base, title, axis, pick, mark=None, best_first=1):
    """A panel of bars, or None where there is nothing to show."""
    rows = []
    for server, samples in workload["servers"].items():
        quartet = pick(samples)
        if quartet:
            low, value, high = quartet
            rows.append((name(server), css(server, base), value, low, high))
    rows.sort(key=lambda row: -best_first * row[2])
    return (lambda x, y: charts.bars(x, y, title, axis, rows, mark)) if rows else None


def svg(results):
    base, works, panels = results["base"], results["workloads"], []
    for key in PLOTTED:
        if key in works:
            raw = works[key]["servers"].get(base, [])
            panels.append(panel(works[key], base, works[key]["title"], "requests a second, raw C = 1",
                                lambda samples, raw=raw: ratios(samples, raw, "rps"), mark=1))
    for key in ("echo64", "conn"):
        if key in works:
            panels.append(panel(works[key], base, "CPU, " + works[key]["title"], "CPU µs for each request",
                                lambda samples: figures(samples, "cpu_us"), best_first=-1))
    if "idle" in works:
        panels.append(panel(works["idle"], base, "idle connections", "KiB for each idle connection",
                            lambda samples: figures(samples, "kib"), best_first=-1))
    m = results["machine"]
    foot = (f"Medians and quartiles of {rounds(results)} rounds on {m['processors']} processors ({m['processor']}), "
            f"{m['system']}, {results['date']}.")
    what = ("Bars for each server: requests a second as a ratio to a raw C loop on epoll, CPU microseconds for each "
            "request, and memory for each idle connection.")
    return charts.page("moonport beside a raw C loop and other servers", what, foot, [p for p in panels if p])


def write(folder, stem, results, tables, plot):
    """The samples, their tables and their plot."""
    os.makedirs(folder, exist_ok=True)
    for end, content in (("json", json.dumps(results, indent=1) + "\n"), ("md", tables), ("svg", plot)):
        with open(os.path.join(folder, f"{stem}.{end}"), "w") as f:
            f.write(content)


def write_all(results, folder):
    write(folder, "results", results, markdown(results), svg(results))


if __name__ == "__main__":
    with open(sys.argv[1]) as samples:
        write_all(json.load(samples), sys.argv[2])
