# ctest: serial timeout=60
"""The same tensors behind headers of different length are stored once."""

import glob
import json
import os

from mountlib import *


def pack_bytes(store):
    """What the packs take on disk."""
    total = 0
    for where, _, files in os.walk(store):
        for name in files:
            if ".db" not in name and "index" not in name and "lease" not in name:
                total += os.stat(os.path.join(where, name)).st_blocks * 512
    return total


def du(store):
    done = run(CAKE, "--store", store, "--json", "du")
    check_equal(done.returncode, 0, f"cake du: {done.stderr}")
    return json.loads(done.stdout)


def test_second_repo_costs_nothing():
    folder = scratch()
    # Random bytes: no codec makes them smaller, so a second copy could not hide.
    tensors = [(f"w{i}", "U8", [4_000_003 + i], noise(4_000_003 + i, i)) for i in range(3)]
    for repo, pad in (("one", 0), ("two", 12_345)):
        write(f"{folder}/o/org/{repo}/model.safetensors",
              safetensors(tensors, pad=pad, metadata={"name": repo}))
    hub = Hub(f"{folder}/o")
    mount = Mount(hub, folder)
    sizes = []
    for repo in ("one", "two"):
        check_equal(sha_file(mount.path(f"org/{repo}/model.safetensors")),
                    sha_file(f"{folder}/o/org/{repo}/model.safetensors"), repo)
        mount.umount()  # what was written behind the reader is on disk
        sizes.append((pack_bytes(mount.store), du(mount.store)))
        mount.mount()
    note(f"pack bytes after one, two: {sizes[0][0]}, {sizes[1][0]}; du {json.dumps(sizes[1][1])}")
    check(sizes[0][0] > 11_000_000, "the first repo is stored")
    check(sizes[1][0] - sizes[0][0] <= 64 * KIB, f"the second costs {sizes[1][0] - sizes[0][0]} bytes")
    total = du(mount.store)[0]
    check(total["logical"] >= 24_000_000, f"cake du: logical {total}")
    for key in ("after_dedupe", "after_compression", "on_disk"):
        check(11_000_000 < total[key] < 13_000_000, f"cake du: {key} of {total}")


if __name__ == "__main__":
    main([test_second_repo_costs_nothing], 50)
