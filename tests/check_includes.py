#!/usr/bin/env python3
"""Checks who includes whom; prints each offending line and exits 1.

    tests/check_includes.py [ROOT]

Two rules.  Includes point one way along tools -> fs -> fetch -> store -> store/base, written as
paths from the repository root; nothing includes tests.  And a third-party header has an owner:
it is included there and nowhere else, so that replacing a library is the matter of one place.
Tests may include everything.
"""

import pathlib
import re
import sys

# Lowest first: a folder may include itself and what stands before it.
LAYERS = ["store/base", "store", "fetch", "fs", "tools"]

# (what, its headers, the files that may include them), the files as paths from the root.
OWNERS = [
    ("FUSE", r"fuse(3/|\.h|_\w+\.h)|linux/fuse\.h", r"fs/.*"),
    ("curl", r"curl/.*", r"fetch/(http\.cc|http_transfer\.(cc|h))"),
    ("SQLite", r"sqlite3(ext)?\.h", r"store/sqlite\.(h|cc)"),
    ("zstd", r"zstd(_errors)?\.h|zdict\.h", r"store/codec/.*|store/base/digest\.cc"),
    ("LZ4", r"lz4\w*\.h", r"store/codec/.*|store/base/digest\.cc"),
    ("BLAKE3", r"blake3\.h", r"store/codec/.*|store/base/digest\.cc"),
    ("xxHash", r"xxh\w*\.h", r"store/.*\.cc"),
    ("OpenSSL", r"openssl/.*", r"store/base/digest\.cc"),
    ("JSON", r"nlohmann/.*", r".*\.cc"),
    ("libmicrohttpd", r"microhttpd\.h", r"fetch/http_server\.cc"),
    ("CLI11", r"CLI/.*", r"tools/.*"),
    ("spdlog", r"(spdlog|fmt)/.*", r"store/base/log\.cc"),
    ("GoogleTest", r"(gtest|gmock)/.*", r"tests/.*"),
]

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def layer_of(path):
    """The layer a path from the root lies in, or None."""
    for layer in LAYERS:  # store/base stands before store, so it is found first
        if path.startswith(layer + "/"):
            return layer
    return None


def problem_with(root, path, quote, header):
    """What is wrong when `path` includes `header`, or None."""
    for name, headers, owners in OWNERS:
        if re.fullmatch(headers, header) and not re.fullmatch(owners, path):
            return f"{name} headers belong to {owners}"
    if header.startswith("tests/"):
        return "nothing includes tests"
    target = layer_of(header)
    if target is not None:
        if quote == "<":
            return "own headers are included with quotes"
        if LAYERS.index(target) > LAYERS.index(layer_of(path)):
            return f"{layer_of(path)} must not include {target}"
    if quote == '"' and not (root / header).is_file():
        return "no such file below the root (paths start at the repository root)"
    return None


def check(root):
    """All problems of the tree at `root`, one line of text each."""
    problems = []
    folders = {layer.split("/")[0] for layer in LAYERS}
    files = [f for folder in folders for f in (root / folder).rglob("*")]
    for file in sorted(f for f in files if f.suffix in (".cc", ".h", ".cpp", ".hpp", ".inc")):
        path = file.relative_to(root).as_posix()
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            match = INCLUDE.match(line)
            problem = match and problem_with(root, path, match.group(1), match.group(2))
            if problem:
                problems.append(f"{path}:{number}: {line.strip()}: {problem}")
    return problems


def main():
    default = pathlib.Path(__file__).resolve().parent.parent
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    problems = check(root)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
