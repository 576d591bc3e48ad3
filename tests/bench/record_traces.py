#!/usr/bin/env python3
"""Records what the kernel asks a file system for when a model is read: tests/fetch/traces.

    PATTERN_MOUNT_BIN=build/dev/pattern_mount tests/bench/record_traces.py [NAME…]      (as root)

Each reader below has the shape of one in use (safetensors' mapping, vLLM's prefetch, Run:ai's
streamer, fastsafetensors, ServerlessLLM, llama.cpp) or of a rank that needs only a part.  They read
a file of 256 MiB whose reads take 2 ms, so that threads take turns as they do over a network.

A trace is text: "tensors HEADER BYTES…" (the file's layout; one number: no tensors), "wanted BYTES"
(what the reader needs), then a line per request, "OFFSET LENGTH" in KiB where exact, counted
"xN" when the next N requests follow each other.
"""

import ctypes
import mmap
import os
import random
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "mount"))
from mountlib import KIB, MIB, Map, drop_caches, in_threads, is_mounted, libc, wait_until

PATTERN_MOUNT = os.environ.get("PATTERN_MOUNT_BIN", "build/dev/pattern_mount")
FILE = 256 * MIB
HEADER = 64 * KIB
TRACES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fetch", "traces")
MAP_POPULATE = 0x8000


def tensors(*sizes):
    """The layout of the file: sizes after the header; the rest is the last tensor."""
    rest = FILE - HEADER - sum(sizes)
    assert rest >= 0
    return [*sizes, *([rest] if rest else [])]


def starts(sizes):
    at, found = HEADER, []
    for size in sizes:
        found.append((at, size))
        at += size
    return found


LAYER = [16 * KIB, 28 * MIB, 28 * MIB, 16 * KIB, 2 * MIB, 8 * MIB, 8 * MIB, 2 * MIB]
MODEL = tensors(*LAYER, *LAYER, *LAYER)
SMALL = tensors(*[3 * MIB] * 84)
FUSED = tensors(60 * MIB, 60 * MIB, 60 * MIB)
ROWS = tensors(*[32 * MIB] * 7)


def touch(mapped, offset, length):
    """A page at a time, as a copy to a device does."""
    for at in range(offset, offset + length, 64 * KIB):
        mapped.read(at, min(64 * KIB, offset + length - at))


def read_from(fd, offset, length, block):
    buffer = mmap.mmap(-1, block)
    first = ctypes.c_char.from_buffer(buffer)
    for at in range(offset, offset + length, block):
        got = libc.pread(fd, ctypes.addressof(first), min(block, offset + length - at), at)
        assert got > 0
    del first


def sliced(path, threads, block, flags=0):
    fd = os.open(path, os.O_RDONLY | flags)
    part = FILE // threads
    in_threads(threads, lambda i: read_from(fd, i * part, part, block))
    os.close(fd)


def mapped_tensors(path, layout, threads=1, order=None):
    places = starts(layout)
    if order:
        order(places)
    lock = threading.Lock()
    with open(path, "rb") as file:
        file.read(HEADER)
    with Map(path) as mapped:

        def work(_):
            while True:
                with lock:
                    if not places:
                        return
                    at, size = places.pop(0)
                touch(mapped, at, size)

        in_threads(threads, work)


def mapped_parts(path, parts):
    with open(path, "rb") as file:
        file.read(HEADER)
    with Map(path) as mapped:
        for at, size in parts:
            touch(mapped, at, size)


def populate(path):
    fd = os.open(path, os.O_RDONLY)
    where = libc.mmap(None, FILE, mmap.PROT_READ, mmap.MAP_SHARED | MAP_POPULATE, fd, 0)
    libc.munmap(where, FILE)
    os.close(fd)


def buffered(path, block):
    fd = os.open(path, os.O_RDONLY)
    read_from(fd, 0, FILE, block)
    os.close(fd)


def shuffle(seed):
    return lambda places: random.Random(seed).shuffle(places)


def experts(layout, every):
    """Of groups of three tensors, every so manyth."""
    places = starts(layout)
    return [place for i, place in enumerate(places) if i // 3 % every == 0]


def fused_experts():
    """Of each tensor's twenty experts, five."""
    return [(at + i * size // 20, size // 20) for at, size in starts(FUSED)[:3] for i in (1, 2, 8, 13, 19)]


def row_slices(rank, ranks):
    return [(at + rank * size // ranks, size // ranks) for at, size in starts(ROWS)]


def column_slices(rank, ranks, row=16 * KIB):
    return [(at + i + rank * row // ranks, row // ranks)
            for at, size in starts(ROWS)[:2] for i in range(0, size, row)]


def faults(count, seed):
    chance = random.Random(seed)
    return [(chance.randrange(FILE // 4096) * 4096, 4096) for _ in range(count)]


READERS = {
    # name: (layout, bytes needed, reader)
    "safetensors": (MODEL, FILE, lambda path: mapped_tensors(path, MODEL)),
    "safetensors_threads": (MODEL, FILE, lambda path: mapped_tensors(path, MODEL, 16)),
    "safetensors_shuffled": (SMALL, FILE, lambda path: mapped_tensors(path, SMALL, order=shuffle(1))),
    "vllm_prefetch": (MODEL, FILE, lambda path: buffered(path, 16 * MIB)),
    "runai_streamer": (MODEL, FILE, lambda path: sliced(path, 16, 2 * MIB)),
    "fastsafetensors": (MODEL, FILE, lambda path: sliced(path, 16, 16 * MIB)),
    "serverlessllm": (MODEL, FILE, lambda path: sliced(path, 4, 32 * MIB, os.O_DIRECT)),
    "llama_populate": (None, FILE, populate),
    "llama_buffered": (None, FILE, lambda path: buffered(path, 128 * KIB)),
    "expert_parallel": (SMALL, sum(size for _, size in experts(SMALL, 4)),
                        lambda path: mapped_parts(path, experts(SMALL, 4))),
    "fused_experts": (FUSED, sum(size for _, size in fused_experts()),
                      lambda path: mapped_parts(path, fused_experts())),
    "row_slices": (ROWS, sum(size for _, size in row_slices(1, 4)),
                   lambda path: mapped_parts(path, row_slices(1, 4))),
    "column_slices": (ROWS, 64 * MIB, lambda path: mapped_parts(path, column_slices(1, 4))),
    "random_faults": (None, 64 * 4 * KIB, lambda path: mapped_parts(path, faults(64, 2))),
}


def shorten(lines):
    """Requests that follow each other in a row become one line."""
    rows = []
    for line in lines:
        offset, length = (int(word) for word in line.split())
        if rows and rows[-1][1] == length and rows[-1][0] + rows[-1][1] * rows[-1][2] == offset:
            rows[-1][2] += 1
        else:
            rows.append([offset, length, 1])
    unit = lambda value: f"{value // KIB}K" if value % KIB == 0 else str(value)
    return [f"{unit(offset)} {unit(length)}" + (f" x{count}" if count > 1 else "")
            for offset, length, count in rows]


def record(name):
    layout, wanted, reader = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        mnt, raw = os.path.join(folder, "mnt"), os.path.join(folder, "raw")
        os.mkdir(mnt)
        subprocess.run([PATTERN_MOUNT, mnt, f"trace={raw}", "latency_ms=2"], check=True, timeout=60)
        try:
            wait_until(lambda: is_mounted(mnt), "the mount")
            drop_caches()
            reader(os.path.join(mnt, "f"))
        finally:
            subprocess.run(["umount", "-l", mnt], check=False, timeout=60)
        with open(raw) as lines:
            requests = shorten(lines)
    with open(os.path.join(TRACES, name + ".trace"), "w") as out:
        sizes = [HEADER, *layout] if layout else [FILE]
        print("tensors", *sizes, file=out)
        print("wanted", wanted, file=out)
        print(*requests, sep="\n", file=out)
    print(f"{name}: {len(requests)} lines")


if __name__ == "__main__":
    for name in sys.argv[1:] or READERS:
        record(name)
