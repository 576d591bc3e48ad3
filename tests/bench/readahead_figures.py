#!/usr/bin/env python3
"""First loads over a slow link: does reading ahead fill it, and does anybody wait behind it?

    tests/bench/readahead_figures.py [--rate 400] [--conn-rate 25] [--latency 30] [--mib 1536]   (as root)

The test hub limits the link (MB/s in all and for each connection) and delays each answer (ms).  A
cold file is read as loaders do: sequentially, by 16 threads mapping tensor by tensor, by 16 threads
with reads of 2 MiB each in its slice, by 16 threads and by one mapping all tensors in random order.
Printed: MB/s after the first second, and the part of the link that is.  Then the latency of 64 KiB
reads of another file, idle and under full readahead.
CAKE_BIN and TEST_HUB_BIN name the programs.  On a busy machine take a slower link: what counts is the
part of it.
"""

import argparse
import os
import random
import statistics
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "mount"))
from mountlib import *
from readahead_test import sparse_model

THREADS = 16


class Watch:
    """How many bytes the hub had sent at what time."""

    def __init__(self, hub):
        self.hub, self.samples, self.is_over = hub, [], threading.Event()
        self.start = time.monotonic()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.is_over.wait(0.1):
            self.samples.append((time.monotonic() - self.start, self.hub.body_bytes()))

    def rate_after(self, seconds):
        """MB/s between that time and the end."""
        self.is_over.set()
        self.thread.join()
        later = [sample for sample in self.samples if sample[0] >= seconds]
        # The last part of a file is not a full link: up to where 98 % were sent.
        full = [sample for sample in later if sample[1] <= 0.98 * later[-1][1]] or later
        (begin, first), (end, last) = full[0], full[-1]
        return (last - first) / max(end - begin, 0.001) / 1e6


def sequential(path, _):
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(MIB)
        while file.readinto(buffer):
            pass


def mapped(path, places):
    queue, lock = list(places), threading.Lock()
    with Map(path) as mapping:

        def work(_):
            while True:
                with lock:
                    if not queue:
                        return
                    at, size = queue.pop(0)
                for offset in range(at, at + size, MIB):
                    mapping.read(offset, min(MIB, at + size - offset))

        in_threads(THREADS, work)


def shuffled(path, places):
    mapped(path, random.Random(7).sample(places, len(places)))


def shuffled_alone(path, places):
    with Map(path) as mapping:
        for at, size in random.Random(8).sample(places, len(places)):
            for offset in range(at, at + size, MIB):
                mapping.read(offset, min(MIB, at + size - offset))


def streams(path, _):
    fd, size = os.open(path, os.O_RDONLY), os.path.getsize(path)
    part = -(-size // THREADS)

    def work(i):
        for at in range(i * part, min((i + 1) * part, size), 2 * MIB):
            pread(fd, min(2 * MIB, (i + 1) * part - at, size - at), at)

    in_threads(THREADS, work)
    os.close(fd)


def latencies(path, count, seed):
    """Milliseconds of 64 KiB reads at places of a file that nobody has read."""
    chance, fd, spent = random.Random(seed), os.open(path, os.O_RDONLY), []
    for block in chance.sample(range(os.path.getsize(path) // MIB // 4), count):
        start = time.monotonic()
        pread(fd, 64 * KIB, 4 * block * MIB + 4096)
        spent.append(1000 * (time.monotonic() - start))
    os.close(fd)
    return spent


def main_():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rate", type=float, default=400)
    words.add_argument("--conn-rate", type=float, default=25)
    words.add_argument("--latency", type=int, default=30)
    words.add_argument("--mib", type=int, default=1536)
    words.add_argument("--options", default="", help="more mount options, key=value,…")
    chosen = words.parse_args()
    options = dict(word.split("=") for word in chosen.options.split(",") if word)
    folder = scratch()
    tensor = 24 * MIB
    readers = {"sequential": sequential, "mapped": mapped, "streams": streams, "shuffled": shuffled,
               "shuffled_alone": shuffled_alone}
    names = [*readers, "load"]
    # Different last tensors: equal files would be one content, fetched once.
    layouts = {name: sparse_model(f"{folder}/o/org/{name}/model.safetensors",
                                  [tensor] * (chosen.mib * MIB // tensor) + [(i + 1) * MIB])
               for i, name in enumerate(names)}
    hub = Hub(f"{folder}/o")
    hub.pattern("org/other", "w.bin", 4 * GIB, seed=3)
    mount = Mount(hub, folder, **options)
    for name in names:
        os.stat(mount.path(f"org/{name}/model.safetensors"))
    other = mount.path("org/other/w.bin")
    os.stat(other)
    hub.control(rate=int(chosen.rate * 1e6), conn_rate=int(chosen.conn_rate * 1e6), latency_ms=chosen.latency)
    note(f"link of {chosen.rate:g} MB/s, {chosen.conn_rate:g} MB/s a connection, {chosen.latency} ms; "
         f"{chosen.mib} MiB each")
    for name, reader in readers.items():
        # A virtual machine's memory that was not used before is slow to fill: the same for each.
        drop_caches()
        hub.control(reset_counters=1)
        watch = Watch(hub)
        reader(mount.path(f"org/{name}/model.safetensors"), layouts[name])
        whole = time.monotonic() - watch.start
        rate = watch.rate_after(1)
        note(f"{name}: {rate:.0f} MB/s after the first second, {rate / chosen.rate:.2f} of the link; "
             f"{hub.body_bytes() / (chosen.mib * MIB):.3f} of the bytes; "
             f"{chosen.mib * MIB / whole / 1e6:.0f} MB/s in all")
    drop_caches()
    latencies(other, 5, 1)
    idle = latencies(other, 100, 2)
    loader = threading.Thread(target=sequential, args=(mount.path("org/load/model.safetensors"), None))
    loader.start()
    time.sleep(1)  # the load is under way; how far does not matter
    busy = []
    seed = 3
    while loader.is_alive() and len(busy) < 100:
        busy += latencies(other, 5, seed)
        seed += 1
    loader.join()
    for what, spent in (("idle", idle), ("under full readahead", busy)):
        note(f"64 KiB of another file, {what}: median {statistics.median(spent):.0f} ms, "
             f"p99 {percentile(spent, 0.99):.0f} ms of {len(spent)}")
    mount.umount()


if __name__ == "__main__":
    main_()
