# ctest: serial timeout=90
"""/.cake: the mount about itself."""

import os
import re

from mountlib import *


def read_json(path):
    with open(path) as file:
        return json.load(file)


def made(folder):
    hub = Hub()
    hub.pattern("org/m", "model.bin", 4 * MIB, seed=1)
    hub.text("org/m", "config.json", '{"a": 1}')
    hub.text("org/m", "config.json", '{"a": "v1"}', revision="v1")
    hub.text("datasets/org/d", "data.csv", "1\n")
    return hub, Mount(hub, folder, refresh="1")


def test_status():
    hub, mount = made(scratch())
    check(".cake" not in os.listdir(mount.directory), ".cake is listed")
    check_equal(sorted(os.listdir(mount.path(".cake"))), ["events", "repos", "status.json"], ".cake")
    status = read_json(mount.path(".cake/status.json"))
    check_equal((status["source"], status["offline"], status["hub_answers"], status["repos"]),
                (f"hf:{hub.url}", False, True, 0), "status.json")
    check_equal(status["worker"], mount.ps()["worker"], "the worker")
    check_equal(status["store"]["directory"], mount.store, "the store")
    sha_file(mount.path("org/m/model.bin"))

    def has_counted():
        status = read_json(mount.path(".cake/status.json"))
        return status["repos"] == 1 and sum(status["counters"].values()) >= 4 * MIB

    wait_until(has_counted, "status.json counts what was fetched", 60)
    for name in ("nothing", "status", "repos/org/absent.json", "repos/nobody", "repos/org/m", ".git"):
        check(not os.path.exists(mount.path(".cake", name)), f"{name} is there")
    expect_errno(errno.EROFS, "writing", lambda: open(mount.path(".cake/status.json"), "w"))
    mount.umount()


def test_repos():
    hub, mount = made(scratch())
    check_equal(os.listdir(mount.path(".cake/repos")), [], "no repo is known")
    for name in ("org/m", "org/m@v1", "datasets/org/d"):
        os.stat(mount.path(name))
    check_equal(sorted(os.listdir(mount.path(".cake/repos"))), ["datasets", "org"], "repos")
    check_equal(os.listdir(mount.path(".cake/repos/datasets/org")), ["d.json"], "datasets")
    path = mount.path(".cake/repos/org/m.json")
    before = read_json(path)
    check_equal((before["id"], before["type"], before["cached_bytes"]), ("org/m", "model", 0), "cold")
    check_equal(sorted(before["refs"]), ["main", "v1"], "refs")
    check_equal(before["bytes"], 4 * MIB + 8 + 11, "bytes of all contents, each once")
    check_equal(len(before["revisions"]), 2, "revisions")
    sha_file(mount.path("org/m/model.bin"))
    wait_until(lambda: read_json(path)["cached_bytes"] == 4 * MIB, "what is cached shows", 60)
    after = read_json(path)
    check(99 < after["cached_percent"] < 100, f"percent {after['cached_percent']}")
    check(0 < after["stored_bytes"] <= after["cached_bytes"], f"stored {after['stored_bytes']}")
    check_equal(after["saved_bytes"], after["cached_bytes"] - after["stored_bytes"], "saved")
    main = [one for one in after["revisions"] if one["commit"] == after["refs"]["main"]]
    check_equal(main[0]["cached_bytes"], 4 * MIB, "of the revision")
    check_equal(os.stat(path).st_size, len(open(path, "rb").read()), "the size that stat gives")
    mount.umount()


def test_events():
    hub, mount = made(scratch())
    os.stat(mount.path("org/m"))
    path = mount.path(".cake/events")
    follow = child("tail", "-n", "+1", "-s", "0.2", "-f", path, stdout=subprocess.PIPE, text=True)
    lines = []
    threading.Thread(target=lambda: lines.extend(iter(follow.stdout.readline, "")), daemon=True).start()

    def saw(words):
        return any(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ " + words + "\n", line)
                   for line in lines)

    wait_until(lambda: saw("resolved org/m [0-9a-f]{40}"), "what was before", 60)
    for _ in range(3):
        sha_file(mount.path("org/m/config.json"))
    wait_until(lambda: saw("opened org/m/config.json 8"), "a file that was opened", 60)
    hub.text("org/m", "config.json", '{"a": 2}')
    wait_until(lambda: os.stat(mount.path("org/m")) and saw("moved org/m [0-9a-f]{40} from [0-9a-f]{40}"),
               "a branch that moved", 60)
    expect_errno(errno.ENOENT, "absent", os.stat, mount.path("org/nothing"))
    hub.text("org/closed", "config.json", "{}")
    hub.control(repo="org/closed", access="disabled")
    expect_errno(errno.EACCES, "a disabled repo", os.stat, mount.path("org/closed"))
    wait_until(lambda: saw("warn .*org/closed.*"), "what is logged", 60)
    check_equal(sum("opened org/m/config.json 8" in line for line in lines), 1, "opened, once")
    follow.kill()
    follow.wait()
    mount.umount()


def test_in_one_repo():
    hub, folder = Hub(), scratch()
    hub.text("org/m", "config.json", "{}")
    hub.text("org/m", ".cake", "a file of the repo's own")
    mount = Mount(hub, folder, source="hf:org/m")
    with open(mount.path(".cake")) as file:
        check_equal(file.read(), "a file of the repo's own", "a repo's own .cake")
    check(os.path.isdir(mount.path(".hf/hub/models--org--m")), ".hf beside it")
    mount.umount()


if __name__ == "__main__":
    main([test_status, test_repos, test_events, test_in_one_repo], 80)
