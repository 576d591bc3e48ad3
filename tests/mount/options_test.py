# ctest: serial timeout=120
"""Every way to mount: mount(8), fstab, one repo, an ordinary user; and what cannot be mounted.

Runs in a mount namespace of its own, so that /etc/fstab, /sbin and /dev/fuse can be what a case
needs and nothing is left behind.
"""

import os
import stat

import mountlib
from mountlib import *

CLONE_NEWNS = 0x00020000
libc.unshare.argtypes = [ctypes.c_int]
USER = 65534  # nobody: fusermount3 wants a name
# The mount table's flags of every mount; see mount.cakefs(8).
ALWAYS = {"ro", "nosuid", "nodev"}


def own_namespace():
    """mount(8) finds our mount.cakefs, and reads the fstab that is returned.

    /sbin is covered, not copied: nothing of the machine's may lie below a folder that is removed.
    """
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    sbin, fstab = os.path.realpath("/sbin"), os.path.join(scratch(), "fstab")
    write(fstab, b"")
    for words in (["--make-rprivate", "/"], ["-t", "tmpfs", "tmpfs", sbin],
                  ["--bind", fstab, "/etc/fstab"]):
        done = run("mount", *words)
        check(done.returncode == 0, f"mount {words}: {done.stderr}")
    for name in ("mount.cakefs", "mount.fuse.cakefs"):
        os.symlink(os.path.realpath(CAKE), os.path.join(sbin, name))
    return fstab


def made_hub():
    hub = Hub()
    hub.pattern("org/m", "model.bin", 3 * MIB + 5, seed=1)
    hub.text("org/m", "config.json", '{"main": 1}')
    hub.text("org/m", "config.json", '{"v1": 1}', revision="v1")
    hub.text("org/m", "sub/deep/er.txt", "deep", revision="v1")
    return hub


class Place:
    """A mount point with a blank in its name, and the options of a mount there."""

    def __init__(self, hub):
        self.folder = scratch()
        self.directory = os.path.join(self.folder, "a mount")
        os.mkdir(self.directory)
        mountlib._mounts.append(self)
        self.options = f"endpoint={hub.url},store={self.folder}/store,log={self.folder}/log"

    def abandon(self):
        while libc.umount2(self.directory.encode(), MNT_DETACH) == 0:
            pass

    def flags(self):
        with open("/proc/self/mountinfo") as file:
            for line in file:
                words = line.split()
                if words[4] == self.directory.replace(" ", "\\040"):
                    kind, source = words[words.index("-") + 1:][:2]
                    return kind, source, set(words[5].split(","))
        return None

    def gone(self):
        """Unmounted, and no process of it left."""
        check(self.flags() is None, f"{self.directory} is still mounted")
        entries = json.loads(run(CAKE, "ps", "--json").stdout or "[]")
        return all(entry["mount"] != self.directory for entry in entries)


def tree(folder):
    return sorted(os.path.relpath(os.path.join(where, name), folder)
                  for where, _, names in os.walk(folder) for name in names)


def test_one_repo_by_mount():
    hub = made_hub()
    place = Place(hub)
    done = run("mount", "-t", "cakefs", "hf:org/m@v1", place.directory, "-o", place.options)
    check_equal(done.returncode, 0, f"mount: {done.stderr}")
    kind, source, flags = place.flags()
    check_equal((kind, source), ("fuse.cakefs", "hf:org/m@v1"), "the mount table")
    check(ALWAYS <= flags, f"flags {flags}")
    wanted = ["config.json", "sub/deep/er.txt"]
    check_equal(tree(place.directory), wanted, "files of the revision")
    check_equal(sha_file(f"{place.directory}/config.json"), sha(b'{"v1": 1}'), "config.json")
    commit = os.getxattr(place.directory, "user.cake.commit").decode()
    check(len(commit) == 40, f"commit {commit}")
    done = run("umount", place.directory)
    check_equal(done.returncode, 0, f"umount: {done.stderr}")
    wait_until(place.gone, "keeper and worker have left", 60)
    hub.stop()
    # What the store knows is mounted without a network, and says the same.
    done = run("mount", "-t", "cakefs", "hf:org/m@v1", place.directory, "-o", place.options)
    check_equal(done.returncode, 0, f"mount without a hub: {done.stderr}")
    check_equal(tree(place.directory), wanted, "files without a hub")
    check_equal(sha_file(f"{place.directory}/config.json"), sha(b'{"v1": 1}'), "config.json")
    check_equal(os.getxattr(place.directory, "user.cake.commit").decode(), commit, "the commit")
    check_equal(run("umount", place.directory).returncode, 0, "umount")
    wait_until(place.gone, "keeper and worker have left", 60)


def test_one_repo_by_commit():
    hub = made_hub()
    place = Place(hub)
    with urllib.request.urlopen(f"{hub.url}/api/models/org/m/revision/v1", timeout=30) as answer:
        commit = json.load(answer)["sha"]
    done = run(CAKE, "mount", f"hf:org/m@{commit}", place.directory, "-o", place.options)
    check_equal(done.returncode, 0, f"mount: {done.stderr}")
    check_equal(os.getxattr(place.directory, "user.cake.commit").decode(), commit, "the commit")
    check_equal(sha_file(f"{place.directory}/config.json"), sha(b'{"v1": 1}'), "config.json")
    check_equal(run(CAKE, "umount", place.directory).returncode, 0, "umount")


def test_remount():
    hub = made_hub()
    place = Place(hub)
    # The type and the options as findmnt shows them.
    done = run("mount", "-t", "fuse.cakefs", "hf:", place.directory, "-o",
               f"ro,relatime,user_id=0,group_id=0,max_read=1048576,default_permissions,{place.options}")
    check_equal(done.returncode, 0, f"mount: {done.stderr}")
    done = run("mount", "-o", "remount,ro,noexec", place.directory)
    check_equal((done.returncode, done.stderr), (0, ""), "remount")
    check(ALWAYS | {"noexec"} <= place.flags()[2], f"flags {place.flags()}")
    done = run("mount", "-o", "remount,exec,rw,cache_size=10G", place.directory)
    check_equal(done.returncode, 0, f"remount: {done.stderr}")
    check("settings stay" in done.stderr, f"of a setting it says: {done.stderr}")
    check(ALWAYS <= place.flags()[2] and "noexec" not in place.flags()[2], f"flags {place.flags()}")
    check_equal(sha_file(f"{place.directory}/org/m/config.json"), sha(b'{"main": 1}'), "config.json")
    check_equal(run("umount", place.directory).returncode, 0, "umount")
    wait_until(place.gone, "keeper and worker have left", 60)
    done = run("mount", "-t", "cakefs", "hf:", place.directory, "-o", "remount," + place.options)
    check_equal(done.returncode, 32, f"remount of nothing: {done.stderr}")
    check("no cakefs is mounted" in done.stderr, f"it says: {done.stderr}")


def test_what_cannot_be_mounted():
    hub = made_hub()
    place = Place(hub)
    helper = os.path.join(os.path.realpath("/sbin"), "mount.cakefs")
    for words, status, what in (
            ([helper, "hf:org/absent", place.directory, "-o", place.options], 32, "org/absent"),
            ([helper, "hf:org/m@absent", place.directory, "-o", place.options], 32, "absent"),
            (["mount", "-t", "cakefs", "hf:org/absent", place.directory, "-o", place.options], 32,
             "org/absent"),
            ([helper, "hf:org/m", place.directory + "/none", "-o", place.options], 32, "none"),
            ([helper, "hf:org/m", place.directory, "-o", "endpiont=x"], 1, "endpoint"),
            ([helper, "hf:org/m", place.directory, "-o", f"endpoint={hub.url},store={place.directory}/st"], 1,
             "below the mount point"),
            ([helper, "hf:org/m"], 1, "usage")):
        done = run(*words)
        check_equal(done.returncode, status, f"{words[:3]}: {done.stderr}")
        check(what in done.stderr, f"{words[:3]} says: {done.stderr}")
        check(place.flags() is None, f"{words[:3]} left a mount")
    done = run(helper, "hf:org/m", place.directory, "-sf", "-o", "unknown=1," + place.options)
    check_equal(done.returncode, 0, f"-s ignores what it does not know: {done.stderr}")
    check(place.flags() is None, "-f mounted")


def test_fstab(fstab):
    hub = made_hub()
    place = Place(hub)
    line = (f"hf: {place.directory.replace(' ', chr(92) + '040')} cakefs "
            f"ro,noauto,_netdev,nofail,allow_other,noatime,x-systemd.automount,{place.options} 0 0\n")
    # In place: the file itself is what is bound over /etc/fstab.
    with open(fstab, "w") as file:
        file.write(line)
    done = run("mount", place.directory)
    check_equal(done.returncode, 0, f"mount: {done.stderr}")
    kind, source, flags = place.flags()
    check_equal((kind, source), ("fuse.cakefs", "hf:"), "the mount table")
    check(ALWAYS | {"noatime"} <= flags, f"flags {flags}")
    wanted = hub.get("org/m", "model.bin")
    check_equal(sha_file(f"{place.directory}/org/m/model.bin"), sha(wanted), "model.bin")
    check_equal(sha_file(f"{place.directory}/org/m@v1/config.json"), sha(b'{"v1": 1}'), "@v1")
    done = run("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "cmp",
               f"{place.directory}/org/m/model.bin", "/dev/null")
    check("EOF" in done.stderr, f"allow_other lets a user read: {done.stderr}")
    check_equal(run("umount", place.directory).returncode, 0, "umount")
    wait_until(place.gone, "keeper and worker have left", 60)


def test_ordinary_user():
    hub = made_hub()
    place = Place(hub)
    device, home = os.path.join(place.folder, "fuse"), os.path.join(place.folder, "home")
    if stat.S_IMODE(os.stat("/dev/fuse").st_mode) & 0o006 != 0o006:
        # Closed to users here: an open node in its place, in this namespace.
        os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(10, 229))
        os.chmod(device, 0o666)
        check_equal(run("mount", "--bind", device, "/dev/fuse").returncode, 0, "bind /dev/fuse")
    os.mkdir(home)
    for path in (home, place.folder, place.directory):
        os.chown(path, USER, USER)
    if not shutil.which("fusermount3"):
        skip("fusermount3 is not installed")

    def user(*words):
        return run("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "env",
                   f"HOME={home}", f"XDG_RUNTIME_DIR={home}", *words)

    # The program where that user can execute it, whatever the checkout's folders allow.
    program = os.path.join(place.folder, "cake")
    shutil.copy2(os.path.realpath(CAKE), program)
    options = f"endpoint={hub.url},log={place.folder}/log"
    done = user(program, "mount", "hf:", place.directory, "-o", options)
    check_equal(done.returncode, 0, f"cake mount: {done.stderr}")
    kind, source, flags = place.flags()
    check_equal((kind, source), ("fuse.cakefs", "hf:"), "the mount table")
    check(ALWAYS <= flags, f"flags {flags}")
    done = user("sha256sum", f"{place.directory}/org/m/model.bin")
    check_equal(done.stdout.split()[:1], [sha(hub.get("org/m", "model.bin"))],
                f"model.bin: {done.stderr}")
    done = user("stat", "-c", "%u", f"{place.directory}/org/m/config.json")
    check_equal(done.stdout.strip(), str(USER), "the owner")
    expect_errno(errno.EACCES, "root without allow_other", os.listdir, place.directory)
    check(os.path.isdir(f"{home}/.cache/cake"), "the user's own store")
    ps = json.loads(user(program, "ps", "--json").stdout)
    check_equal([entry["mount"] for entry in ps], [place.directory], "cake ps")
    done = user(program, "umount", place.directory)
    check_equal(done.returncode, 0, f"cake umount: {done.stderr}")
    wait_until(lambda: not is_alive(ps[0]["keeper"]) and not is_alive(ps[0]["worker"]),
               "keeper and worker have left", 60)
    # And by fusermount3 alone.
    check_equal(user(program, "mount", "hf:org/m@v1", place.directory, "-o", options).returncode, 0,
                "one repo")
    done = user("cat", f"{place.directory}/config.json")
    check_equal(done.stdout, '{"v1": 1}', f"config.json: {done.stderr}")
    check_equal(user("fusermount3", "-u", place.directory).returncode, 0, "fusermount3 -u")
    check(place.flags() is None, "fusermount3 -u left the mount")


if __name__ == "__main__":
    if os.geteuid() != 0:
        skip("mounts as root")
    table = own_namespace()

    def fstab():
        test_fstab(table)

    main([test_one_repo_by_mount, test_one_repo_by_commit, test_remount, test_what_cannot_be_mounted, fstab,
          test_ordinary_user], 110)
