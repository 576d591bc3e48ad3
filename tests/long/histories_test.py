#!/usr/bin/env python3
"""A hundred random histories of a store: pulls, reads, removals, prunes, pins, and kills of all that.

What `cake du` says is what the disk says, `cake fsck` finds nothing, what a removal freed is what
the disk got back, what was complete stays so until it is removed, and all bytes are right in the end.
CAKE_SEED=N runs one history alone.
"""

import time

from longlib import *

HISTORIES = 100
EVERY = 4  # steps between two looks at all of it
SECONDS = 1150
# What sums of blocks may differ by: a process that looks has a lease (4 KiB) and the index's shared
# memory (32 KiB) of its own, and a removal writes up to some fifty pages of 4 KiB to the index's log.
SLACK = 256 * KIB
LIMIT = 2 * GIB  # never reached; as any limit it has writers take space ahead, 16 MiB at a time
# Relative to the mean of a step's kind.
WEIGHTS = {"pull": 5, "pull_some": 3, "read": 4, "rm": 4, "prune": 3, "pin": 2, "unpin": 1.5, "kill_pull": 3,
           "kill_mount": 2}


def origin():
    """{(repo, revision): {path: bytes}}"""
    def tensors(*names):
        return [(name, "BF16", [len(data) // 2], data) for name, data in names]
    embed, one, two = noise(2_500_000, 1), noise(1_800_002, 2), noise(3_000_000, 3)
    smooth, shared = floats(1_200_000, 4), noise(1_400_001, 5)
    small = {f"part/{i}.json": noise(9_000 + 1_301 * i, 100 + i) for i in range(30)}
    return {
        ("org/base", "main"): {
            "model.safetensors": safetensors(tensors(("embed", embed), ("one", one), ("two", two))),
            "config.json": b'{"name": "base"}', "empty.txt": b""},
        ("org/base", "v1"): {
            "model.safetensors": safetensors(
                tensors(("embed", embed), ("one", noise(1_800_002, 6)), ("two", two)), pad=77),
            "config.json": b'{"name": "base", "v": 1}'},
        ("org/tuned", "main"): {
            "model.safetensors": safetensors(
                tensors(("embed", embed), ("one", one), ("two", two[::-1]), ("head", smooth)), pad=1000),
            "config.json": b'{"name": "tuned"}', "empty.txt": b""},
        ("org/shards", "main"): {
            "model-00001-of-00002.safetensors": safetensors(
                tensors(("two", two), ("a", noise(2_900_000, 7))), metadata={"format": "pt"}),
            "model-00002-of-00002.safetensors": safetensors(tensors(("b", noise(4_900_006, 8)))),
            "model.safetensors.index.json": b'{"weight_map": {}}'},
        ("org/floats", "main"): {
            "model.safetensors": safetensors(tensors(("head", smooth), ("more", floats(900_001, 9)))),
            "vocab.dat": shared},
        ("org/tiny", "main"): {"vocab.dat": shared, "nothing": b"", "merges.txt": b"#v\n" * 700},
        ("org/small", "main"): small,
    }


def disk_usage(folder):
    """As du: blocks of all below."""
    return sum(os.lstat(os.path.join(where, name)).st_blocks * 512
               for where, folders, files in os.walk(folder) for name in folders + files)


def behind_the_ends(folder):
    """What writers that were killed had allocated behind the ends of their packs.

    It goes when somebody writes on there, and is nothing that a removal would count as freed.
    """
    total = 0
    for name in os.listdir(f"{folder}/packs"):
        with open(f"{folder}/packs/{name}", "rb") as file:
            size, at, data = os.fstat(file.fileno()).st_size, 0, 0
            while at < size:
                try:
                    begin = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:  # a hole up to the end
                    break
                at = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
                data += (at + 4095) // 4096 * 4096 - begin
            total += max(0, os.fstat(file.fileno()).st_blocks * 512 - data)
    return total


class History:
    """What is done to one store, and what has to be true of it."""

    def __init__(self, hub, files, seed):
        self.hub, self.files, self.seed = hub, files, seed
        self.chance = random.Random(seed)
        self.folder = scratch()
        self.store = f"{self.folder}/store"
        self.mounted = None
        self.known, self.maybe = set(), set()  # revisions that the store has, or may have
        self.complete = {key: set() for key in files}  # paths that are here, and stay until removed
        self.pinned = set()
        self.steps = []
        self.environment = {**os.environ, "CAKE_CACHE_SIZE": str(LIMIT), "CAKE_MIN_FREE": "0",
                            "CAKE_CONFIG": f"{self.folder}/none", "HOME": self.folder}

    # --- Commands ---

    def words(self, *words):
        return [CAKE, "--store", self.store, "--endpoint", self.hub.url, "--no-progress", *words]

    def cake(self, *words, wanted=(0,)):
        done = subprocess.run(self.words(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=120, env=self.environment)
        check(done.returncode in wanted, f"cake {' '.join(words)}: exit {done.returncode}, wanted {wanted}: "
              f"{done.stderr.decode(errors='replace')} {done.stdout[-600:]!r}")
        return done

    def json(self, *words, **more):
        return json.loads(self.cake(*words, "--json", **more).stdout)

    def name(self, key):
        return key[0] if key[1] == "main" else f"{key[0]}@{key[1]}"

    def some(self, keys=None):
        return self.chance.choice(sorted(keys or self.files))

    # --- Mounts ---

    def mount(self):
        if self.mounted is None:
            self.mounted = Mount(self.hub, self.folder, store=self.store, cache_size=LIMIT, min_free=0)
        else:
            self.mounted.mount()

    def wait_for_the_end(self):
        pids = self.mounted.pids
        wait_until(lambda: not any(is_alive(pid) for pid in pids), f"the end of {pids}", 30)
        self.mounted.pids = []

    def umount(self):
        self.mounted.umount()
        self.wait_for_the_end()

    def path(self, key, path):
        return self.mounted.path(self.name(key), path)

    def read_ranges(self, key, count):
        for _ in range(count):
            path = self.some(self.files[key])
            data = self.files[key][path]
            at = self.chance.randrange(len(data) + 1)
            length = self.chance.choice((1, 5000, 300_000, 2 * MIB))
            with open(self.path(key, path), "rb", buffering=0) as file:
                got = pread(file.fileno(), length, at)
            check(got == data[at:at + length], f"wrong bytes: {key} {path} {length} bytes at {at}")

    # --- Steps ---

    def pull(self):
        key = self.some()
        self.cake("pull", self.name(key))
        self.known.add(key)
        self.complete[key] = set(self.files[key])
        return self.name(key)

    def pull_some(self):
        key = self.some()
        pattern = self.some(self.files[key])
        self.cake("pull", self.name(key), "--include", pattern)
        self.known.add(key)
        self.complete[key].add(pattern)
        return f"{self.name(key)} {pattern}"

    def read(self):
        keys = {self.some() for _ in range(3)}
        self.mount()
        for key in sorted(keys):
            self.read_ranges(key, 6)
        self.umount()
        self.maybe |= keys
        return " ".join(map(self.name, sorted(keys)))

    def rm(self):
        """Of a repo or one revision: pinned it is refused, absent not found; what goes is what is said."""
        key = self.some(self.known if self.known and self.chance.random() < 0.8 else None)
        whole = self.chance.random() < 0.5
        target = key[0] if whole else f"{key[0]}@{key[1]}"
        going = {other for other in self.files if other == key or (whole and other[0] == key[0])}
        if going & self.pinned:
            self.cake("rm", target, "-y", wanted=(4,))
            return f"{target}, pinned"
        if not going & (self.known | self.maybe):
            self.cake("rm", target, "-y", wanted=(3,))
            return f"{target}, absent"
        freed = self.freeing("rm", target, wanted=(0,) if going & self.known else (0, 3))
        self.known -= going
        self.maybe -= going
        for other in going:
            self.complete[other] = set()
        return f"{target}: {freed}"

    def prune(self):
        how = self.chance.choice((["--incomplete"], ["--detached"], [], ["--max-size"],
                                  ["--incomplete", "--detached"]))
        if how == ["--max-size"]:
            how = ["--max-size", str(self.chance.choice((0, MIB, 5 * MIB, 12 * MIB)))]
            for key in set(self.files) - self.pinned:
                self.complete[key] = set()
        freed = self.freeing("prune", *how)
        self.check_complete(self.pinned)
        return f"{' '.join(how)}: {freed}"

    def freeing(self, *words, wanted=(0,)):
        """What the command says it freed, which is what the disk got back."""
        self.cake("ls", "-q")  # takes in what a killed process left, which is not this command's
        before = disk_usage(self.store) - behind_the_ends(self.store)
        done = self.cake(*words, "-y", "--json", wanted=wanted)
        if done.returncode != 0:
            return "absent"
        freed = json.loads(done.stdout)["freed_bytes"]
        drop = before - (disk_usage(self.store) - behind_the_ends(self.store))
        check(abs(freed - drop) <= max(SLACK, freed // 100),
              f"{' '.join(words)}: freed {freed} it says, {drop} says the disk")
        return freed

    def pin(self):
        key = self.some(self.known if self.known and self.chance.random() < 0.8 else None)
        wanted = (0,) if key in self.known else (0, 3) if key in self.maybe else (3,)
        done = self.cake("pin", f"{key[0]}@{key[1]}", wanted=wanted)
        if done.returncode == 0:
            self.pinned.add(key)
            self.known.add(key)
        return f"{self.name(key)}: {done.returncode}"

    def unpin(self):
        key = self.some(self.pinned)
        self.cake("unpin", f"{key[0]}@{key[1]}", wanted=(0,) if key in self.pinned else (3,))
        self.pinned.discard(key)
        return self.name(key)

    def kill_pull(self):
        key = self.some()
        self.hub.control(rate=self.chance.choice((5, 20, 80)) * MIB)
        pull = child(*self.words("pull", self.name(key)), stdin=subprocess.DEVNULL,
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment)
        try:
            moment = self.chance.uniform(0.005, 0.35)
            pull.wait(moment)
        except subprocess.TimeoutExpired:
            pull.kill()
        pull.wait(30)
        self.hub.control(rate=0)
        self.maybe.add(key)
        return f"{self.name(key)} after {moment:.3f} s: {pull.returncode}"

    def kill_mount(self):
        keys = [self.some() for _ in range(2)]
        self.mount()
        keeper, worker = self.mounted.pids[-2:]
        self.hub.control(rate=self.chance.choice((5, 20, 80)) * MIB)
        wrong = []

        def read_through(key):
            for path, data in sorted(self.files[key].items()):
                try:
                    with open(self.path(key, path), "rb", buffering=0) as file:
                        at = 0
                        while got := file.read(256 * KIB):
                            if got != data[at:at + len(got)]:
                                wrong.append((key, path, at))
                            at += len(got)
                except OSError:
                    return  # the mount is gone

        readers = [threading.Thread(target=read_through, args=(key,), daemon=True) for key in keys]
        for reader in readers:
            reader.start()
        moment = self.chance.uniform(0.005, 0.35)
        time.sleep(moment)
        for pid in (keeper, worker):  # the keeper first: it would have another worker made
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                raise Failed(f"process {pid} of the mount was gone before it was killed") from None
        for reader in readers:
            reader.join(30)
            check(not reader.is_alive(), "a reader of a killed mount hangs")
        self.hub.control(rate=0)
        check(libc.umount2(self.mounted.directory.encode(), MNT_DETACH) == 0, "umount -l")
        self.wait_for_the_end()
        check(not wrong, f"wrong bytes: {wrong}")
        self.maybe |= set(keys)
        return f"{' '.join(map(self.name, keys))} after {moment:.3f} s"

    # --- What has to be true ---

    def check_complete(self, keys):
        for key in sorted(keys):
            paths = sorted(self.complete[key])
            if not paths:
                continue
            done = self.cake("--offline", "cat", *(f"{key[0]}@{key[1]}/{path}" for path in paths))
            check(done.stdout == b"".join(self.files[key][path] for path in paths),
                  f"wrong bytes of {key} offline")

    def check_all(self):
        report = self.json("fsck")
        check_equal(report["problem_count"], 0, f"problems: {report['problems'][:3]}")
        said = self.json("du")[-1]["on_disk"]
        real = disk_usage(self.store)
        check(abs(said - real) <= max(SLACK, real // 100), f"du says {said}, the disk {real}")
        self.check_complete(self.files)

    def check_bytes(self):
        """Every file of every repo, through a mount or `cake cat`."""
        if self.chance.random() < 0.5:
            self.mount()
            for key, files in self.files.items():
                for path, data in files.items():
                    with open(self.path(key, path), "rb", buffering=0) as file:
                        got = b"".join(iter(lambda: file.read(MIB), b""))
                    check(got == data, f"wrong bytes through the mount: {key} {path}")
            self.umount()
        else:
            for key, files in self.files.items():
                done = self.cake("cat", *(f"{key[0]}@{key[1]}/{path}" for path in files))
                check(done.stdout == b"".join(files.values()), f"wrong bytes of {key} from cake cat")

    def run(self):
        kinds = sorted(WEIGHTS)
        count = self.chance.randint(12, 20)
        for number in range(count):
            kind = self.chance.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
            self.steps.append(kind)
            self.steps[-1] = f"{kind} {getattr(self, kind)()}"
            if number % EVERY == EVERY - 1:
                self.check_all()
        self.steps.append("the end")
        self.check_all()
        self.check_bytes()
        self.check_all()
        shutil.rmtree(self.folder)
        return count


def test_histories():
    folder = scratch()
    files = origin()
    for (repo, revision), contents in files.items():
        for path, data in contents.items():
            write(f"{folder}/{repo}{'' if revision == 'main' else '@' + revision}/{path}", data)
    alone = os.environ.get("CAKE_SEED")
    seeds = [int(alone)] if alone else range(int(os.environ.get("CAKE_HISTORIES", HISTORIES)))
    kinds, failed, start = {}, [], time.monotonic()
    for seed in seeds:
        hub = Hub(folder, shape="direct")  # each its own, for a pull that hangs on to its rate
        history = History(hub, files, seed)
        try:
            history.run()
        except Exception as error:  # the next is another store
            failed.append(seed)
            traceback.print_exc()
            note(f"history {seed}: {error}\n  " + "\n  ".join(history.steps))
            if history.mounted:
                history.mounted.abandon()
        hub.stop()
        for step in history.steps:
            kinds[step.split()[0]] = kinds.get(step.split()[0], 0) + 1
    del kinds["the"]
    note(f"{len(seeds)} histories, {sum(kinds.values())} steps in {time.monotonic() - start:.0f} s: {kinds}")
    check(not failed, f"histories that failed: {failed}")


if __name__ == "__main__":
    main([test_histories], SECONDS)
