#!/usr/bin/env python3
"""What a mount costs when there is much of everything.

    tests/bench/scale.py [chunks|repos|files|readers]…     (as root; default: all; 10 GB of disk)

  chunks   a store of 10 million chunks: time from the mount command until `ls` of a cached repo has answered,
           and what the daemon's processes hold when idle
  repos    20,000 known repos, offline: the same, and `ls` of the root, of one of 200 organisations and of one repo
  files    `ls -lR` of a repo of 100,000 files beside the same folder on ext4, page cache dropped and kept
  readers  1,000 open files and 256 reading threads: memory for each open file, and over `mem_cache`

Medians of five.  Index rows of `chunks` and `repos` are made here from what one real pull has put there;
their packs are holes.  CAKE_BIN and TEST_HUB_BIN name the programs, default build/dev.
"""

import hashlib
import os
import sqlite3
import statistics
import subprocess
import sys
import threading
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
BUILD = os.environ.get("CAKE_BUILD", f"{ROOT}/build/dev")
os.environ.setdefault("CAKE_SOURCE_DIR", ROOT)
os.environ.setdefault("CAKE_BIN", f"{BUILD}/cake")
os.environ.setdefault("TEST_HUB_BIN", f"{BUILD}/test_hub")
sys.path.insert(0, f"{ROOT}/tests/mount")

from mountlib import (CAKE, KIB, MIB, Hub, Mount, check, check_equal, drop_caches, main, memory_kib, noise, note, pread, run,
                      scratch, write)

ROUNDS = 5
CHUNKS = 10_000_000
CHUNKS_A_PACK = 4_096
REPOS, ORGS = 20_000, 200
FILES, FOLDERS = 100_000, 200
OPEN_FILES, READERS = 1_000, 256


def resident_mib(mount, key="VmRSS"):
    return sum(memory_kib(pid, key) for pid in mount.processes()) / 1024


def ls(path, *words):
    """Seconds, and lines."""
    start = time.monotonic()
    done = subprocess.run(["ls", *words, path], stdout=subprocess.PIPE, check=True, timeout=300)
    return time.monotonic() - start, done.stdout.count(b"\n")


def milliseconds(values):
    return f"{1000 * statistics.median(values):.0f} ms"


def pulled_store(folder):
    """A store with one small repo in it, and the hub that it came from."""
    write(f"{folder}/origin/org/model/config.json", b"{}")
    write(f"{folder}/origin/org/model/weights.bin", noise(3 * MIB, 1))
    hub = Hub(f"{folder}/origin")
    done = run(CAKE, f"--store={folder}/store", f"--endpoint={hub.url}", "pull", "org/model", "--all-formats")
    check_equal(done.returncode, 0, f"cake pull: {done.stderr}")
    return hub


def open_index(folder):
    db = sqlite3.connect(f"{folder}/store/index.db", isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    return db


def mounted_ls(mount, path):
    """From the mount command to the answer of `ls`; then what idles."""
    took = []
    for prepare in (lambda: None, drop_caches):
        times = []
        for _ in range(ROUNDS):
            mount.umount()
            prepare()
            start = time.monotonic()
            mount.mount()
            ls(mount.path(path))
            times.append(time.monotonic() - start)
        took.append(milliseconds(times))
    time.sleep(12)  # two rounds of the upkeep thread
    note(f"  mount and `ls` of {path or 'the root'}: {took[0]}, {took[1]} after dropping all disk caches, the program's too; "
         f"idle: {resident_mib(mount):.0f} MiB resident, of it {resident_mib(mount, 'RssAnon'):.0f} MiB the processes' own")


def chunks():
    folder = scratch()
    hub = pulled_store(folder)
    db = open_index(folder)
    now = int(time.time())
    packs = -(-CHUNKS // CHUNKS_A_PACK)
    first_pack = 1 + db.execute("SELECT max(id) FROM pack").fetchone()[0]
    pack_bytes = (CHUNKS_A_PACK + 1) * (MIB + 4096)
    db.execute("BEGIN")
    for i in range(packs):
        name = f"{first_pack + i:08x}-{i:016x}.pack"
        with open(f"{folder}/store/packs/{name}", "wb") as file:
            file.truncate(pack_bytes)
        db.execute("INSERT INTO pack (id, name, committed_bytes, sealed) VALUES (?, ?, ?, 1)", (first_pack + i, name, pack_bytes))

    def rows():
        # Digests ascend, so that the table is written once; where they lie is mixed.
        for i in range(CHUNKS):
            at = i * 7_368_787 % CHUNKS
            yield ((i << 232 | 0xa5).to_bytes(32, "big"), first_pack + at // CHUNKS_A_PACK,
                   (at % CHUNKS_A_PACK) * (MIB + 4096) + 4096, MIB, MIB, i, now - at % 1_000_000)

    db.executemany("INSERT INTO chunk (digest, pack, offset, encoded_bytes, plain_bytes, codec, checksum, base, last_access, uses)"
                   " VALUES (?, ?, ?, ?, ?, 0, ?, NULL, ?, 0)", rows())
    db.execute("COMMIT")
    db.close()
    size = os.path.getsize(f"{folder}/store/index.db")
    note(f"{CHUNKS:,} chunks in {packs:,} packs; index of {size / 1e9:.1f} GB")
    mount = Mount(hub, folder)
    mounted_ls(mount, "org/model")
    mount.umount()


def repos():
    folder = scratch()
    hub = pulled_store(folder)
    db = open_index(folder)
    db.execute("BEGIN")
    (repo, source, kind), = db.execute("SELECT id, source, type FROM repo WHERE name = 'org/model'")
    for i in range(REPOS):
        name = f"org{i % ORGS:03d}/model{i // ORGS:03d}"
        new = db.execute("INSERT INTO repo (source, type, name) VALUES (?, ?, ?)", (source, kind, name)).lastrowid
        db.execute("INSERT INTO ref SELECT ?, revision, commit_id, resolved_at FROM ref WHERE repo = ?", (new, repo))
        db.execute("INSERT INTO snapshot (repo, commit_id, date, files, bytes, entries, contents)"
                   " SELECT ?, commit_id, date, files, bytes, entries, contents FROM snapshot WHERE repo = ?", (new, repo))
    db.execute("COMMIT")
    db.close()
    hub.stop()
    note(f"{REPOS:,} repos of {ORGS} organisations, offline")
    mount = Mount(hub, folder, offline="yes")
    check_equal(ls(mount.path(""))[1], ORGS + 1, "organisations")
    check_equal(ls(mount.path("org007"))[1], REPOS // ORGS, "repos of one")
    check_equal(ls(mount.path("org007/model042"))[1], 2, "files of one")
    mounted_ls(mount, "")
    for path, words in (("", ()), ("org007", ("-l",)), ("org007/model041", ("-l",))):
        times = []
        for _ in range(ROUNDS):
            mount.umount()
            mount.mount()
            times.append(ls(mount.path(path), *words)[0])
        note(f"  `ls {' '.join(words)}` of {path or 'the root'} after a mount: {milliseconds(times)}")
    seconds, lines = ls(mount.path(""), "-R")
    note(f"  `ls -R` of all: {seconds:.1f} s, {lines:,} lines; then {resident_mib(mount):.0f} MiB resident")
    start = time.monotonic()
    done = run(CAKE, f"--store={folder}/store", "ls", "--json", timeout=300)
    check_equal(done.returncode, 0, done.stderr)
    note(f"  `cake ls`: {time.monotonic() - start:.1f} s")
    mount.umount()


def files():
    folder = scratch()
    plain = f"{folder}/origin/org/big"
    for i in range(FOLDERS):
        os.makedirs(f"{plain}/d{i:03}")
        for j in range(FILES // FOLDERS):
            with open(f"{plain}/d{i:03}/f{j:04}.txt", "w") as file:
                file.write(f"{i} {j}\n")
    hub = Hub(f"{folder}/origin")
    mount = Mount(hub, folder)
    note(f"{FILES:,} files in {FOLDERS} folders; `ls -lR`: first {ls(mount.path('org/big'), '-lR')[0]:.1f} s")
    for name, prepare in (("page cache dropped", drop_caches), ("again", lambda: None)):
        ours, theirs = [], []
        for _ in range(ROUNDS):
            for times, path in ((ours, mount.path("org/big")), (theirs, plain)):
                prepare()
                seconds, lines = ls(path, "-lR")
                check(lines >= FILES, f"{path}: {lines} lines")
                times.append(seconds)
        ratio = statistics.median(theirs) / statistics.median(ours)
        note(f"  {name}: {statistics.median(ours):.2f} s, ext4 {statistics.median(theirs):.2f} s: {ratio:.2f}x of its speed")
    note(f"  then {resident_mib(mount):.0f} MiB resident")
    mount.umount()


def readers():
    folder = scratch()
    mem_cache = 256
    data = noise(4 * MIB, 2)
    for i in range(OPEN_FILES):
        write(f"{folder}/origin/org/many/f{i:04}.bin", i.to_bytes(8, "big") + data[8:])
    hub = Hub(f"{folder}/origin")
    mount = Mount(hub, folder, mem_cache=f"{mem_cache}M")
    names = sorted(os.listdir(mount.path("org/many")))
    before = resident_mib(mount, "RssAnon")
    opened = [os.open(mount.path("org/many", name), os.O_RDONLY) for name in names]
    for fd in opened:
        pread(fd, 4 * KIB, 0)
    time.sleep(3)
    after = resident_mib(mount, "RssAnon")
    note(f"{OPEN_FILES} open files, each read at once: {1024 * (after - before) / OPEN_FILES:.0f} KiB each, with the cached chunks")
    peak, done = [0.0], threading.Event()

    def sample():
        while not done.wait(0.1):
            peak[0] = max(peak[0], resident_mib(mount, "RssAnon"))

    sampler = threading.Thread(target=sample)
    sampler.start()
    wrong = []

    def body(number):
        for i in range(number, OPEN_FILES, READERS):
            for part in range(4):
                got = pread(opened[i], MIB, part * MIB)
                wanted = (i.to_bytes(8, "big") + data[8:])[part * MIB:(part + 1) * MIB]
                if hashlib.sha1(got).digest() != hashlib.sha1(wanted).digest():
                    wrong.append((i, part))

    start = time.monotonic()
    threads = [threading.Thread(target=body, args=(i,)) for i in range(READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - start
    done.set()
    sampler.join()
    check_equal(wrong, [], "wrong bytes")
    note(f"  {READERS} threads read {4 * OPEN_FILES} MiB in {seconds:.1f} s; at most {peak[0]:.0f} MiB the processes' own, mem_cache {mem_cache} MiB")
    for fd in opened:
        os.close(fd)
    mount.umount()


if __name__ == "__main__":
    main([chunks, repos, files, readers], 3_600)
