# ctest: timeout=240
"""Every byte of a generated hub, read in every way that readers use, equals the origin's."""

import ctypes
import fcntl
import glob
import json
import mmap
import os
import random
import shutil
import subprocess
import tarfile

from mountlib import *

TINY = 20_000 if LONG else 2_000
MANY = 10_000  # entries of the big folder
HASHED = 10_000 if LONG else 1_000  # of them read
DEEP = "/".join(f"level {i}" for i in range(12))

state = {}


def bf16(count, seed):
    return noise(2 * count, seed)


def make_model(folder, seed):
    shards, weight_map = [], {}
    for i in range(3):
        name = f"model-{i + 1:05}-of-00003.safetensors"
        tensors = [(f"layers.{i}.w{k}", "BF16", [count], bf16(count, seed + 10 * i + k))
                   for k, count in enumerate((1_500_000, 3, 700_001, 524_288))]
        tensors.insert(1, (f"layers.{i}.empty", "BF16", [0, 7], b""))
        # Header lengths that are no multiple of anything, so that no tensor starts aligned.
        write(f"{folder}/{name}", safetensors(tensors, pad=(1, 7, 4093)[i], metadata={"format": "pt"}))
        weight_map.update({tensor[0]: name for tensor in tensors})
        shards.append(name)
    write(f"{folder}/model.safetensors.index.json",
          json.dumps({"metadata": {}, "weight_map": weight_map}).encode())
    write(f"{folder}/config.json", json.dumps({"seed": seed}).encode())


def make_hub(root):
    make_model(f"{root}/org/model", 1)
    make_model(f"{root}/org/model@v1.0", 1)
    write(f"{root}/org/model@v1.0/config.json", b'{"old": true}')
    write(f"{root}/org/model@refs%2Ftags%2Ft1/config.json", b'{"tag": 1}')
    write(f"{root}/org/model@refs%2Fpr%2F1/config.json", b'{"pr": 1}')
    write(f"{root}/org/model@refs%2Fpr%2F1/extra.bin", noise(70_000, 5))

    tensors = [(f"t.{i}", "F32", [i % 9], noise(4 * (i % 9), i)) for i in range(TINY)]
    write(f"{root}/org/tiny/model.safetensors", safetensors(tensors))
    write(f"{root}/org/tiny/empty", b"")
    write(f"{root}/org/tiny/only_empty.safetensors", safetensors([("a", "F16", [0], b"")]))
    write(f"{root}/org/tiny/none.safetensors", safetensors([]))

    for i, name in enumerate(["a b.txt", "ünï/日本語.bin", "100%.bin", "%41.bin", "a+b.bin", "x#y.txt",
                              "what?.bin", "quote'\".txt", "semi;amp&.bin", f"{DEEP}/leaf.bin",
                              "tilde~.bin", "a%2Fb.txt", "[brackets]{}.txt", "🤗.bin"]):
        write(f"{root}/org/names/{name}", noise(1_000 + i, 100 + i))
    write(f"{root}/org/misc/pytorch_model.bin", noise(17 * MIB + 3, 7))
    write(f"{root}/org/misc/model.gguf",
          b"GGUF" + (3).to_bytes(4, "little") + bytes(16) + noise(5 * MIB + 1, 8))
    for path in sorted(glob.glob(f"{SOURCE}/tests/fuzz/corpus/safetensors/*")):
        shutil.copy(path, os.path.join(make_dir(f"{root}/org/bad"), os.path.basename(path) + ".safetensors"))
    good = safetensors([("a", "F32", [64], noise(256, 1)), ("b", "F32", [64], noise(256, 2))])
    spoilt = {"cut_in_header": good[:40], "cut_in_tensor": good[:-1], "long": good + b"\0" * 9,
              "huge_header": (1 << 62).to_bytes(8, "little") + good[8:],
              "zero_header": bytes(8) + good[8:], "seven_bytes": good[:7], "eight_bytes": good[:8],
              "not_json": good[:8] + b"x" * (len(good) - 8),
              "overlap": good.replace(b"[256,512]", b"[255,511]"),
              "gap": good.replace(b"[256,512]", b"[257,512]"),
              "bad_dtype": good.replace(b"F32", b"F99"), "bad_shape": good.replace(b"[64]", b"[65]"),
              "reversed": good.replace(b"[0,256]", b"[256,0]"), "big": noise(3 * MIB + 11, 9)}
    for name, data in spoilt.items():
        write(f"{root}/org/bad/{name}.safetensors", data)
    check(len(os.listdir(f"{root}/org/bad")) >= 40, "at least 40 malformed files")
    for i in range(MANY):
        write(f"{root}/org/many/file-{i:05}.txt", b"%d" % i)


def make_dir(path):
    os.makedirs(path, exist_ok=True)
    return path


def set_up():
    folder = scratch()
    root = os.path.join(folder, "origin")
    make_hub(root)
    state["root"] = root
    state["hub"] = Hub(root)
    state["mount"] = Mount(state["hub"], folder)
    wanted = {}
    for where, _, files in os.walk(root):
        for name in files:
            path = os.path.join(where, name)
            relative = os.path.relpath(path, root)
            if "/many/" in relative and int(name[5:10]) >= HASHED:
                continue
            wanted[relative] = sha_file(path)
    state["wanted"] = wanted
    note(f"{len(wanted)} files, {sum(os.path.getsize(os.path.join(root, p)) for p in wanted)} bytes")


def compare_all(what):
    mount, wanted = state["mount"], list(state["wanted"].items())
    wrong = []

    def some(i):
        for relative, digest in wanted[i::8]:
            try:
                got = sha_file(mount.path(relative))
            except OSError as error:
                got = str(error)
            if got != digest:
                wrong.append((relative, got))

    in_threads(8, some)
    check(not wrong, f"{what}: {len(wrong)} of {len(wanted)} files differ: {wrong[:5]}")


def test_names_and_sizes():
    mount, root = state["mount"], state["root"]
    for repo in ("org/model", "org/tiny", "org/names", "org/misc", "org/bad", "org/many"):
        got, wanted = {}, {}
        for out, top in ((got, mount.path(repo)), (wanted, os.path.join(root, repo))):
            for where, _, files in os.walk(top):
                for name in files:
                    path = os.path.join(where, name)
                    out[os.path.relpath(path, top)] = os.stat(path).st_size
        check_equal(set(got), set(wanted), f"names of {repo}")
        check_equal(got, wanted, f"sizes of {repo}")


def test_cold_hashes():
    compare_all("cold")


def test_warm_hashes_after_remount():
    state["mount"].remount()
    state["hub"].control(reset_counters=1)
    compare_all("warm")
    check_equal(state["hub"].body_bytes(), 0, "bytes of files fetched by warm reads")


def test_offline_hashes():
    state["hub"].control(reset_counters=1)
    state["mount"].remount(offline="yes")
    compare_all("offline")
    test_names_and_sizes()
    check_equal(state["hub"].counters()["requests"], 0, "requests with offline=yes")
    expect_errno((errno.EHOSTUNREACH, errno.ENOENT), "an unknown repo offline", os.stat,
                 state["mount"].path("org/unknown"))
    state["mount"].remount()


def fresh_mount():
    """An empty store, so that what follows reads uncached files."""
    state["mount"].umount()
    drop_caches()
    shutil.rmtree(state["mount"].store)
    state["mount"].mount()


def test_mmap_from_16_threads():
    fresh_mount()
    for name in ("org/model/model-00001-of-00003.safetensors", "org/misc/pytorch_model.bin"):
        with open(os.path.join(state["root"], name), "rb") as file:
            wanted = file.read()
        with Map(state["mount"].path(name)) as mapped:
            check_equal(mapped.bytes, len(wanted), "size")

            def touch(i):
                offsets = list(range(0, len(wanted), 96 * KIB))
                random.Random(i).shuffle(offsets)
                for offset in offsets:
                    check(mapped.read(offset, 8 * KIB) == wanted[offset:offset + 8 * KIB],
                          f"{name} at {offset} through mmap")

            in_threads(16, touch)


def test_parallel_preads_of_16_mib():
    fresh_mount()
    name = "org/misc/pytorch_model.bin"
    with open(os.path.join(state["root"], name), "rb") as file:
        wanted = file.read()
    fd = os.open(state["mount"].path(name), os.O_RDONLY)

    def read(i):
        offset = i * 65_537
        got = pread(fd, 16 * MIB, offset)
        check_equal(len(got), min(16 * MIB, len(wanted) - offset), f"length of a pread at {offset}")
        check(got == wanted[offset:offset + 16 * MIB], f"bytes of a pread at {offset}")

    in_threads(16, read)
    check_equal(pread(fd, 100, len(wanted) - 7), wanted[-7:], "a read over the end")
    check_equal(pread(fd, 100, len(wanted)), b"", "a read at the end")
    check_equal(pread(fd, 100, len(wanted) + 5_000_000), b"", "a read past the end")
    os.close(fd)


def test_direct_at_odd_offsets():
    fresh_mount()
    for name in ("org/model/model-00002-of-00003.safetensors", "org/misc/model.gguf"):
        with open(os.path.join(state["root"], name), "rb") as file:
            wanted = file.read()
        fd = os.open(state["mount"].path(name), os.O_RDONLY | os.O_DIRECT)

        def read(i):
            dice = random.Random(i)
            for _ in range(24):
                offset = dice.randrange(len(wanted))
                length = dice.choice((1, 511, 4096, 70_001, 1_048_577, 3_000_003))
                got = pread_direct(fd, length, offset)
                check(got == wanted[offset:offset + length],
                      f"{name}: O_DIRECT {length} at {offset}: {len(got)} bytes")

        in_threads(4, read)
        check_equal(pread_direct(fd, 8192, len(wanted) - 1_001), wanted[-1_001:], "O_DIRECT over EOF")
        os.close(fd)


def test_stable_directory():
    mount = state["mount"]
    where = mount.path("org/many")
    first, second = os.listdir(where), os.listdir(where)
    check_equal(len(first), MANY, "entries")
    check_equal(len(set(first)), MANY, "different entries")
    check_equal(first, second, "two listings")

    class Dirent(ctypes.Structure):
        _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("reclen", ctypes.c_ushort),
                    ("type", ctypes.c_ubyte), ("name", ctypes.c_char * 256)]

    libc.opendir.restype = ctypes.c_void_p
    libc.readdir.restype = ctypes.POINTER(Dirent)
    libc.readdir.argtypes = libc.telldir.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]
    libc.telldir.restype = ctypes.c_long
    libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
    stream = libc.opendir(where.encode())
    names, places = [], []
    while True:
        places.append(libc.telldir(stream))
        entry = libc.readdir(stream)
        if not entry:
            break
        names.append(entry.contents.name)
    check_equal(len(names), MANY + 2, "entries through readdir, with . and ..")
    for i in random.Random(1).sample(range(len(names)), 300):
        libc.seekdir(stream, places[i])
        check_equal(libc.readdir(stream).contents.name, names[i], f"the entry at telldir {places[i]}")
    libc.closedir(stream)
    done = run("ls", "-lR", mount.path("org/names"), mount.path("org/many"), env={"LC_ALL": "C"})
    check_equal(done.returncode, 0, f"ls -lR: {done.stderr[:300]}")
    inode = os.stat(mount.path("org/many/file-00007.txt")).st_ino
    mount.remount()
    check_equal(os.stat(mount.path("org/many/file-00007.txt")).st_ino, inode, "inode after remount")


def test_mutations_are_refused():
    mount = state["mount"]
    file, folder = mount.path("org/model/config.json"), mount.path("org/model")
    new = mount.path("org/model/new")
    for what, function in {
            "create": lambda: os.open(new, os.O_CREAT | os.O_WRONLY),
            "open for writing": lambda: os.open(file, os.O_WRONLY),
            "open for both": lambda: os.open(file, os.O_RDWR),
            "O_TRUNC": lambda: os.open(file, os.O_WRONLY | os.O_TRUNC),
            "truncate": lambda: os.truncate(file, 0), "unlink": lambda: os.unlink(file),
            "rmdir": lambda: os.rmdir(folder), "mkdir": lambda: os.mkdir(new),
            "mkdir in the root": lambda: os.mkdir(mount.path("neworg")),
            "rename": lambda: os.rename(file, new), "link": lambda: os.link(file, new),
            "symlink": lambda: os.symlink("x", new), "mkfifo": lambda: os.mkfifo(new),
            "chmod": lambda: os.chmod(file, 0o777), "chown": lambda: os.chown(file, 1, 1),
            "utime": lambda: os.utime(file), "setxattr": lambda: os.setxattr(file, "user.x", b"1"),
            "removexattr": lambda: os.removexattr(file, "user.cake.sha256"),
    }.items():
        expect_errno(errno.EROFS, what, function)
    fd = os.open(file, os.O_RDONLY)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    check(libc.fallocate(fd, 0, 0, 100) != 0, "fallocate is refused")
    os.close(fd)


def test_names_that_cannot_be():
    mount = state["mount"]
    for name in ("n" * 256, "n" * 700):
        for parent in ("", "org", "org/model"):
            expect_errno(errno.ENAMETOOLONG, f"{len(name)} bytes in /{parent}", os.stat,
                         mount.path(parent, name))
    state["hub"].control(reset_counters=1)
    for name in (".git", ".Trash", "org/.hidden", "a b/c", "org/semi;colon", "org/a?b"):
        expect_errno(errno.ENOENT, name, os.stat, mount.path(name))
    check_equal(state["hub"].counters()["requests"], 0, "requests for names that cannot be repo ids")
    expect_errno(errno.ENOENT, "absent file", os.stat, mount.path("org/model/absent"))
    expect_errno(errno.ENOENT, "absent repo", os.stat, mount.path("org/absent"))
    expect_errno(errno.ENOTDIR, "file as folder", os.stat, mount.path("org/model/config.json/x"))


def test_attributes():
    mount = state["mount"]
    file = mount.path("org/misc/model.gguf")
    facts = os.stat(file)
    check_equal(facts.st_mode & 0o7777, 0o444, "mode of a file")
    check_equal(os.stat(mount.path("org/misc")).st_mode & 0o7777, 0o555, "mode of a folder")
    check_equal(facts.st_nlink, 1, "links")
    check_equal(facts.st_blocks, (facts.st_size + 511) // 512, "blocks: nothing looks like a hole")
    check_equal(os.getxattr(file, "user.cake.sha256").decode(),
                state["wanted"]["org/misc/model.gguf"], "user.cake.sha256")
    names = os.listxattr(file)
    check("user.cake.sha256" in names and "user.cake.cached" in names, f"xattrs {names}")
    os.getxattr(file, "user.cake.cached")
    expect_errno(errno.ENODATA, "absent xattr", os.getxattr, file, "user.absent")
    # Else ls asks for both of every file.
    for name in ("security.selinux", "system.posix_acl_access"):
        expect_errno(errno.EOPNOTSUPP, name, os.getxattr, file, name)
    commit = os.getxattr(mount.path("org/misc"), "user.cake.commit").decode()
    check(len(commit) == 40 and int(commit, 16) >= 0, f"commit {commit}")
    check_equal(sha_file(mount.path(f"org/misc@{commit}/model.gguf")),
                state["wanted"]["org/misc/model.gguf"], "by commit")
    space = os.statvfs(mount.directory)
    store = os.statvfs(mount.store)
    check(space.f_blocks > 0 and space.f_namemax == 255, f"statfs {space}")
    check(space.f_blocks * space.f_frsize <= store.f_blocks * store.f_frsize * 1.01, "statfs is the store's")
    fd = os.open(file, os.O_RDONLY)
    check_equal(os.lseek(fd, 0, os.SEEK_DATA), 0, "SEEK_DATA")
    check_equal(os.lseek(fd, 0, os.SEEK_HOLE), facts.st_size, "SEEK_HOLE")
    other = os.open(file, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    expect_errno(errno.EWOULDBLOCK, "a lock that another holds", fcntl.flock, other,
                 fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(fd, fcntl.LOCK_UN)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)
    os.close(other)
    same = os.stat(mount.path("org/model/model-00001-of-00003.safetensors"))
    twin = os.stat(mount.path("org/model@v1.0/model-00001-of-00003.safetensors"))
    check_equal(same.st_ino, twin.st_ino, "equal content, equal inode")


def test_copies_of_uncached_files():
    folder = scratch()
    source = "org/model"
    tools = {"cp": lambda out: ["cp", "-a", state["mount"].path(source), out],
             "cp --sparse": lambda out: ["cp", "-a", "--sparse=auto", state["mount"].path(source), out],
             "tar -S": lambda out: ["tar", "-S", "-C", state["mount"].path("org"), "-cf", f"{out}.tar",
                                    "model"]}
    if shutil.which("rsync"):
        tools["rsync -aS"] = lambda out: ["rsync", "-aS", state["mount"].path(source) + "/", out]
    else:
        note("rsync is not installed: that part is left out")
    for what, words in tools.items():
        fresh_mount()
        out = os.path.join(folder, what.replace(" ", ""))
        done = run(*words(out))
        check_equal(done.returncode, 0, f"{what}: {done.stderr[:300]}")
        if what == "tar -S":
            with tarfile.open(f"{out}.tar") as archive:
                archive.extractall(folder)
            out = os.path.join(folder, "model")
        for name in os.listdir(os.path.join(state["root"], source)):
            check_equal(sha_file(os.path.join(out, name)), state["wanted"][f"{source}/{name}"],
                        f"{what} of {name}")


if __name__ == "__main__":
    main([set_up, test_names_and_sizes, test_cold_hashes, test_warm_hashes_after_remount,
          test_offline_hashes, test_mmap_from_16_threads, test_parallel_preads_of_16_mib,
          test_direct_at_odd_offsets, test_stable_directory, test_mutations_are_refused,
          test_names_that_cannot_be, test_attributes, test_copies_of_uncached_files],
         1800 if LONG else 220)
