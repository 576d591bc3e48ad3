#!/usr/bin/env python3
"""Which read_ahead_kb the kernel should have for a mount: the same reads with one value after another.

    tests/bench/read_ahead_kb.py [--mib 1024] [--rounds 5] [--codec auto] [--kib 128 256 512 1024 2048 4096]

As root.  One file, all of it in the store, page cache dropped before each reading; values take turns
in every round.  A figure is the median of the rounds in MB/s, and beside it the share of the best
value's for that shape.  CAKE_BIN names the program; default build/dev/cake.
"""

import argparse
import os
import shutil
import statistics
import tempfile

import read_path

SHAPES = ("sequential, 1 MiB", "mmap, tensor order", "mmap, 16 threads", "16 x 2 MiB", "random 4 KiB touches")


def knob_of(path):
    device = os.stat(path).st_dev
    return f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mib", type=int, default=1024)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--codec", default="auto")
    options.add_argument("--kib", type=int, nargs="+", default=[128, 256, 512, 1024, 2048, 4096])
    chosen = options.parse_args()
    work = tempfile.mkdtemp(prefix="cakefs-bench.")
    bench = read_path.Bench(work, chosen.mib)
    rates = {}
    try:
        target = bench.mount("warm", chosen.codec)
        bench.fill(target)
        knob = knob_of(target.path)
        for turn in range(chosen.rounds):
            for shape in SHAPES:
                for kib in chosen.kib if turn % 2 else reversed(chosen.kib):
                    with open(knob, "w") as file:
                        file.write(str(kib))
                    read_path.drop_page_cache()
                    rates.setdefault((shape, kib), []).append(read_path.rate(shape, target))
    finally:
        bench.close()
        shutil.rmtree(work, ignore_errors=True)
    print(f"{chosen.mib} MiB, codec={chosen.codec}, warm store, medians of {chosen.rounds}, {os.cpu_count()} cores")
    print("| reader | " + " | ".join(f"{kib} KiB" for kib in chosen.kib) + " |\n|---" + "|---:" * len(chosen.kib) + "|")
    for shape in SHAPES:
        medians = [statistics.median(rates[shape, kib]) for kib in chosen.kib]
        print(f"| {shape} | " + " | ".join(f"{rate:.3g} ({rate / max(medians):.2f})" for rate in medians) + " |")


if __name__ == "__main__":
    main()
