# ctest: serial timeout=120
"""What reads cost upstream: bytes once, little for a little, nothing the second time."""

import os
import threading

from mountlib import *

PROBE = 2 * MIB  # what may be spent on a header that is not known yet


def test_each_byte_once():
    folder = scratch()
    data = safetensors([(f"t{i}", "U8", [9 * MIB + i], noise(9 * MIB + i, i)) for i in range(7)], pad=333)
    write(f"{folder}/o/org/a/model.safetensors", data)
    write(f"{folder}/o/org/a/model.bin", data[5:])
    hub = Hub(f"{folder}/o")
    mount = Mount(hub, folder)
    for name, wanted in (("model.safetensors", data), ("model.bin", data[5:])):
        hub.control(reset_counters=1)
        check_equal(sha_file(mount.path("org/a", name)), sha(wanted), name)
        sent = hub.body_bytes()
        note(f"{name}: {sent / len(wanted):.4f} of its size fetched")
        check(sent <= len(wanted) * 1.01 + PROBE, f"{name}: {sent} bytes for {len(wanted)}")
        check(sent >= len(wanted) * 0.9, f"{name}: counted {sent} bytes only: the counter is wrong")
    mount.remount()
    hub.control(reset_counters=1)
    for name, wanted in (("model.safetensors", data), ("model.bin", data[5:])):
        check_equal(sha_file(mount.path("org/a", name)), sha(wanted), name)
    check_equal(hub.body_bytes(), 0, "bytes fetched by the second read")


def settle(hub):
    """Bytes sent, once nothing more comes."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < 1:
        sent = hub.body_bytes()
        if sent != last:
            last, since = sent, time.monotonic()
        time.sleep(0.05)
    return last


def test_small_reads_of_a_big_file():
    folder = scratch()
    hub = Hub()
    for i in range(3):
        hub.pattern("org/big", f"model{i}.bin", GIB, seed=i)
    mount = Mount(hub, folder)
    hub.control(reset_counters=1)
    fd = os.open(mount.path("org/big/model0.bin"), os.O_RDONLY)
    check_equal(len(pread(fd, 64 * KIB, GIB // 2 + 4321)), 64 * KIB, "a pread in the middle")
    os.close(fd)
    sent = settle(hub)
    note(f"64 KiB pread: {sent} bytes fetched")
    check(sent <= 2 * MIB + PROBE, f"64 KiB pread fetched {sent}")

    hub.control(reset_counters=1)
    with Map(mount.path("org/big/model1.bin")) as mapped:
        mapped.read(GIB // 2 + 4321, 1)
        sent = settle(hub)
    note(f"one mmap touch: {sent} bytes fetched")
    check(sent <= 3 * MIB, f"one mmap touch fetched {sent}")


def test_cold_faults_are_not_serialized():
    """16 threads, each 64 cold faults in tensors of its own, 20 ms of latency."""
    folder, threads, faults, latency = scratch(), 16, 64, 0.020
    size = 16 * KIB
    tensors = [(f"t{i:04}", "U8", [size], noise(size, i)) for i in range(threads * faults * 2)]
    data = safetensors(tensors)
    write(f"{folder}/o/org/a/model.safetensors", data)
    hub = Hub(f"{folder}/o", shape="direct")
    mount = Mount(hub, folder, prefetch="off", read_ahead_kb=16)
    path = mount.path("org/a/model.safetensors")
    start_of_data = len(data) - size * len(tensors)
    fd = os.open(path, os.O_RDONLY)
    check_equal(pread(fd, 8, 0), data[:8], "the start")  # the header is known from here on
    os.close(fd)
    hub.control(latency_ms=int(latency * 1000))
    with Map(path, is_random=True) as mapped:

        def touch(i):
            for k in range(faults):
                offset = start_of_data + size * 2 * (i * faults + k) + 99
                check(mapped.read(offset, 64) == data[offset:offset + 64], f"bytes at {offset}")

        start = time.monotonic()
        in_threads(threads, touch)
        wall = time.monotonic() - start
    budget = faults * latency
    note(f"{threads} x {faults} cold faults over {latency * 1000:.0f} ms: {wall:.2f} s, "
         f"{wall / budget:.2f} x {budget:.2f} s")
    # One behind the other they would take as many budgets as there are threads; a busy machine
    # takes a few.
    most = threads / 2 * budget
    check(wall <= most, f"{wall:.2f} s, more than {most:.2f} s: faults wait for each other")


if __name__ == "__main__":
    main([test_each_byte_once, test_small_reads_of_a_big_file, test_cold_faults_are_not_serialized], 110)
