# ctest: serial timeout=200
"""What reading ahead costs and spares, with the defaults: parts of models, orders, many readers."""

import json
import multiprocessing
import os
import random
import struct

from mountlib import *

SCALE = 4 if LONG else 1


def sparse_model(path, sizes):
    """A safetensors file of U8 tensors of these sizes, all zero; answers where each begins."""
    tensors, at = {}, 0
    for i, size in enumerate(sizes):
        tensors[f"t{i:05}"] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(tensors).encode()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + at)
    start = 8 + len(header)
    places = []
    for size in sizes:
        places.append((start, size))
        start += size
    return places


def settle(hub):
    """Bytes sent, once nothing more comes."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < 1:
        sent = hub.body_bytes()
        if sent != last:
            last, since = sent, time.monotonic()
        time.sleep(0.05)
    return last


class Model:
    """A model on a hub, mounted with the defaults."""

    def __init__(self, sizes, **options):
        self.folder = scratch()
        self.places = sparse_model(f"{self.folder}/o/org/a/model.safetensors", sizes)
        self.bytes = os.path.getsize(f"{self.folder}/o/org/a/model.safetensors")
        self.hub = Hub(f"{self.folder}/o")
        self.mount = Mount(self.hub, self.folder, **options)
        self.path = self.mount.path("org/a/model.safetensors")
        os.stat(self.path)
        self.hub.control(reset_counters=1)

    def read_mapped(self, parts):
        """As a loader does: the header, then copies out of a mapping.  Bytes fetched."""
        with open(self.path, "rb", buffering=0) as file:
            file.read(8)
        with Map(self.path) as mapped:
            for offset, size in parts:
                for at in range(offset, offset + size, MIB):
                    mapped.read(at, min(MIB, offset + size - at))
            return settle(self.hub)

    def close(self):
        self.mount.umount()
        self.hub.stop()


def ratio(model, parts, what, most=None):
    wanted = sum(size for _, size in parts)
    sent = model.read_mapped(parts)
    note(f"{what}: {sent / wanted:.3f} of the {wanted // MIB} MiB read")
    check(sent >= wanted * 0.9, f"{what}: {sent} bytes counted for {wanted}")
    if most:
        check(sent <= wanted * most + 2 * MIB, f"{what}: {sent} bytes for {wanted}, more than {most}x")
    model.close()


def test_a_quarter_of_the_experts():
    layers, experts = 2 * SCALE, 8
    sizes = [8 * MIB] * (3 * experts * layers)

    def of(chosen):
        model = Model(sizes)
        parts = [model.places[3 * (layer * experts + expert) + i]
                 for layer in range(layers) for expert in chosen for i in range(3)]
        return model, parts

    ratio(*of((3, 4)), "experts of one rank", 1.2)
    ratio(*of((1, 6)), "experts here and there", 1.2)


def test_slices_of_every_tensor():
    model = Model([96 * MIB] * (5 * SCALE))
    # The aim is 1.3 (--long).  A window is as long as fetches take, and on a busy machine they do.
    ratio(model, [(at + size // 4, size // 4) for at, size in model.places], "rows of rank 1 of 4",
          1.3 if LONG else 1.45)
    model = Model([32 * MIB] * 2)
    row = 16 * KIB
    with open(model.path, "rb", buffering=0) as file:
        file.read(8)
    with Map(model.path) as mapped:
        for at, size in model.places:
            for offset in range(at, at + size, row):
                mapped.read(offset + row // 4, row // 4)
        sent = settle(model.hub)
    note(f"columns of rank 1 of 4: {sent / (16 * MIB):.3f} of the 16 MiB read, "
         f"{sent / model.bytes:.3f} of the file")
    check(sent <= 1.01 * model.bytes + 2 * MIB, "columns: more than the file")
    model.close()


def test_shuffled_tensors_come_once():
    model = Model([6 * MIB] * 20 * SCALE)
    parts = model.places[:]
    random.Random(7).shuffle(parts)
    sent = model.read_mapped(parts)
    note(f"shuffled tensors: {sent / model.bytes:.4f} of the file")
    check(sent <= model.bytes * 1.01, f"{sent} bytes for a file of {model.bytes}")
    model.close()


def read_whole(path):
    with open(path, "rb", buffering=0) as file:
        while file.read(MIB):
            pass


def test_many_readers_of_one_file():
    """8 processes, then 4 mounts of one store: the origin sends it once."""
    size = 64 * MIB * SCALE
    folder = scratch()
    hub = Hub()
    hub.pattern("org/a", "w.bin", size, seed=1)
    hub.pattern("org/a", "v.bin", size, seed=2)
    mounts = [Mount(hub, os.path.join(folder, str(i)), store=f"{folder}/store") for i in range(4)]
    for mount in mounts:
        os.stat(mount.path("org/a/w.bin"))

    def all_read(paths, what):
        hub.control(reset_counters=1)
        readers = [multiprocessing.Process(target=read_whole, args=(path,)) for path in paths]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
            check_equal(reader.exitcode, 0, what)
        sent = settle(hub)
        note(f"{what}: {sent / size:.4f} of the file fetched")
        check(sent <= 1.02 * size, f"{what}: {sent} bytes for a file of {size}")

    all_read([mounts[0].path("org/a/w.bin")] * 8, "8 processes")
    all_read([mount.path("org/a/v.bin") for mount in mounts], "4 mounts of a store")
    for mount in mounts:
        mount.umount()
    hub.stop()


def test_threads_are_never_slower_than_one():
    """The same cold faults by one thread and by 16, with the defaults."""
    threads, faults, latency = 16, 64 if LONG else 3, 20 if LONG else 60
    hub = Hub(shape="direct")
    spent = {}
    for count in (1, threads):
        folder = scratch()
        hub.pattern("org/a", f"w{count}.bin", 4 * GIB, seed=count)
        mount = Mount(hub, folder)
        path = mount.path(f"org/a/w{count}.bin")
        os.stat(path)
        hub.control(latency_ms=latency)
        chance = random.Random(5)
        places = [chance.randrange(4 * GIB // 4096) * 4096 for _ in range(threads * faults)]
        with Map(path) as mapped:
            start = time.monotonic()
            in_threads(count, lambda i: [mapped.read(at, 64) for at in places[i::count]])
            spent[count] = time.monotonic() - start
        hub.control(latency_ms=0)
        mount.umount()
    note(f"{threads * faults} cold faults: one thread {spent[1]:.2f} s, {threads} threads {spent[threads]:.2f} s")
    check(spent[threads] <= spent[1], "16 threads took longer than one")
    hub.stop()


def test_prefetch_does_what_it_says():
    size, read = 32 * MIB, 12 * MIB
    wanted = {"off": (read, read + 2 * MIB), "tensor": (size // 2, size // 2 + 2 * MIB),
              "file": (size, size + MIB), "repo": (2 * size - MIB, 2 * size + MIB)}
    for mode, (least, most) in wanted.items():
        folder = scratch()
        sparse_model(f"{folder}/o/org/a/model-00001-of-00002.safetensors", [size // 2] * 2)
        sparse_model(f"{folder}/o/org/a/model-00002-of-00002.safetensors", [size // 2, size // 2 - MIB])
        write(f"{folder}/o/org/a/other.bin", bytes(MIB))
        hub = Hub(f"{folder}/o")
        mount = Mount(hub, folder, prefetch=mode)
        hub.control(reset_counters=1)
        with open(mount.path("org/a/model-00001-of-00002.safetensors"), "rb", buffering=0) as file:
            for _ in range(read // MIB):
                file.read(MIB)
            wait_until(lambda: hub.body_bytes() >= least, f"prefetch={mode} fetches {least}", 60)
            sent = settle(hub)
        note(f"prefetch={mode}: {sent / MIB:.1f} MiB fetched for {read // MIB} read")
        check(sent <= most, f"prefetch={mode}: {sent} bytes, more than {most}")
        mount.umount()
        hub.stop()


if __name__ == "__main__":
    main([test_a_quarter_of_the_experts, test_slices_of_every_tensor, test_shuffled_tensors_come_once,
          test_many_readers_of_one_file, test_threads_are_never_slower_than_one,
          test_prefetch_does_what_it_says], 190)
