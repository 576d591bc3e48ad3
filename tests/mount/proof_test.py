#!/usr/bin/env python3
# Whole-file proof on a mount: what proved wrong is dropped, fetched again, and read right.
# ctest: timeout=200
"""The hub flips one byte of one answer.  The reader gets it (nothing was known of the file), the
worker compares the file's hash when it is complete, takes the kernel's pages back and fetches the
file again; then `user.cake.verified` is yes and the bytes are the hub's.  `cake ps` counts both."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from mountlib import (CAKE, MIB, Hub, Mount, check, check_equal, main, run, scratch,  # noqa: E402
                      sha, wait_until)

SIZE = 6 * MIB + 123


def attribute(path, name):
    return os.getxattr(path, f"user.cake.{name}").decode()


def read(path):
    with open(path, "rb") as file:
        return file.read()


def test_wrong_byte():
    folder = scratch()
    hub = Hub(shape="direct")
    hub.pattern("org/m", "w.bin", SIZE, seed=1)
    wanted = sha(hub.get("org/m", "w.bin"))
    mount = Mount(hub, folder, prefetch="off")
    path = mount.path("org", "m", "w.bin")
    check_equal(os.stat(path).st_size, SIZE, "size")
    fault = hub.fault("wrong_bytes", path="*w.bin", after=1000, count=1)
    first = sha(read(path))
    hub.control(clear_fault=fault)
    check(first != wanted, "the hub told the truth: this test proves nothing")
    wait_until(lambda: attribute(path, "verified") == "yes", "the file is verified", 120)
    check_equal(sha(read(path)), wanted, "bytes after the proof")
    check("its hash is not the one" in mount.log_text(), "the log says what happened")
    listed = run(CAKE, "--store", mount.store, "ls", "--json")
    check('"verified_percent": 100' in listed.stdout, f"cake ls: {listed.stdout}")


def test_ps():
    folder = scratch()
    hub = Hub()
    hub.pattern("org/m", "w.bin", SIZE, seed=2)
    mount = Mount(hub, folder)
    path = mount.path("org", "m", "w.bin")
    with open(path, "rb") as file:
        file.read()
        entry = wait_until(
            lambda: (found := mount.ps()) and (found["fetched"] or 0) >= SIZE and found["open"] == 1
            and found, "cake ps counts what was fetched and is open", 60)
        check_equal(round(entry["cached_percent"]), 100, "cached")
    wait_until(lambda: mount.ps()["open"] == 0, "cake ps sees the file closed", 60)


main([test_wrong_byte, test_ps], 190)
