#!/usr/bin/env python3
"""Reading one model file through a mount, beside the plain file, in the ways that loaders read.

    tests/bench/read_path.py [--mib 2048] [--rounds 5] [--only WORD…] [--json FILE] [--svg FILE]

As root.  Rows are reader shapes; columns are the states a file can be in: cold (nothing is local),
warm (in the store, page cache dropped), hot (in the page cache), passthrough (materialized, page
cache dropped and hot), each with raw and with encoded chunks where that makes a difference.  The
plain file is read beside every figure, in turn, in the same state of the page cache; a figure is
the median of the rounds, as MB/s and as a share of the plain file's.  The plain file's own spread
is printed because machines are shared.  Interrupted, it shows what it has.  CAKE_BIN names the program; default build/dev/cake.
"""

import argparse
import ctypes
import json
import mmap
import os
import random
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from array import array

CAKE = os.path.abspath(os.environ.get("CAKE_BIN", "build/dev/cake"))
KIB, MIB = 1 << 10, 1 << 20
REPO, NAME = "bench/model", "w.safetensors"
TENSOR_BYTES = 24 * MIB

libc = ctypes.CDLL("libc.so.6", use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.memcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
libc.pread.restype = ctypes.c_ssize_t
libc.pread.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long]
MAP_POPULATE = 0x8000


# --- The file -----------------------------------------------------------------------------------


def weights(count):
    """BF16 numbers as trained weights are: normal, so that only sign and exponent can be coded."""
    floats = array("f", (random.gauss(0, 0.02) for _ in range(count))).tobytes()
    out = bytearray(2 * count)
    out[0::2], out[1::2] = floats[2::4], floats[3::4]
    return bytes(out)


def make_file(path, mib):
    os.makedirs(os.path.dirname(path))
    random.seed(1)
    block = weights(8 * MIB // 2)
    tensors, count = {}, max(1, mib * MIB // TENSOR_BYTES)
    for index in range(count):
        tensors[f"layer.{index}.weight"] = {
            "dtype": "BF16",
            "shape": [TENSOR_BYTES // 2],
            "data_offsets": [index * TENSOR_BYTES, (index + 1) * TENSOR_BYTES],
        }
    header = json.dumps(tensors).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for _ in range(count * TENSOR_BYTES // len(block)):
            # Turned by an odd number of values: no two chunks are equal.
            turn = 2 * random.randrange(len(block) // 2)
            file.write(block[turn:] + block[:turn])
        os.fsync(file.fileno())
    return 8 + len(header)


# --- Readers ------------------------------------------------------------------------------------


def in_threads(count, function):
    failures = []

    def body(index):
        try:
            function(index)
        except BaseException as error:  # raised below
            failures.append(error)

    threads = [threading.Thread(target=body, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def read_range(fd, buffer, offset, end, block):
    while offset < end:
        want = min(block, end - offset)
        got = libc.pread(fd, buffer, want, offset)
        if got != want:
            raise SystemExit(f"pread of {want} at {offset} gave {got}")
        offset += want


class Target:
    """A file under test: its path, size, and where tensors begin."""

    def __init__(self, path, data_start):
        self.path, self.start = path, data_start
        self.bytes = os.path.getsize(path)

    def preads(self, threads, block, flags=0):
        """Each thread reads a contiguous part, consecutively."""
        fd = os.open(self.path, os.O_RDONLY | flags)
        part = -(-self.bytes // threads // block) * block
        # O_DIRECT: whole blocks, as ServerlessLLM's files have them.
        size = self.bytes // (4 * KIB) * (4 * KIB) if flags & os.O_DIRECT else self.bytes

        def body(index):
            with mmap.mmap(-1, block) as memory:
                view = ctypes.c_char.from_buffer(memory)
                read_range(fd, ctypes.addressof(view), index * part, min((index + 1) * part, size), block)
                del view

        try:
            in_threads(threads, body)
        finally:
            os.close(fd)
        return size

    def mapped(self, threads, flags=0):
        """Tensors in file order, each copied in 1 MiB steps by whichever thread is free."""
        fd = os.open(self.path, os.O_RDONLY)
        address = libc.mmap(None, self.bytes, mmap.PROT_READ, mmap.MAP_SHARED | flags, fd, 0)
        os.close(fd)
        tensors = iter([(0, self.start)] + [(at, min(at + TENSOR_BYTES, self.bytes))
                                            for at in range(self.start, self.bytes, TENSOR_BYTES)])
        lock = threading.Lock()

        def body(_):
            sink = ctypes.create_string_buffer(MIB)
            while True:
                with lock:
                    tensor = next(tensors, None)
                if tensor is None:
                    return
                for offset in range(*tensor, MIB):
                    libc.memcpy(sink, address + offset, min(MIB, tensor[1] - offset))

        try:
            in_threads(threads, body)
        finally:
            libc.munmap(address, self.bytes)
        return self.bytes

    def touches(self, count=2048):
        """Lone 4 KiB touches all over a mapping: what they cost, as bytes touched."""
        fd = os.open(self.path, os.O_RDONLY)
        address = libc.mmap(None, self.bytes, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        os.close(fd)
        order = random.Random(3).sample(range(self.bytes // (4 * KIB)), min(count, self.bytes // (4 * KIB)))
        sink = ctypes.create_string_buffer(4 * KIB)
        for page in order:
            libc.memcpy(sink, address + page * 4 * KIB, 4 * KIB)
        libc.munmap(address, self.bytes)
        return len(order) * 4 * KIB


SHAPES = {
    "sequential, 1 MiB": lambda target: target.preads(1, MIB),
    "sequential, 16 MiB": lambda target: target.preads(1, 16 * MIB),
    "mmap, tensor order": lambda target: target.mapped(1),
    "mmap, 16 threads": lambda target: target.mapped(16),
    "mmap, MAP_POPULATE": lambda target: target.mapped(1, MAP_POPULATE),
    "16 x 2 MiB": lambda target: target.preads(16, 2 * MIB),
    "16 x 16 MiB": lambda target: target.preads(16, 16 * MIB),
    "4 x 32 MiB O_DIRECT": lambda target: target.preads(4, 32 * MIB, os.O_DIRECT),
    "random 4 KiB touches": lambda target: target.touches(),
}
# A cold store is the network's business: two shapes tell.
COLD_SHAPES = ("sequential, 1 MiB", "16 x 2 MiB")


def drop_page_cache():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as knob:
        knob.write("1")


def rate(shape, target):
    start = time.monotonic()
    count = SHAPES[shape](target)
    return count / (time.monotonic() - start) / 1e6


# --- Mounts -------------------------------------------------------------------------------------


class Bench:
    def __init__(self, work, mib):
        self.work, self.mounts = work, []
        origin = os.path.join(work, "origin")
        self.plain_path = os.path.join(origin, REPO, NAME)
        self.data_start = make_file(self.plain_path, mib)
        self.plain = Target(self.plain_path, self.data_start)
        self.server = subprocess.Popen([CAKE, "serve", origin, "--listen", "127.0.0.1:0"],
                                       stdout=subprocess.PIPE, text=True)
        self.hub = self.server.stdout.readline().strip()

    def mount(self, name, codec, **options):
        where = os.path.join(self.work, "mnt-" + name)
        os.makedirs(where, exist_ok=True)
        words = {"endpoint": self.hub, "store": os.path.join(self.work, "store-" + name), "codec": codec,
                 "log": os.path.join(self.work, "log"), **options}
        subprocess.run([CAKE, "mount", "hf:", where, "-o", ",".join(f"{k}={v}" for k, v in words.items())],
                       check=True, stdout=subprocess.DEVNULL, timeout=120)
        self.mounts.append(where)
        return Target(os.path.join(where, REPO, NAME), self.data_start)

    def umount(self, target):
        where = target.path[: -len(REPO) - len(NAME) - 2]
        subprocess.run([CAKE, "umount", where], check=True, timeout=120)
        self.mounts.remove(where)

    def fill(self, target):
        """All of the file in the store, written out."""
        target.preads(1, 16 * MIB)

    def materialize(self, target):
        """hot=auto does it once the file was read again; passthrough is there from the next open on."""
        worker = self.worker_of(target)
        end = time.monotonic() + 600
        while time.monotonic() < end:
            drop_page_cache()
            before = cpu_seconds(worker)
            target.preads(1, 16 * MIB)
            if cpu_seconds(worker) - before < 0.02:
                return True
            time.sleep(3)
        return False

    def worker_of(self, target):
        listed = subprocess.run([CAKE, "ps", "--json"], stdout=subprocess.PIPE, text=True, timeout=60)
        for entry in json.loads(listed.stdout):
            if target.path.startswith(entry["mount"] + "/"):
                return entry["worker"]
        raise SystemExit("the mount has no worker")

    def close(self):
        for where in self.mounts:
            subprocess.run(["umount", "-l", where], timeout=60)
        self.server.terminate()
        self.server.wait(30)


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Table:
    def __init__(self):
        self.cells = {}  # (shape, state) -> {"plain": [...], "cake": [...], "cpu": [...]}

    def pair(self, bench, shape, state, target, round_number, is_hot=False):
        worker = bench.worker_of(target)
        sides = [("plain", bench.plain), ("cake", target)]
        for side, file in sides if round_number % 2 else sides[::-1]:
            if is_hot:
                SHAPES[shape](file)
            else:
                drop_page_cache()
            before = cpu_seconds(worker)
            cell = self.cells.setdefault((shape, state), {"plain": [], "cake": [], "cpu": []})
            cell[side].append(rate(shape, file))
            if side == "cake":
                cell["cpu"].append(cpu_seconds(worker) - before)

    def rows(self):
        for (shape, state), cell in self.cells.items():
            plain, cake = statistics.median(cell["plain"]), statistics.median(cell["cake"])
            yield {"shape": shape, "state": state, "plain_mb_s": round(plain, 1), "cake_mb_s": round(cake, 1),
                   "ratio": round(cake / plain, 3), "worker_cpu_s": round(statistics.median(cell["cpu"]), 2),
                   "plain_spread": [round(min(cell["plain"]), 1), round(max(cell["plain"]), 1)], "runs": cell}


def print_table(rows, states):
    print("\n| reader | " + " | ".join(states) + " |\n|---" + "|---:" * len(states) + "|")
    for shape in SHAPES:
        cells = {row["state"]: row for row in rows if row["shape"] == shape}
        words = [f"{cells[state]['cake_mb_s']:.0f} ({cells[state]['ratio']:.2f}x)" if state in cells else "–"
                 for state in states]
        if cells:
            print(f"| {shape} | " + " | ".join(words) + " |")
    print("\nMB/s (share of the plain file in the same state). The plain file's own spread:")
    for row in rows:
        low, high = row["plain_spread"]
        print(f"  {row['shape']}, {row['state']}: {low:.0f} to {high:.0f}; worker's CPU {row['worker_cpu_s']:.2f} s")


COLORS = ("#9aa5b1", "#4c78a8", "#72b7b2", "#eeca3b", "#f58518", "#b279a2", "#54a24b")


def write_svg(path, rows, states, title):
    """Bars of the share of the plain file; the line is the plain file."""
    shapes = [shape for shape in SHAPES if any(row["shape"] == shape for row in rows)]
    bar, gap, left, top, scale = 12, 14, 170, 60, 300
    most = max([1.2] + [row["ratio"] for row in rows])
    unit = scale / min(most, 2.0)
    height = top + sum(bar * sum(row["shape"] == shape for row in rows) + gap for shape in shapes) + 20
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + scale + 90}" height="{height}" '
           'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>',
           f'<text x="10" y="18" font-size="13">{title}</text>']
    for index, state in enumerate(states):
        x = 10 + index * 100
        out.append(f'<rect x="{x}" y="28" width="10" height="10" fill="{COLORS[index % len(COLORS)]}"/>'
                   f'<text x="{x + 14}" y="37">{state}</text>')
    y = top
    for shape in shapes:
        out.append(f'<text x="{left - 8}" y="{y + 10}" text-anchor="end">{shape}</text>')
        for row in (row for row in rows if row["shape"] == shape):
            width = min(row["ratio"], 2.0) * unit
            color = COLORS[states.index(row["state"]) % len(COLORS)]
            out.append(f'<rect x="{left}" y="{y}" width="{width:.1f}" height="{bar - 2}" fill="{color}"/>'
                       f'<text x="{left + width + 4:.1f}" y="{y + 9}">{row["ratio"]:.2f}</text>')
            y += bar
        y += gap
    x = left + unit
    out.append(f'<line x1="{x:.1f}" y1="{top - 6}" x2="{x:.1f}" y2="{y}" stroke="#333" stroke-dasharray="3 3"/>'
               f'<text x="{x - 20:.1f}" y="{y + 12}">plain file</text></svg>')
    with open(path, "w") as file:
        file.write("\n".join(out) + "\n")


def measure(bench, table, shape, targets, round_number, has_passthrough):
    if shape in COLD_SHAPES:
        shutil.rmtree(os.path.join(bench.work, "store-cold"), ignore_errors=True)
        fresh = bench.mount("cold", "auto")
        table.pair(bench, shape, "cold store", fresh, round_number)
        bench.umount(fresh)
    table.pair(bench, shape, "warm, raw", targets["raw"], round_number)
    table.pair(bench, shape, "warm, float", targets["float"], round_number)
    table.pair(bench, shape, "hot, daemon", targets["raw"], round_number, is_hot=True)
    if has_passthrough:
        table.pair(bench, shape, "passthrough", targets["hot"], round_number)
        table.pair(bench, shape, "passthrough, hot", targets["hot"], round_number, is_hot=True)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mib", type=int, default=2048)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--only", nargs="+", metavar="WORD", help="shapes whose name has one of these words")
    options.add_argument("--json")
    options.add_argument("--svg")
    options.add_argument("--work", help="folder on the disk to measure; default a temporary one")
    chosen = options.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if os.geteuid() != 0:
        raise SystemExit("as root: it drops the page cache")
    work = tempfile.mkdtemp(prefix="cakefs-bench.", dir=chosen.work)
    bench = Bench(work, chosen.mib)
    shapes = [shape for shape in SHAPES if not chosen.only or any(word in shape for word in chosen.only)]
    table = Table()
    try:
        targets = {"raw": bench.mount("raw", "raw"), "float": bench.mount("float", "auto"),
                   "hot": bench.mount("hot", "auto", hot="auto")}
        for target in targets.values():
            bench.fill(target)
        has_passthrough = bench.materialize(targets["hot"])
        if not has_passthrough:
            print("no passthrough here: cake doctor says why", file=sys.stderr)
        rounds = 0
        try:
            for rounds in range(chosen.rounds):
                for shape in shapes:
                    measure(bench, table, shape, targets, rounds, has_passthrough)
                print(f"round {rounds + 1} of {chosen.rounds}", file=sys.stderr)
            rounds = chosen.rounds
        except KeyboardInterrupt:
            for name in (signal.SIGINT, signal.SIGTERM):
                signal.signal(name, signal.SIG_IGN)
            print(f"stopped in round {rounds + 1}", file=sys.stderr)
        rows = list(table.rows())
        states = list(dict.fromkeys(row["state"] for row in rows))
        print(f"{chosen.mib} MiB, medians of {max(1, rounds)}, {os.cpu_count()} cores, Linux {os.uname().release}")
        print_table(rows, states)
        if chosen.json:
            with open(chosen.json, "w") as file:
                json.dump({"mib": chosen.mib, "rounds": rounds, "rows": rows}, file, indent=1)
        if chosen.svg:
            write_svg(chosen.svg, rows, states, f"Share of the plain file's speed, {chosen.mib} MiB")
    finally:
        bench.close()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
