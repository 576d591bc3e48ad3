# ctest: serial timeout=240
"""The store stays in its limit while four daemons and a pull write to it, and nobody notices."""

import os
import threading

from mountlib import *

SCALE = 4 if LONG else 1
LIMIT = 64 * MIB * SCALE


def disk_usage(folder):
    """As du: blocks of everything below."""
    total = 0
    for where, folders, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(where, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


class Sampler:
    """The largest disk usage seen, ten times a second and more."""

    def __init__(self, folder):
        self.folder, self.largest, self.samples = folder, 0, 0
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.ends.wait(0.05):
            self.largest = max(self.largest, disk_usage(self.folder))
            self.samples += 1

    def stop(self):
        self.ends.set()
        self.thread.join()
        self.largest = max(self.largest, disk_usage(self.folder))


def test_four_mounts_and_a_pull():
    folder = scratch()
    size = LIMIT // 16  # five files are open at a time, and the pinned one stays: there is room beside them
    data = {}
    for i in range(48):
        data[f"org/m{i}"] = noise(size + i, i)
        write(f"{folder}/o/org/m{i}/model.bin", data[f"org/m{i}"])
    pinned = safetensors([(f"t{i}", "U8", [MIB + i], noise(MIB + i, 1000 + i)) for i in range(12)])
    write(f"{folder}/o/org/pinned/model.safetensors", pinned)
    hub = Hub(f"{folder}/o")
    store = f"{folder}/store"
    mounts = []
    for i in range(4):
        os.makedirs(f"{folder}/{i}")
        mounts.append(Mount(hub, f"{folder}/{i}", store=store, cache_size=LIMIT, min_free=0))
    environment = {**os.environ, "CAKE_CACHE_SIZE": str(LIMIT), "CAKE_MIN_FREE": "0"}

    def cake(*words, **more):
        done = run(CAKE, "--store", store, "--endpoint", hub.url, "--no-progress", *words, timeout=120,
                   env=environment, **more)
        check(done.returncode == 0, f"cake {' '.join(words)}: exit {done.returncode}: {done.stderr}")
        return done.stdout

    cake("pull", "org/pinned")
    cake("pin", "org/pinned")
    sampler = Sampler(store)
    wrong = []

    def read_all(i):
        if i == 4:
            for k in range(40, 48):
                cake("pull", f"org/m{k}")
            return
        for k in range(i * 10, i * 10 + 10):
            repo = f"org/m{k}"
            if sha_file(mounts[i].path(repo, "model.bin")) != sha(data[repo]):
                wrong.append(repo)

    in_threads(5, read_all)
    drop_caches()
    in_threads(5, read_all)
    sampler.stop()
    check(not wrong, f"wrong bytes: {wrong}")
    note(f"du at most {sampler.largest / LIMIT:.4f} of the limit in {sampler.samples} samples; "
         f"{len(data) * size / LIMIT:.1f} x the limit read twice")
    check(sampler.largest <= LIMIT * 1.01, f"{sampler.largest} bytes, the limit is {LIMIT}")
    check(sampler.largest >= LIMIT * 0.8, f"the limit was never reached: {sampler.largest}")
    check(disk_usage(store) >= LIMIT * 0.7, "far more was evicted than had to be")

    drop_caches()
    hub.control(reset_counters=1)
    check_equal(sha_file(mounts[0].path("org/pinned/model.safetensors")), sha(pinned), "the pinned")
    check_equal(hub.body_bytes(), 0, "bytes fetched to read the pinned again")
    for mount in mounts:
        for line in mount.log_text().splitlines():
            check(" error" not in line.lower(), f"logged: {line}")


def test_full_of_what_is_open():
    """A file larger than the limit is read through; what is open stays."""
    folder = scratch()
    limit = 24 * MIB
    data = noise(3 * limit, 7)
    write(f"{folder}/o/org/big/model.bin", data)
    hub = Hub(f"{folder}/o")
    mount = Mount(hub, folder, cache_size=limit, min_free=0, mem_cache="8M")
    sampler = Sampler(mount.store)
    path = mount.path("org/big/model.bin")
    with open(path, "rb", buffering=0):
        check_equal(sha_file(path), sha(data), "the file")
        drop_caches()
        hub.control(reset_counters=1)
        check_equal(sha_file(path), sha(data), "the file, read again")
        fetched = hub.body_bytes()
    sampler.stop()
    note(f"second reading fetched {fetched / len(data):.2f} of the file")
    check(fetched <= len(data) * 0.8, "nothing was kept of what is open")
    check(fetched >= len(data) * 0.3, "more was kept than the limit holds")
    check(sampler.largest <= limit * 1.01, f"{sampler.largest} bytes, the limit is {limit}")


if __name__ == "__main__":
    main([test_four_mounts_and_a_pull, test_full_of_what_is_open], 220)
