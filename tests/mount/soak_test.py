# ctest: timeout=280
"""Mixed readers, random faults, the origin gone twice: right bytes, each fetched once.

About 20 s; half an hour with --long or CAKE_LONG=1.
"""

import socket
import subprocess

from mountlib import *

FILES, SIZE = (120, 16 * MIB) if LONG else (6, 6 * MIB)
SECONDS, GONE = (1800, 60) if LONG else (12, 2)
# Two requests in a hundred; of a few dozen that may be none, so in a short run two each half second.
SHARE = {"percent": 2} if LONG else {"count": 2}
FAULTS = (("drop", {}), ("cut_body", {"after": 300000}), ("status", {"status": 503}), ("reset", {}),
          ("wrong_content_range", {}), ("reset_body", {"after": 2000000}), ("wrong_length", {}),
          ("status", {"status": 429, "retry_after": 0}), ("gzip", {}), ("redirect_loop", {}),
          ("slow_headers", {"delay_ms": 1500}))
NAMES = [f"f{i}.bin" for i in range(FILES)]

# Scattered mapped reads: a SIGBUS would end this process, not the test.
MAPPED = """
import os, random, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))
import mountlib
for path in sys.argv[2:]:
    with mountlib.Map(path, is_random=True) as mapped:
        for _ in range(40):
            offset = random.randrange(mapped.bytes - 70000)
            print(os.path.basename(path), offset, mountlib.sha(mapped.read(offset, 70000)), flush=True)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Origin:
    """A hub that goes and comes back on its ports."""

    def __init__(self):
        self.words = ["--port", str(free_port()), "--cdn-port", str(free_port())]
        self.words += [f"repo=org/soak&file={name}&bytes={SIZE}&seed={i}" for i, name in enumerate(NAMES)]
        # Slow enough to be at it all the time.
        self.words.append(f"rate={int(FILES * SIZE * 1.2 / SECONDS)}")
        self.sent = 0
        self.faults = 0
        self.hub = Hub(None, *self.words)

    def go(self):
        counters = self.hub.counters()
        self.sent += self.hub.body_bytes()
        self.faults += counters["faults"]
        check_equal(counters["authorization_at_cdn"], 0, "tokens at the CDN")
        self.hub.stop()

    def come(self):
        self.hub = Hub(None, *self.words)


def test_soak():
    folder = scratch()
    origin = Origin()
    reference = Hub(None, *[word for word in origin.words if word.startswith("repo=")], shape="direct")
    right = {name: reference.get("org/soak", name) for name in NAMES[:8]}  # the rest by hash alone
    wanted = {name: sha(right.get(name) or reference.get("org/soak", name)) for name in NAMES}
    mount = Mount(None, folder, endpoint=origin.hub.url)
    os.listdir(mount.path("org/soak"))
    is_over = threading.Event()

    def weather():
        i = 0
        while not is_over.wait(0.5):
            kind, words = FAULTS[i % len(FAULTS)]
            try:
                origin.hub.control(clear=1)
                origin.hub.control(fault=kind, **SHARE, **words)
            except OSError:
                pass  # gone just now
            i += 1

    def whole(order, is_direct):
        for name in order:
            fd = os.open(mount.path("org/soak", name), os.O_RDONLY | (os.O_DIRECT if is_direct else 0))
            got = b"".join((pread_direct if is_direct else pread)(fd, MIB, at) for at in range(0, SIZE, MIB))
            os.close(fd)
            check_equal(sha(got), wanted[name], name)

    def scattered():
        chance = random.Random(5)
        for _ in range(600):
            name = chance.choice(list(right))
            at, length = chance.randrange(SIZE), chance.choice((100, 4096, 65536, 300000))
            fd = os.open(mount.path("org/soak", name), os.O_RDONLY)
            check(pread(fd, length, at) == right[name][at:at + length], f"{name} at {at}")
            os.close(fd)

    def mapped():
        reader = child(sys.executable, "-c", MAPPED, os.path.abspath(__file__),
                       *(mount.path("org/soak", name) for name in list(right)[::2]), stdout=subprocess.PIPE, text=True)
        for line in reader.stdout:
            name, offset, got = line.split()
            check_equal(got, sha(right[name][int(offset):int(offset) + 70000]), f"{name} mapped at {offset}")
        check_equal(reader.wait(), 0, "the reader that maps")

    def goes_and_comes():
        for _ in range(2):
            time.sleep(SECONDS / 4)
            origin.go()
            time.sleep(GONE)
            origin.come()

    jobs = [lambda: whole(NAMES, False), lambda: whole(NAMES[::-1], True), scattered, mapped, goes_and_comes]
    stirrer = threading.Thread(target=weather, daemon=True)
    stirrer.start()
    start = time.monotonic()
    in_threads(len(jobs), lambda i: jobs[i]())
    is_over.set()
    stirrer.join()
    origin.go()
    ratio = origin.sent / (FILES * SIZE)
    note(f"{time.monotonic() - start:.0f} s, {origin.faults} faults, {ratio:.3f} of the unique bytes fetched")
    check(origin.faults > 0, "no fault happened")
    # A range that is cut keeps its whole extents: an end of the hub costs up to 1 MiB a connection, which
    # is much for a short run.
    allowed = 1.1 * FILES * SIZE + (0 if LONG else 2 * 48 * MIB / 2)
    check(origin.sent <= allowed, f"{ratio:.3f} times the unique bytes")
    mount.umount()


if __name__ == "__main__":
    main([test_soak], 2400 if LONG else 270)
