#!/usr/bin/env python3
"""Ten thousand flipped bits in packs and index of a store: no wrong byte, found, and mended.

Each round flips bits in a copy of one store.  Offline, every file then reads right or fails; when
one fails, `cake fsck` or `cake verify` says so, or what the index lost is what the hub gives again;
repaired, all bytes are right, and nothing is found any more.
CAKE_SEED=N runs one round alone, CAKE_FLIPS=N less or more of them.
"""

import sqlite3

from longlib import *

FLIPS = 10_000
SECONDS = 1150
THREADS = 2
KINDS = ("few in packs", "in index", "many in packs", "in log", "many in packs", "in index")
CALLS = 120  # seconds that a command may take


def origin():
    """{repo: {path: bytes}}"""
    def tensors(*names):
        return [(name, "BF16", [len(data) // 2], data) for name, data in names]
    one, two = floats(1_900_000, 1), noise(3_500_002, 2)
    return {
        "org/base": {"model.safetensors": safetensors(tensors(("one", one), ("two", two))),
                     "config.json": b'{"name": "base"}', "empty.txt": b""},
        "org/tuned": {"model.safetensors": safetensors(
            tensors(("two", two), ("one", one), ("own", noise(700_000, 3))), pad=300)},
        "org/floats": {"model.safetensors": safetensors(tensors(("a", floats(3_000_000, 4)),
                                                                ("b", floats(500_001, 5))))},
        "org/noise": {"data.dat": noise(7 * MIB + 11, 6), "more.dat": noise(5 * MIB, 7)},
        "org/text": {"vocab.json": json.dumps({f"token{i * 7919}": i for i in range(90_000)}).encode(),
                     **{f"part/{i}.json": noise(5_000 + 9_301 * i, 100 + i) for i in range(12)}},
        "org/last": {"model.safetensors": safetensors(tensors(("one", floats(1_000_000, 8)), ("two", two))),
                     "notes.md": b"# last\n" * 100},
    }


class Sum:
    """Counts of all rounds."""

    def __init__(self):
        self.lock = threading.Lock()
        self.counts = {}
        self.failed = []

    def add(self, **counts):
        with self.lock:
            for name, count in counts.items():
                self.counts[name] = self.counts.get(name, 0) + count


class Wrong(Failed):
    """Bytes that are not the file's."""


class Template:
    """A store of everything, made once; its index in the database, and partly in the log."""

    def __init__(self, folder):
        self.files = origin()
        for repo, contents in self.files.items():
            for path, data in contents.items():
                write(f"{folder}/hub/{repo}/{path}", data)
        self.hub = Hub(f"{folder}/hub", shape="direct")
        self.logged, self.plain = f"{folder}/logged", f"{folder}/plain"
        for repo in self.files:
            if repo == "org/last":
                self.checkpoint(self.logged)
            cake(self.hub, self.logged, "pull", repo)
        shutil.copytree(self.logged, self.plain)
        self.checkpoint(self.plain)
        check(os.path.getsize(f"{self.logged}/index.db-wal") > 20_000, "no log to damage")
        codecs = {row["codec"] for row in json.loads(
            cake(self.hub, self.plain, "du", "--by", "codec", "--json").stdout) if row["encoded"]}
        check(codecs >= {"raw", "zstd", "float_planes"}, f"not all codecs are there: {codecs}")

    @staticmethod
    def checkpoint(store):
        with sqlite3.connect(f"{store}/index.db") as index:
            index.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        index.close()


def stacks(pid):
    """Where the threads of a process are; without gdb, what they wait for."""
    if shutil.which("gdb"):
        return run("gdb", "-p", str(pid), "-batch", "-ex", "thread apply all bt 25").stdout
    lines = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm") as name, open(f"/proc/{pid}/task/{task}/wchan") as waits:
            lines.append(f"{name.read().strip()}: {waits.read()}")
    return "\n".join(lines)


def cake(hub, store, *words, wanted=(0,)):
    environment = {**os.environ, "CAKE_CONFIG": f"{store}/none", "CAKE_MIN_FREE": "0"}
    process = child(CAKE, "--store", store, "--endpoint", hub.url, "--no-progress", *words,
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    try:
        out, err = process.communicate(timeout=CALLS)
    except subprocess.TimeoutExpired:
        note(f"cake {' '.join(words)} hangs:\n{stacks(process.pid)}")
        process.kill()
        raise
    done = subprocess.CompletedProcess(words, process.returncode, out, err)
    check(wanted is None or done.returncode in wanted,
          f"cake {' '.join(words)}: exit {done.returncode}, wanted {wanted}: "
          f"{done.stderr.decode(errors='replace')[-600:]} {done.stdout[-1500:]!r}")
    check(done.returncode >= 0, f"cake {' '.join(words)}: ended by signal {-done.returncode}")
    return done


def flip(paths, count, chance):
    """Flips `count` bits of what is allocated of the files; all files together are equally dense."""
    sizes = [os.path.getsize(path) for path in paths]
    check(sum(sizes) > 0, f"nothing to damage in {paths}")
    places = {}
    while len(places) < count:
        at = chance.randrange(8 * sum(sizes))
        for path, size in zip(paths, sizes):
            if at < 8 * size:
                places[path, at] = True
                break
            at -= 8 * size
    for path, at in places:
        with open(path, "r+b") as file:
            file.seek(at // 8)
            byte = file.read(1)[0]
            file.seek(at // 8)
            file.write(bytes([byte ^ 1 << at % 8]))
    return [(os.path.basename(path), at // 8, at % 8) for path, at in places]


class Round:
    def __init__(self, template, number, kind, sums):
        self.template, self.number, self.kind, self.sums = template, number, kind, sums
        self.hub, self.files = template.hub, template.files
        self.chance = random.Random(number)
        self.folder = scratch()
        self.store = f"{self.folder}/store"
        self.mounted = None

    # --- Reading ---

    def by_mount(self, store, **options):
        """{file: failure} of what cannot be read offline; wrong bytes raise."""
        try:
            self.mounted = Mount(self.hub, self.folder, store=store, min_free=0, **options)
        except Failed as error:
            return {"mount": str(error)}
        failures = {}
        for repo, contents in self.files.items():
            for path, data in contents.items():
                got = b""
                try:
                    with open(self.mounted.path(repo, path), "rb", buffering=0) as file:
                        while part := file.read(MIB):
                            got += part
                    is_right = got == data
                except OSError as error:
                    failures[f"{repo}/{path}"] = errno.errorcode.get(error.errno)
                    is_right = data.startswith(got)
                if not is_right:
                    raise Wrong(f"wrong bytes through a mount: {repo}/{path}, {len(got)} of {len(data)}")
        self.mounted.umount()
        pids = self.mounted.pids
        wait_until(lambda: not any(is_alive(pid) for pid in pids), f"the end of {pids}", 30)
        return failures

    def by_cat(self, store, *words):
        failures = {}
        for repo, contents in self.files.items():
            for path, data in contents.items():
                done = cake(self.hub, store, *words, "cat", f"{repo}/{path}", wanted=None)
                if done.returncode != 0:
                    failures[f"{repo}/{path}"] = done.returncode
                if not (data == done.stdout or (done.returncode != 0 and data.startswith(done.stdout))):
                    raise Wrong(f"wrong bytes from cake {' '.join(words)} cat: {repo}/{path}, "
                                f"{len(done.stdout)} of {len(data)}")
        return failures

    def offline(self, store):
        if self.chance.random() < 0.6:
            return self.by_mount(store, offline="yes")
        return self.by_cat(store, "--offline")

    def in_time(self, function, *words):
        """A read that hangs in the kernel must not hang the test."""
        result = []

        def body():
            try:
                result.append((function(*words), None))
            except BaseException as error:  # passed on below
                result.append((None, error))

        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        thread.join(CALLS)
        check(not thread.is_alive(), "reading hangs")
        value, error = result[0]
        if error:
            raise error
        return value

    # --- One round ---

    def damage(self):
        many = self.kind == "many in packs"
        log = self.kind == "in log"
        shutil.copytree(self.template.logged if log else self.template.plain, self.store)
        if "packs" in self.kind:
            paths = [f"{self.store}/packs/{name}" for name in sorted(os.listdir(f"{self.store}/packs"))]
            count = self.chance.randint(50, 200) if many else self.chance.randint(1, 8)
        else:
            paths = [f"{self.store}/index.db"] + [f"{self.store}/index.db-wal"] * log
            count = self.chance.randint(1, 20)
        self.flips = flip(paths, count, self.chance)
        return count

    def read_with_hub(self, store):
        everything = [f"{repo}/{path}" for repo, contents in self.files.items() for path in contents]
        done = cake(self.hub, store, "cat", *everything)
        check(done.stdout == b"".join(data for contents in self.files.values() for data in contents.values()),
              "wrong bytes with the hub")

    def repair(self, store):
        """What is set right with what was left of the store, and with the hub."""
        if "packs" in self.kind:
            cake(self.hub, store, "fsck", "--repair")
        else:
            cake(self.hub, store, "fsck", "--rebuild", "--repair", "-y")
            failures = self.in_time(self.offline, store)
            check(not failures, f"an index made again from whole packs does not lead to {failures}")
        self.read_with_hub(store)
        cake(self.hub, store, "fsck")
        cake(self.hub, store, "verify")

    def run(self):
        count = self.damage()
        self.sums.add(**{"flips in packs" if "packs" in self.kind else "flips in index": count}, rounds=1)
        read = f"{self.folder}/read"
        shutil.copytree(self.store, read)
        failures = self.in_time(self.offline, read)
        # 1 when something is wrong; with a damaged index also what that is (2: not understood).
        wanted = (0, 1) if "packs" in self.kind else (0, 1, 2)
        fsck = cake(self.hub, self.store, "fsck", wanted=wanted).returncode != 0
        verify = cake(self.hub, self.store, "--offline", "verify", wanted=wanted).returncode != 0
        if failures and not fsck and not verify:
            # A branch that leads nowhere, say: as if it had never been looked up.
            check("packs" not in self.kind, f"neither fsck nor verify finds why these fail: {failures}")
            try:
                self.read_with_hub(self.store)
            except Failed as error:
                raise Failed(f"neither fsck nor verify finds why these fail: {failures}; {error}") from None
            self.sums.add(**{"rounds mended unnoticed": 1})
        self.sums.add(**{"rounds with unreadable files": bool(failures), "unreadable files": len(failures),
                         "rounds found by fsck": fsck,
                         "rounds found by verify": verify})
        # Also where readers have already dropped what they found wrong.
        self.repair(read if self.chance.random() < 0.5 else self.store)
        self.sums.add(**{"rounds repaired": 1})
        shutil.rmtree(self.folder)


def test_flips():
    template = Template(scratch())
    sums = Sum()
    alone = os.environ.get("CAKE_SEED")
    flips = int(os.environ.get("CAKE_FLIPS", FLIPS))
    numbers = iter([int(alone)] if alone else range(1 << 30))
    start = time.monotonic()

    def some_rounds(_):
        while True:
            with sums.lock:
                done = sums.counts.get("flips in packs", 0) + sums.counts.get("flips in index", 0)
                number = next(numbers, None)
            if done >= flips or number is None:
                return
            one = Round(template, number, KINDS[number % len(KINDS)], sums)
            try:
                one.run()
            except Exception as error:  # the next is another copy
                note(f"round {number}, {one.kind}: {error}\n  flips {one.flips[:20]}")
                with sums.lock:
                    sums.failed.append(number)
                if one.mounted:
                    one.mounted.abandon()

    in_threads(THREADS, some_rounds)
    template.hub.stop()
    summary = ", ".join(f"{count} {name}" for name, count in sums.counts.items())
    note(f"{time.monotonic() - start:.0f} s: {summary}")
    check(not sums.failed, f"rounds that failed: {sorted(sums.failed)}")


if __name__ == "__main__":
    main([test_flips], SECONDS)
