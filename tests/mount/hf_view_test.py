# ctest: serial timeout=120
"""/.hf/hub: any repo of the hub in the layout of a Hugging Face cache, made as it is looked up."""

import os

from mountlib import *

COMMIT = "0123456789012345678901234567890123456789"


def git_oid(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def made_hub():
    """One hub for all cases; contents of model.bin are a pattern."""
    hub = Hub()
    hub.pattern("org/m", "model.bin", 12 * MIB + 7, seed=1)
    hub.text("org/m", "config.json", '{"a": 1}')
    hub.text("org/m", "onnx/sub/x.json", "deep")
    hub.text("org/m", "config.json", '{"a": "v1"}', revision="v1")
    hub.text("org/m", "config.json", '{"a": "pr"}', revision="refs/pr/7")
    hub.text("datasets/org/d", "data.csv", "1,2\n")
    hub.text("spaces/org/s", "app.py", "print()\n")
    hub.text("gpt2", "config.json", '{"gpt": 2}')
    return hub


def requests(hub):
    return hub.counters()["requests"]


def read(path):
    with open(path, "rb") as file:
        return file.read()


def resolve(cache, folder, file, revision="main"):
    """As an offline client finds a file: ref, snapshot, listing, link."""
    commit = read(os.path.join(cache, folder, "refs", revision)).decode()
    check_equal(len(commit), 40, f"bytes of the ref {revision}")
    path = os.path.join(cache, folder, "snapshots", commit, file)
    check(commit in os.listdir(os.path.join(cache, folder, "snapshots")), "the commit is listed")
    check(os.path.isfile(path), f"{path} is no file")
    return path


def test_layout():
    hub, folder = made_hub(), scratch()
    mount = Mount(hub, folder)
    cache = mount.path(".hf/hub")
    check_equal(os.listdir(mount.directory), [], "the root shows nothing that is not known")
    check_equal(os.listdir(cache), [], "nor does the cache")
    model = resolve(cache, "models--org--m", "model.bin")
    config = resolve(cache, "models--org--m", "config.json")
    deep = resolve(cache, "models--org--m", "onnx/sub/x.json")
    commit = model.split("/")[-2]
    for path, target in ((config, "../../blobs/" + git_oid(b'{"a": 1}')),
                         (deep, "../../../../blobs/" + git_oid(b"deep"))):
        check_equal(os.readlink(path), target, f"link of {path}")
        check_equal(os.lstat(path).st_size, len(target), "size of a link")
    wanted = hub.get("org/m", "model.bin")
    check_equal(os.readlink(model), "../../blobs/" + sha(wanted), "an LFS file's blob is its sha256")
    check_equal(sha_file(model), sha(wanted), "model.bin")
    check_equal(read(deep), b"deep", "a file in a folder")
    check_equal(os.path.realpath(model), f"{cache}/models--org--m/blobs/{sha(wanted)}", "realpath")
    # The same inode as in the other layout: one copy in the page cache.
    check_equal(os.stat(model).st_ino, os.stat(mount.path("org/m/model.bin")).st_ino, "inode")
    check_equal(os.getxattr(os.path.dirname(model), "user.cake.commit").decode(), commit, "commit")

    for revision, text in (("v1", b'{"a": "v1"}'), ("refs/pr/7", b'{"a": "pr"}')):
        check_equal(read(resolve(cache, "models--org--m", "config.json", revision)), text, revision)
    check_equal(read(resolve(cache, "datasets--org--d", "data.csv")), b"1,2\n", "a dataset")
    check_equal(read(resolve(cache, "spaces--org--s", "app.py")), b"print()\n", "a space")
    check_equal(read(resolve(cache, "models--gpt2", "config.json")), b'{"gpt": 2}', "no namespace")

    check_equal(sorted(os.listdir(cache)),
                ["datasets--org--d", "models--gpt2", "models--org--m", "spaces--org--s"], "repos")
    check_equal(sorted(os.listdir(mount.directory)), ["datasets", "org", "spaces"], "the root")
    repo = f"{cache}/models--org--m"
    check_equal(sorted(os.listdir(repo)), ["blobs", "refs", "snapshots"], "a repo")
    check_equal(sorted(os.listdir(f"{repo}/refs")), ["main", "refs", "v1"], "refs")
    check_equal(os.listdir(f"{repo}/refs/refs/pr"), ["7"], "refs/pr")
    check_equal(len(os.listdir(f"{repo}/snapshots")), 3, "snapshots")
    blobs = os.listdir(f"{repo}/blobs")
    check_equal(sorted(blobs), sorted({sha(wanted), git_oid(b'{"a": 1}'), git_oid(b"deep"),
                                       git_oid(b'{"a": "v1"}'), git_oid(b'{"a": "pr"}')}), "blobs")
    for name in blobs:
        check(os.stat(f"{repo}/blobs/{name}").st_size > 0, f"size of the blob {name}")
    tree = json.loads(read(f"{repo}/trees/{commit}.json"))
    check_equal(tree["format_version"], 1, "trees")
    check_equal(tree["files"]["model.bin"]["lfs_sha256"], sha(wanted), "trees")
    check_equal(sorted(tree["files"]), ["config.json", "model.bin", "onnx/sub/x.json"], "trees")
    # The same names mean the same after a restart, and without a hub.
    numbers = {path: os.lstat(path).st_ino for path in (model, config, deep, repo, f"{repo}/refs/main")}
    hub.stop()
    mount.remount(offline="yes")
    for path, number in numbers.items():
        check_equal(os.lstat(path).st_ino, number, f"inode of {path} after a restart")
    check_equal(sha_file(resolve(cache, "models--org--m", "model.bin")), sha(wanted), "offline")
    mount.umount()


def test_absent_files_cost_nothing():
    """What transformers asks for before it loads: known to be absent, without a request."""
    hub, folder = made_hub(), scratch()
    mount = Mount(hub, folder)
    cache = mount.path(".hf/hub")
    config = resolve(cache, "models--org--m", "config.json")
    commit, repo = config.split("/")[-2], f"{cache}/models--org--m"
    before = requests(hub)
    names = [f"absent{i}.json" for i in range(20)] + ["onnx/absent", "adapter_config.json"]
    for name in names:
        check(not os.path.exists(f"{repo}/snapshots/{commit}/{name}"), f"{name} is there")
        check_equal(read(f"{repo}/.no_exist/{commit}/{name}"), b"", f"{name} is known to be absent")
    for name in ("config.json", "onnx/sub/x.json"):
        check(not os.path.exists(f"{repo}/.no_exist/{commit}/{name}"), f"{name} is said to be absent")
    check(not os.path.exists(f"{repo}/.no_exist/{COMMIT}/x"), "an unknown commit has no absent files")
    for name in (".locks", ".git", "tmp", "models----x", "models--a--b--c",
                 "models--", "buckets--a--b"):
        check(not os.path.exists(f"{cache}/{name}"), f"{name} is there")
    for name in (".git", "blobs/.git", "nothing", "refs/.lock", "refs/" + commit, "snapshots/main",
                 "trees/main.json", "blobs/" + COMMIT):
        check(not os.path.exists(f"{repo}/{name}"), f"{name} is there")
    check_equal(requests(hub), before, "requests for what is absent")
    check(read(f"{cache}/CACHEDIR.TAG").startswith(b"Signature: 8a477f597d28d172789f06886806bc55"),
          "CACHEDIR.TAG")
    check_equal(read(f"{cache}/version.txt"), b"1", "version.txt")


def test_wrong_names_and_writes():
    hub, folder = made_hub(), scratch()
    mount = Mount(hub, folder)
    cache = mount.path(".hf/hub")
    for _ in range(3):
        check(not os.path.exists(f"{cache}/models--org--absent"), "an absent repo")
    check(requests(hub) <= 3, f"requests for an absent repo: {requests(hub)}")
    before = requests(hub)
    for _ in range(3):
        check(not os.path.exists(f"{cache}/models--org--m/refs/absent"), "an absent revision")
    check(not os.path.exists(f"{cache}/models--org--m/snapshots/{COMMIT}/x"), "an absent commit")
    check(requests(hub) <= before + 6, f"requests for absent revisions: {requests(hub) - before}")
    # What clients write: each is refused with the one errno they know a read-only disk by.
    resolve(cache, "models--org--m", "config.json")
    expect_errno(errno.EROFS, "a lock folder", os.mkdir, f"{cache}/.locks")
    expect_errno(errno.EROFS, "a ref", lambda: open(f"{cache}/models--org--m/refs/new", "wb"))
    expect_errno(errno.EROFS, "a ref that is there", lambda: open(f"{cache}/models--org--m/refs/main", "wb"))
    # What is there already may be made again, as makedirs(exist_ok=True) does.
    for name in ("", "/models--org--m", "/models--org--m/blobs", "/models--org--m/snapshots"):
        os.makedirs(cache + name, exist_ok=True)


def test_moving_ref():
    hub, folder = made_hub(), scratch()
    mount = Mount(hub, folder, refresh="1")
    cache = mount.path(".hf/hub")
    old = resolve(cache, "models--org--m", "config.json")
    held = os.open(old, os.O_RDONLY)
    hub.text("org/m", "config.json", '{"a": "moved"}')

    def moved():
        return read(resolve(cache, "models--org--m", "config.json")) == b'{"a": "moved"}'

    wait_until(moved, "the ref follows the branch", 60)
    check_equal(pread(held, 99, 0), b'{"a": 1}', "the file that was open")
    os.close(held)
    check_equal(read(old), b'{"a": 1}', "the old commit is still there")


def test_at_the_root():
    hub, folder = made_hub(), scratch()
    mount = Mount(hub, folder, layout="hf")
    check_equal(read(resolve(mount.directory, "models--org--m", "config.json")), b'{"a": 1}', "layout=hf")
    check_equal(os.listdir(mount.directory), ["models--org--m"], "the root")
    check_equal(read(resolve(mount.path(".hf/hub"), "models--org--m", "config.json")), b'{"a": 1}', ".hf")
    check(not os.path.exists(mount.path("org")), "the other layout is not there")
    mount.umount()


def test_one_repo():
    hub, folder = made_hub(), scratch()
    mount = Mount(hub, folder, source="hf:org/m@v1")
    cache = mount.path(".hf/hub")
    check_equal(os.listdir(mount.directory), ["config.json"], "the repo")
    check_equal(read(resolve(cache, "models--org--m", "config.json", "v1")), b'{"a": "v1"}', "by name")
    check(not os.path.exists(f"{cache}/models--gpt2"), "another repo")
    check_equal(os.listdir(cache), ["models--org--m"], "the cache")
    mount.umount()


if __name__ == "__main__":
    main([test_layout, test_absent_files_cost_nothing, test_wrong_names_and_writes, test_moving_ref,
          test_at_the_root, test_one_repo], 110)
