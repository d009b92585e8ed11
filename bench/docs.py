#!/usr/bin/env python3
"""Puts what was measured into the documentation, in place of what was there.

docs.py RESULTS DOCS     the folders; results and axes are taken, whichever are there
"""
import os
import re
import sys


def put(page, name, text):
    """The page with text between its marks of that name."""
    begin, end = f"<!-- {name}: written by make bench-docs -->", f"<!-- {name}: end -->"
    found = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.S)
    if len(found.findall(page)) != 1:
        sys.exit(f"no place for {name}: {begin} ... {end}")
    return found.sub(lambda _: f"{begin}\n\n{text.strip()}\n\n{end}", page)


def read(path):
    with open(path) as f:
        return f.read()


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


def main(results, docs):
    path = os.path.join(docs, "performance.md")
    page = read(path)
    names = [n for n in ("results", "axes") if os.path.exists(os.path.join(results, n + ".md"))]
    for name in names:
        page = put(page, name, read(os.path.join(results, name + ".md")))
        plot = {"results": "performance.svg", "axes": "performance-axes.svg"}[name]
        write(os.path.join(docs, plot), read(os.path.join(results, name + ".svg")))
    write(path, page)
    print(f"{path}: {', '.join(names) or 'nothing was measured'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
