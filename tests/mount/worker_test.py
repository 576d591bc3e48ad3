# ctest: serial timeout=150
"""A worker that is killed, upgraded or large is nothing that a reader notices."""

import json
import os
import random
import shutil
import signal
import threading

from mountlib import *

KILLS = 200 if LONG else 20
INTERVAL = 0.1
READERS = 16 if LONG else 8


def origin(folder, files=4, size=48 * MIB):
    data = []
    for i in range(files):
        data.append(safetensors([(f"t{k}", "U8", [size // 8 + k], noise(size // 8 + k, 10 * i + k))
                                 for k in range(8)], pad=i))
        write(f"{folder}/o/org/a/part{i}.safetensors", data[i])
    return Hub(f"{folder}/o"), data


# A process of its own: neither the readers' interpreter lock nor a slow command delays it.  A worker
# that is still dying is waited for until the next turn.
KILLER = """
import os, signal, sys, time
keeper, kills, interval = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
last, turn = 0, time.monotonic()
while kills > 0:
    with open(f"/proc/{keeper}/task/{keeper}/children") as file:
        workers = [int(word) for word in file.read().split()]
    if workers and workers[0] != last:
        last = workers[0]
        os.kill(last, signal.SIGKILL)
        kills -= 1
        with open("/proc/sys/vm/drop_caches", "w") as knob:
            knob.write("3")
    turn += interval
    time.sleep(max(0, turn - time.monotonic()))
"""


class Readers:
    """Threads that map, pread and read directly until they are told to stop."""

    def __init__(self, mount, data, count):
        self.mount, self.data = mount, data
        self.stopping, self.failures, self.reads, self.worst = threading.Event(), [], 0, 0.0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.body, args=(i,), daemon=True) for i in range(count)]
        for thread in self.threads:
            thread.start()

    def body(self, i):
        dice = random.Random(i)
        try:
            while not self.stopping.is_set():
                self.one(("map", "pread", "direct", "open")[i % 4], dice)
        except BaseException as error:
            self.failures.append(f"reader {i}: {error!r}")

    def one(self, kind, dice):
        which = dice.randrange(len(self.data))
        path, wanted = self.mount.path(f"org/a/part{which}.safetensors"), self.data[which]
        if kind == "map":
            with Map(path) as mapped:
                for _ in range(8):
                    self.compare(mapped.read, dice.randrange(len(wanted)), 20_000, wanted, kind, which)
            return
        fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if kind == "direct" else 0))
        try:
            read = pread_direct if kind == "direct" else pread
            for _ in range(4):
                self.compare(lambda offset, length: read(fd, length, offset),
                             dice.randrange(len(wanted)), dice.choice((100, 70_000, 1_500_000)), wanted,
                             kind, which)
        finally:
            os.close(fd)

    def compare(self, read, offset, length, wanted, kind, which):
        start = time.monotonic()
        got = read(offset, length)
        took = time.monotonic() - start
        check(got == wanted[offset:offset + length], f"{kind} of part{which} at {offset}: wrong bytes")
        with self.lock:
            self.reads += 1
            self.worst = max(self.worst, took)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)
            check(not thread.is_alive(), "a reader does not come back")
        check(not self.failures, f"{len(self.failures)} readers failed: {self.failures[:4]}")


def test_killed_workers():
    folder = scratch()
    hub, data = origin(folder)
    hub.control(rate=400 * MIB)  # cold for a while
    mount = Mount(hub, folder)
    readers = Readers(mount, data, READERS)
    start = time.monotonic()
    killer = subprocess.run([sys.executable, "-c", KILLER, str(mount.ps()["keeper"]), str(KILLS), str(INTERVAL)],
                            timeout=300)
    check_equal(killer.returncode, 0, "the killer")
    seconds = time.monotonic() - start
    reads = readers.reads
    wait_until(lambda: readers.failures or readers.reads > reads + READERS, "the readers go on", 30)
    readers.stop()
    note(f"{KILLS} kills in {seconds:.1f} s, {readers.reads} reads, the longest "
         f"{readers.worst * 1000:.0f} ms; {hub.body_bytes() / sum(map(len, data)):.2f} of the bytes fetched")
    drop_caches()  # what the kernel keeps of a killed worker's answers, the store may not have
    for i, wanted in enumerate(data):
        check_equal(sha_file(mount.path(f"org/a/part{i}.safetensors")), sha(wanted), f"part{i}")
    mount.remount(offline="yes")
    for i, wanted in enumerate(data):
        check_equal(sha_file(mount.path(f"org/a/part{i}.safetensors")), sha(wanted), f"part{i} offline")
    mount.umount()


def test_keeper_and_worker_killed():
    folder = scratch()
    hub, data = origin(folder, files=2, size=16 * MIB)
    mount = Mount(hub, folder)
    check_equal(sha_file(mount.path("org/a/part0.safetensors")), sha(data[0]), "before")
    pids = mount.processes()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(is_alive(pid) for pid in pids), "both are gone")
    check(is_mounted(mount.directory), "a stale mount point is left")
    expect_errno((errno.ENOTCONN, errno.ECONNABORTED), "the stale mount", os.listdir, mount.directory)
    mount.mount()
    for i, wanted in enumerate(data):
        check_equal(sha_file(mount.path(f"org/a/part{i}.safetensors")), sha(wanted), f"part{i} after")
    mount.umount()
    check(not is_mounted(mount.directory), "nothing is left mounted")


def test_upgrade():
    folder = scratch()
    hub, data = origin(folder, files=2, size=24 * MIB)
    hub.control(rate=30 * MIB)
    mount = Mount(hub, folder)
    readers = Readers(mount, data, 4)
    for _ in range(3):
        before = mount.ps()
        done = run(CAKE, "upgrade", "--json", mount.directory)
        check_equal(done.returncode, 0, f"cake upgrade: {done.stderr}")
        check_equal(json.loads(done.stdout), [{"mount": mount.directory}], "cake upgrade --json")
        wait_until(lambda: (mount.ps() or before)["worker"] != before["worker"], "a new worker")
        mount.pids += mount.processes()
        time.sleep(0.3)
    readers.stop()
    note(f"3 upgrades, {readers.reads} reads, the longest {readers.worst * 1000:.0f} ms")
    mount.umount()


def test_memory_and_descriptors():
    folder, mem_cache = scratch(), 64 * MIB
    hub, data = origin(folder)
    hub.pattern("org/big", "model.bin", 4 * GIB if LONG else 512 * MIB, seed=4)
    mount = Mount(hub, folder, mem_cache="64M")
    peak, stopping = [0], threading.Event()

    def sample():
        while not stopping.wait(0.1):
            total = 0
            for pid in mount.processes():
                try:
                    total += memory_kib(pid) * KIB
                except FileNotFoundError:
                    pass
            peak[0] = max(peak[0], total)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    readers = Readers(mount, data, 16)
    with open(mount.path("org/big/model.bin"), "rb", buffering=0) as file:
        while file.read(4 * MIB):
            pass
    # Another worker, which goes through it from the store.
    os.kill(mount.ps()["worker"], signal.SIGKILL)
    drop_caches()
    with open(mount.path("org/big/model.bin"), "rb", buffering=0) as file:
        while file.read(4 * MIB):
            pass
    readers.stop()
    stopping.set()
    sampler.join()
    note(f"RssAnon of keeper and worker: at most {peak[0] / MIB:.0f} MiB, mem_cache 64 MiB")
    check(peak[0] > MIB, "memory was measured")
    check(peak[0] < mem_cache + 128 * MIB, f"{peak[0] / MIB:.0f} MiB")

    pids = mount.processes()
    path = mount.path("org/a/part0.safetensors")
    sha_file(path)

    def descriptors():
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)

    before = descriptors()
    for i in range(1_000):
        fd = os.open(path, os.O_RDONLY)
        pread(fd, 10, i * 1_000)
        os.close(fd)
    drop_caches()
    wait_until(lambda: descriptors() <= before + 8,
               f"descriptors back to {before} after 1,000 opens", 10)
    note(f"descriptors: {before} before, {descriptors()} after 1,000 opens")
    mount.umount()


if __name__ == "__main__":
    main([test_killed_workers, test_keeper_and_worker_killed, test_upgrade, test_memory_and_descriptors],
         1500 if LONG else 140)
