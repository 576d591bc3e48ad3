# ctest: serial timeout=120
"""Names: an organisation's models from the hub, what a wrong name costs, branches that move."""

import os

from mountlib import *


def made_hub():
    hub = Hub()
    for i in range(3):
        hub.text(f"org/m{i}", "config.json", '{"m": %d}' % i)
    hub.text("org/m0", "config.json", '{"m": "v1"}', revision="v1")
    hub.text("org/m0", "config.json", '{"m": "slash"}', revision="feature/x")
    hub.text("other/x", "config.json", "{}")
    hub.text("datasets/org/d", "data.csv", "1\n")
    hub.control(reset_counters=1)
    return hub


def requests(hub):
    return hub.counters()["requests"]


def read(path):
    with open(path, "rb") as file:
        return file.read()


def commit_of(path):
    return os.getxattr(path, "user.cake.commit").decode()


def test_listing_comes_from_the_hub():
    hub, folder = made_hub(), scratch()
    mount = Mount(hub, folder)
    check_equal(os.listdir(mount.directory), [], "the root knows nobody yet")
    check_equal(sorted(os.listdir(mount.path("org"))), ["m0", "m1", "m2"], "ls /ORG")
    check_equal(requests(hub), 1, "requests of a listing")
    check_equal(sorted(os.listdir(mount.path("datasets/org"))), ["d"], "datasets")
    check_equal(read(mount.path("org/m1/config.json")), b'{"m": 1}', "a model of it")
    check_equal(os.listdir(mount.directory), ["org"], "the root knows what was read")
    for name, wanted in (("m0@v1", b'{"m": "v1"}'), ("m0@feature%2Fx", b'{"m": "slash"}'),
                         ("m0@" + commit_of(mount.path("org/m0@v1")), b'{"m": "v1"}')):
        check_equal(read(mount.path("org", name, "config.json")), wanted, name)
    hub.stop()
    mount.remount(offline="yes")
    check_equal(sorted(os.listdir(mount.path("org"))), ["m0", "m1", "m2"], "the same without a hub")
    mount.umount()


def test_wrong_names():
    hub, folder = made_hub(), scratch()
    mount = Mount(hub, folder)
    os.listdir(mount.path("org"))
    os.stat(mount.path("org/m0"))
    hub.control(reset_counters=1)
    for name in ("nobody", "org/absent", "org/m0@absent"):
        before = requests(hub)
        for i in range(5):
            expect_errno(errno.ENOENT, name, os.stat, mount.path(name))
            if i == 2:
                drop_caches()  # the kernel's memory of it: ours must answer then
        check(requests(hub) - before <= 1, f"{name}: {requests(hub) - before} requests")
    # Many at once for the same name: one question.
    before = requests(hub)

    def ask(_):
        expect_errno(errno.ENOENT, "a wrong name", os.stat, mount.path("org/absent2"))

    in_threads(16, ask)
    check(requests(hub) - before <= 1, f"16 at once: {requests(hub) - before} requests")
    mount.umount()


def test_a_listing_that_fails_is_not_an_empty_one():
    hub, folder = made_hub(), scratch()
    mount = Mount(hub, folder, soft=True, timeo="1s")
    hub.fault("status", endpoint="list", status=500)
    expect_errno(errno.EIO, "ls of what the hub cannot tell now", os.listdir, mount.path("org"))
    hub.recover()
    hub.fault("status", endpoint="list", status=405)
    check_equal(os.listdir(mount.path("org")), [], "ls where a mirror has no listings")
    check_equal(read(mount.path("org/m1/config.json")), b'{"m": 1}', "a model by its name")
    check_equal(os.listdir(mount.path("org")), ["m1"], "and then the listing has it")
    mount.umount()


def test_probes_cost_nothing():
    hub, folder = made_hub(), scratch()
    mount = Mount(hub, folder)
    os.stat(mount.path("org/m0"))
    before = requests(hub)
    probes = [".git", ".hg", ".svn", ".gitignore", ".Trash-1000", ".hidden", "HEAD", "autorun.inf",
              "package.json", "node_modules", "lost+found", "libcuda.so.1", "a b", "x--y",
              "-x", "x.", "config.json", "System Volume Information", "CVS", "*.json", "é"]
    absent = [f"absent{i}.json" for i in range(20)] + [".git", "model.safetensors.index.json"]
    for _ in range(2):
        for name in probes:
            for place in ("", "datasets", "spaces", "org", ".hf", ".hf/hub"):
                expect_errno(errno.ENOENT, f"{place}/{name}", os.lstat, mount.path(place, name))
        for name in absent:
            expect_errno(errno.ENOENT, name, os.lstat, mount.path("org/m0", name))
        drop_caches()
    done = run("git", "-C", mount.path("org/m0"), "status")
    check(done.returncode != 0, "git found a repository")
    done = run("sh", "-c", 'cd "$1" && for i in *; do :; done; ls -la >/dev/null', "sh", mount.directory)
    check_equal(done.returncode, 0, f"a shell in the root: {done.stderr}")
    check_equal(requests(hub), before, "requests of probes")
    mount.umount()


def test_a_branch_that_moves():
    hub, folder = made_hub(), scratch()
    mount = Mount(hub, folder, refresh="1")
    path = mount.path("org/m0")
    old, held = commit_of(path), os.open(path, os.O_RDONLY)
    file = os.open(os.path.join(path, "config.json"), os.O_RDONLY)
    hub.text("org/m0", "config.json", '{"m": "moved"}')
    hub.text("org/m0", "new.json", "new")
    wait_until(lambda: os.path.exists(os.path.join(path, "new.json")), "the branch has moved", 60)
    check(commit_of(path) != old, "the commit has changed")
    check_equal(read(os.path.join(path, "config.json")), b'{"m": "moved"}', "the new bytes")
    # Who was there before stays where he was.
    check_equal(os.listdir(held), ["config.json"], "the directory that was open")
    inner = os.open("config.json", os.O_RDONLY, dir_fd=held)
    for fd in (file, inner):
        check_equal(pread(fd, 99, 0), b'{"m": 0}', "bytes of the commit that was open")
        os.close(fd)
    os.close(held)
    check_equal(read(mount.path("org", f"m0@{old}", "config.json")), b'{"m": 0}', "the old by commit")
    shown = run(CAKE, "--store", mount.store, "--endpoint", hub.url, "ls", "--revisions", "--json")
    check_equal(shown.returncode, 0, shown.stderr)
    new = commit_of(path)
    check(old in shown.stdout and new in shown.stdout, f"cake ls --revisions: {shown.stdout}")
    mount.umount()


def test_a_branch_that_stays():
    """refresh=never: what was resolved once holds until a pull moves it."""
    hub, folder = made_hub(), scratch()
    mount = Mount(hub, folder)
    path = mount.path("org/m0")
    old = commit_of(path)
    hub.text("org/m0", "config.json", '{"m": "moved"}')
    mount.remount()
    check_equal(commit_of(path), old, "the commit after a remount")
    done = run(CAKE, "--store", mount.store, "--endpoint", hub.url, "--no-progress", "pull", "org/m0")
    check_equal(done.returncode, 0, done.stderr)
    mount.remount()
    check_equal(read(os.path.join(path, "config.json")), b'{"m": "moved"}', "after a pull")
    mount.umount()


def test_what_was_removed_is_looked_up_again():
    """ENOENT was remembered for ever below a commit whose rows `cake rm` took."""
    hub, folder = made_hub(), scratch()
    mount = Mount(hub, folder)
    path = mount.path("org/m0")
    commit = commit_of(path)
    by_commit = mount.path(f"org/m0@{commit}")
    held = [os.open(where, os.O_RDONLY) for where in (path, by_commit)]
    words = (CAKE, "--store", mount.store, "--endpoint", hub.url)
    hub.fault("black_hole")
    for done in (run(*words, "rm", "-y", "org/m0"), run(CAKE, "upgrade", mount.directory)):
        check_equal(done.returncode, 0, done.stderr)
    for fd in held:
        expect_errno(errno.ESTALE, "ls of what is gone", os.listdir, fd)
        expect_errno(errno.ESTALE, "a name in it", os.stat, "config.json", dir_fd=fd)
    hub.recover()
    for where in (path, by_commit):
        check_equal(os.listdir(where), ["config.json"], where)
        check_equal(read(os.path.join(where, "config.json")), b'{"m": 0}', where)
    for fd in held:
        check_equal(os.listdir(fd), ["config.json"], "what was open, come back")
        os.close(fd)
    mount.umount()


def entries(fd, count):
    """Names that one getdents64 into `count` bytes gives; none at the end."""
    buffer = ctypes.create_string_buffer(count)
    got = libc.syscall(217 if os.uname().machine == "x86_64" else 61, fd, buffer, count)
    check(got >= 0, f"getdents64: {os.strerror(ctypes.get_errno())}")
    names, at = [], 0
    while at < got:
        length = struct.unpack_from("<H", buffer, at + 16)[0]
        names.append(buffer.raw[at + 19:at + length].split(b"\0")[0].decode())
        at += length
    return [name for name in names if name not in (".", "..")]


def test_a_listing_goes_on_when_the_branch_moves():
    """The root of one repo: what both commits have is listed, whatever went before it."""
    hub, folder = Hub(), scratch()
    names = [f"f{i:03}.txt" for i in range(200)]
    for name in names:
        hub.text("org/m", name, name)
    mount = Mount(hub, folder, source="hf:org/m", refresh="1")
    held = os.open(mount.directory, os.O_RDONLY)
    seen = entries(held, 1024)
    check(0 < len(seen) < 100, f"{len(seen)} names at once: this test proves nothing")
    for name in names[:50]:
        hub.control(repo="org/m", file=name)
    wait_until(lambda: len(os.listdir(mount.directory)) == 150, "the branch has moved", 60)
    while more := entries(held, 1024):
        seen += more
    check_equal(sorted(set(names[50:]) - set(seen)), [], "names that were left out")
    check_equal(len(seen), len(set(seen)), "each name once")
    os.close(held)
    mount.umount()


if __name__ == "__main__":
    main([test_listing_comes_from_the_hub, test_wrong_names,
          test_a_listing_that_fails_is_not_an_empty_one, test_probes_cost_nothing,
          test_a_branch_that_moves, test_a_branch_that_stays,
          test_what_was_removed_is_looked_up_again,
          test_a_listing_goes_on_when_the_branch_moves], 110)
