# ctest: serial timeout=60
"""Equal content is one inode, and so one copy in the page cache, whatever paths lead to it."""

from mountlib import *

libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
PAGE = 4 * KIB


def resident(path):
    """Bytes of a file that the page cache holds."""
    with Map(path, is_random=True) as mapped:
        pages = -(-mapped.bytes // PAGE)
        flags = ctypes.create_string_buffer(pages)
        check_equal(libc.mincore(mapped.address, mapped.bytes, flags), 0, "mincore")
        return min(sum(flag & 1 for flag in flags.raw) * PAGE, mapped.bytes)


def test_one_copy():
    folder = scratch()
    size = 6 * MIB + 77
    hub = Hub()
    for revision in ("main", "next"):
        hub.pattern("org/one", "same.bin", size, seed=1, revision=revision)
        hub.pattern("org/one", "own.bin", size, seed=2 if revision == "main" else 3, revision=revision)
    hub.pattern("org/two", "other-name.bin", size, seed=1)
    mount = Mount(hub, folder)
    first = mount.path("org/one/same.bin")
    others = [mount.path("org/one@next/same.bin"), mount.path("org/two/other-name.bin")]
    drop_caches()
    check_equal(resident(first), 0, "resident before")
    wanted = sha_file(first)
    sha_file(mount.path("org/one/own.bin"))
    hub.control(reset_counters=1)
    for path in others:
        check_equal(os.stat(path).st_ino, os.stat(first).st_ino, f"inode of {path}")
        check_equal(resident(path), size, f"resident bytes of {path}, which nobody has read")
        check_equal(sha_file(path), wanted, path)
    # A load of the next revision reads what changed and nothing else.
    check_equal(resident(mount.path("org/one@next/own.bin")), 0, "resident bytes of what changed")
    check_equal(hub.body_bytes(), 0, "bytes fetched for equal content")


if __name__ == "__main__":
    main([test_one_copy], 50)
