# ctest: serial timeout=300
"""Materialized files: the kernel reads them itself, through kills, upgrades and changes of mode."""

import glob

from mountlib import *

SIZE = (256 if LONG else 24) * MIB + 4_321
REPO, FILE = "org/hot", "w.bin"


def raw_files(mount):
    return glob.glob(os.path.join(mount.store, "packs", "*.raw"))


def store_blocks(mount):
    """What packs and materialized files take on disk."""
    return sum(os.stat(path).st_blocks * 512 for path in glob.glob(os.path.join(mount.store, "packs", "*")))


def cold_sha(path):
    drop_caches()
    return sha_file(path)


def worker(mount):
    return mount.ps()["worker"]


def reads_without_worker(mount, fd, seconds=10):
    """Whether a cold read of an open file is answered while the worker is stopped."""
    drop_caches()
    pid = worker(mount)
    done = []
    thread = threading.Thread(target=lambda: done.append(pread(fd, MIB, SIZE // 2)), daemon=True)
    try:
        stop_process(pid)
        thread.start()
        thread.join(seconds)
        answered = bool(done)
    finally:
        os.kill(pid, signal.SIGCONT)
    thread.join(60)
    check(done, "the read was never answered")
    return answered


def opened_without_worker(mount, seconds=10):
    fd = os.open(mount.path(REPO, FILE), os.O_RDONLY)
    try:
        return reads_without_worker(mount, fd, seconds)
    finally:
        os.close(fd)


class Hot:
    """A mount whose one file was read often enough to be materialized."""

    def __init__(self, **options):
        self.folder = scratch()
        self.hub = Hub()
        self.hub.pattern(REPO, FILE, SIZE, seed=3)
        self.wanted = sha(self.hub.get(REPO, FILE))
        self.mount = Mount(self.hub, self.folder, hot="auto", **options)
        self.path = self.mount.path(REPO, FILE)
        for _ in range(2):
            check_equal(cold_sha(self.path), self.wanted, "bytes through the daemon")

    def await_file(self):
        wait_until(lambda: raw_files(self.mount), "the file is materialized", 60)
        # Its copies in the packs are punched last.
        wait_until(lambda: store_blocks(self.mount) < 1.2 * SIZE, "no second copy on the disk", 60)


def test_kernel_reads_it():
    hot = Hot()
    hot.await_file()
    wait_until(lambda: opened_without_worker(hot.mount, 2), "an open in passthrough", 30)
    hot.hub.control(reset_counters=1)
    check_equal(cold_sha(hot.path), hot.wanted, "bytes through the kernel")
    check_equal(hot.hub.body_bytes(), 0, "bytes fetched")
    with Map(hot.path) as mapped:
        check_equal(sha(mapped.read(0, SIZE)), hot.wanted, "bytes of a mapping")
    fd = os.open(hot.path, os.O_RDONLY | os.O_DIRECT)
    check_equal(pread_direct(fd, MIB, MIB), hot.hub.get(REPO, FILE)[MIB:2 * MIB], "O_DIRECT")
    os.close(fd)
    check_equal(os.stat(hot.path).st_size, SIZE, "size")
    # A fresh mount of the store finds it materialized.
    hot.mount.remount()
    check(opened_without_worker(hot.mount), "passthrough after a remount")
    check_equal(cold_sha(hot.path), hot.wanted, "bytes after a remount")
    # And serves it without passthrough all the same.
    hot.mount.remount(passthrough="off")
    check(not opened_without_worker(hot.mount, 1), "passthrough=off is heeded")
    check_equal(cold_sha(hot.path), hot.wanted, "bytes with passthrough=off")


def test_mode_changes_between_opens_only():
    hot = Hot()
    first = os.open(hot.path, os.O_RDONLY)  # cached: there is no file yet
    with Map(hot.path) as mapped:
        check(not raw_files(hot.mount), "materialized too early for this test")
        hot.await_file()
        check(not reads_without_worker(hot.mount, first, 1), "an open file changed its mode")
        check(not opened_without_worker(hot.mount, 1), "a second open differs from the first")
        os.close(first)
        check(not opened_without_worker(hot.mount, 1), "a mapping keeps the mode")
        check_equal(sha(mapped.read(0, SIZE)), hot.wanted, "bytes of a mapping that was there before")
    wait_until(lambda: opened_without_worker(hot.mount, 2), "passthrough once all is closed", 30)
    check_equal(cold_sha(hot.path), hot.wanted, "bytes through the kernel")


def test_kills_and_upgrade():
    hot = Hot()
    hot.await_file()
    wait_until(lambda: opened_without_worker(hot.mount, 2), "an open in passthrough", 30)
    fd = os.open(hot.path, os.O_RDONLY)
    with Map(hot.path) as mapped:
        for _ in range(20 if LONG else 3):
            old = worker(hot.mount)
            os.kill(old, signal.SIGKILL)
            drop_caches()
            check_equal(sha(mapped.read(0, SIZE)), hot.wanted, "bytes of a mapping over a kill")
            wait_until(lambda: worker(hot.mount) not in (0, old), "a new worker", 30)
            check_equal(cold_sha(hot.path), hot.wanted, "bytes of a new open after a kill")
        check(reads_without_worker(hot.mount, fd), "an open file stays in passthrough")
        done = run(CAKE, "upgrade", hot.mount.directory)
        check_equal(done.returncode, 0, f"cake upgrade: {done.stderr}")
        hot.mount.pids += hot.mount.processes()
        check(reads_without_worker(hot.mount, fd), "an open file stays in passthrough over an upgrade")
        check_equal(cold_sha(hot.path), hot.wanted, "bytes after the upgrade")
    os.close(fd)
    check(opened_without_worker(hot.mount), "passthrough after all of it")


def test_killed_while_materializing():
    folder = scratch()
    hub = Hub()
    hub.pattern(REPO, FILE, SIZE, seed=5)
    wanted = sha(hub.get(REPO, FILE))
    mount = Mount(hub, folder, hot="auto")
    path = mount.path(REPO, FILE)
    for _ in range(6 if LONG else 2):
        for _ in range(2):
            check_equal(cold_sha(path), wanted, "bytes before a kill")
        wait_until(lambda: glob.glob(os.path.join(mount.store, "packs", "*.raw*")), "it began", 60)
        old = worker(mount)
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: worker(mount) not in (0, old), "a new worker", 30)
        check_equal(cold_sha(path), wanted, "bytes after a kill")
    left = [name for name in os.listdir(os.path.join(mount.store, "packs")) if name.endswith(".tmp")]
    check(len(left) <= 1, f"parts of dead workers are left: {left}")
    hub.control(reset_counters=1)
    check_equal(cold_sha(path), wanted, "bytes at last")
    check_equal(hub.body_bytes(), 0, "bytes fetched again")


def cake(mount, *words):
    return run(CAKE, "--store", mount.store, "--yes", *words)


def test_pinned_and_evicted():
    folder = scratch()
    hub = Hub()
    hub.pattern(REPO, FILE, SIZE, seed=7)
    wanted = sha(hub.get(REPO, FILE))
    mount = Mount(hub, folder)
    path = mount.path(REPO, FILE)
    check_equal(cold_sha(path), wanted, "bytes at first")
    # What was just read is in the store a second later.
    wait_until(lambda: cake(mount, "pin", "--hot", REPO).returncode == 0, "cake pin --hot", 60)
    check_equal(len(raw_files(mount)), 1, "materialized files")
    wait_until(lambda: opened_without_worker(mount, 2), "an open in passthrough", 30)
    # Pinned, it stays; open, it stays as well.
    check_equal(cake(mount, "prune", "--max-size", "1M").returncode, 0, "prune")
    check_equal(len(raw_files(mount)), 1, "materialized files that are pinned")
    fd = os.open(path, os.O_RDONLY)
    mapped = Map(path)
    check_equal(cake(mount, "unpin", "--hot", REPO).returncode, 0, "unpin --hot")
    check_equal(cake(mount, "prune", "--max-size", "1M").returncode, 0, "prune")
    check_equal(len(raw_files(mount)), 1, "materialized files that are open")
    check(reads_without_worker(mount, fd), "an open file is passed through")
    os.close(fd)

    def is_gone():
        check_equal(cake(mount, "prune", "--max-size", "1M").returncode, 0, "prune")
        return not raw_files(mount)

    # The mapping is no open file to us, but it keeps the bytes: the file is unlinked, not punched.
    wait_until(is_gone, "the file is evicted once it is closed", 60)
    drop_caches()
    check_equal(sha(mapped.read(0, SIZE)), wanted, "bytes of a mapping of an evicted file")
    mapped.close()
    check_equal(cold_sha(path), wanted, "bytes after the eviction")


if __name__ == "__main__":
    main([test_kernel_reads_it, test_mode_changes_between_opens_only, test_kills_and_upgrade,
          test_killed_while_materializing, test_pinned_and_evicted], 290)
