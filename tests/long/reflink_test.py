#!/usr/bin/env python3
"""`export --link reflink` and `import --replace` on an XFS of their own: no second copy on disk.

Exit status 77 when mkfs.xfs or a loop device cannot be had.
"""

from longlib import *

FILE_BYTES = 40 * MIB
SLACK = 4 * MIB  # index, folders, what XFS writes down


def xfs(folder):
    if not shutil.which("mkfs.xfs"):
        skip("mkfs.xfs is not installed (package xfsprogs)")
    image, place = f"{folder}/image", f"{folder}/disk"
    with open(image, "wb") as file:
        file.truncate(512 * MIB)
    check_equal(run("mkfs.xfs", "-q", "-m", "reflink=1", image).returncode, 0, "mkfs.xfs")
    os.mkdir(place)
    if run("mount", "-o", "loop", image, place).returncode != 0:
        skip("no loop device to mount XFS on")
    return place


def used(place):
    # XFS frees what was unlinked behind the caller's back, until it is frozen.
    for what in ("--freeze", "--unfreeze"):
        check_equal(run("fsfreeze", what, place).returncode, 0, f"fsfreeze {what}")
    facts = os.statvfs(place)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize


def cake(*words, status=0):
    done = run(CAKE, "--no-progress", *words, timeout=120)
    check_equal(done.returncode, status, f"cake {' '.join(words)}: {done.stderr}")
    return done


def test_one_copy():
    folder = scratch()
    place = xfs(folder)
    try:
        one_copy(folder, place)
    finally:
        run("umount", "-l", place)


def one_copy(folder, place):
    for i, name in enumerate(("model.safetensors", "other.safetensors")):
        write(f"{folder}/o/org/m/{name}", safetensors([("t", "U8", [FILE_BYTES], noise(FILE_BYTES, i))]))
    write(f"{folder}/o/org/m/config.json", b"{}")
    source = f"{folder}/o/org/m"
    server = Server([CAKE, "serve", f"{folder}/o", "--listen", "127.0.0.1:0"])
    at = ["--endpoint", server.url, "--store", f"{place}/store"]
    empty = used(place)

    cake(*at, "export", "org/m", f"{place}/out", "--link", "reflink")
    shared = used(place) - empty
    note(f"store and export of {2 * FILE_BYTES / MIB:.0f} MiB: {shared / MIB:.1f} MiB on disk")
    check(shared < 2 * FILE_BYTES + SLACK, f"{shared} bytes")
    check_equal(run("diff", "-r", source, f"{place}/out").returncode, 0, "diff")
    # A written copy stops sharing; the store has what it had.
    with open(f"{place}/out/model.safetensors", "r+b") as file:
        file.seek(MIB)
        file.write(b"changed")
    cake(*at, "verify", "org/m")
    cake(*at, "export", "org/m", f"{place}/out", "--link", "reflink")
    check_equal(run("diff", "-r", source, f"{place}/out").returncode, 0, "diff, mended")

    # A client's cache, taken in by another store.
    cake("--endpoint", server.url, "--store", f"{folder}/store", "export", "org/m", f"{place}/cache",
         "--layout", "hf")
    at = ["--endpoint", server.url, "--store", f"{place}/other"]
    alone = used(place)
    blobs = f"{place}/cache/models--org--m/blobs"
    damaged = sorted(os.listdir(blobs), key=lambda name: os.path.getsize(f"{blobs}/{name}"))[-1]
    with open(f"{blobs}/{damaged}", "r+b") as file:
        file.seek(5 * MIB)
        right = file.read(1)
        file.seek(5 * MIB)
        file.write(bytes([right[0] ^ 1]))
    for name in os.listdir(blobs):
        os.chmod(f"{blobs}/{name}", 0o640)
        os.utime(f"{blobs}/{name}", (1_000_000_000, 1_500_000_000))
    cake(*at, "import", f"{place}/cache", "--replace", status=1)  # one is not what it is named by
    with open(f"{blobs}/{damaged}", "r+b") as file:
        file.seek(5 * MIB)
        file.write(right)
    done = json.loads(cake(*at, "--json", "import", f"{place}/cache", "--replace").stdout)
    check_equal(done[0]["replaced"], sum(os.path.getsize(f"{source}/{name}") for name in
                                         ("model.safetensors", "other.safetensors")), "replaced")
    taken = used(place) - alone
    note(f"taking in {2 * FILE_BYTES / MIB:.0f} MiB takes {taken / MIB:.1f} MiB")
    check(taken < SLACK, f"{taken} bytes more")
    for name in os.listdir(blobs):
        facts = os.stat(f"{blobs}/{name}")
        if facts.st_size > MIB and name != damaged:
            check_equal((facts.st_mode & 0o777, facts.st_mtime), (0o640, 1_500_000_000), "looks")
    snapshot = os.path.join(f"{place}/cache/models--org--m/snapshots",
                            os.listdir(f"{place}/cache/models--org--m/snapshots")[0])
    check_equal(run("diff", "-r", source, snapshot).returncode, 0, "diff of the cache")
    cake(*at, "verify", "org/m")
    cake(*at, "fsck")
    # Elsewhere there is nothing to share with, and nothing is touched.
    cake("--endpoint", server.url, "--store", f"{folder}/store", "import", f"{place}/cache", "--replace",
         status=2)
    server.stop()


if __name__ == "__main__":
    main([test_one_copy], 300)
