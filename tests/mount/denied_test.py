# ctest: serial timeout=60
"""Gated, private, missing, bad token: the errno, one log line, the exit status."""

import os

from mountlib import *


def lines_about(mount, repo):
    return [line for line in mount.log_text().splitlines() if repo in line]


def text_of(name):
    return '{"%s": 1}' % name  # contents of their own: one that is cached needs no access


def denied_hub():
    hub = Hub()
    for name in ("open", "gated", "hidden", "disabled"):
        hub.text(f"org/{name}", "config.json", text_of(name))
        hub.control(repo=f"org/{name}", access=name)
    hub.control(token="hf_good", opens="*")
    return hub


def test_errnos_and_log():
    hub, folder = denied_hub(), scratch()
    mount = Mount(hub, folder, token_file="/dev/null")
    check_equal(sha_file(mount.path("org/open/config.json")), sha(text_of("open").encode()), "an open repo")
    for name, wanted in (("gated", errno.EACCES), ("hidden", (errno.ENOENT, errno.EACCES)),
                         ("disabled", errno.EACCES), ("absent", (errno.ENOENT, errno.EACCES))):
        for _ in range(3):
            expect_errno(wanted, name, sha_file, mount.path("org", name, "config.json"))
        lines = lines_about(mount, f"org/{name}")
        note(f"{name}: {lines}")
        if name in ("gated", "disabled"):
            check_equal(len(lines), 1, f"log lines about org/{name}: {lines}")
        else:
            check(len(lines) <= 1, f"log lines about org/{name}: {lines}")
    mount.umount()


def test_tokens():
    hub, folder = denied_hub(), scratch()
    token = os.path.join(folder, "token")
    write(token, b"hf_wrong\n")
    mount = Mount(hub, folder, token_file=token)
    expect_errno(errno.EACCES, "a bad token", sha_file, mount.path("org/gated/config.json"))
    # The organisation is what is looked up first, and the hub refuses the token for all it has.
    lines = [line for line in mount.log_text().splitlines() if "token refused" in line]
    check_equal(len(lines), 1, f"log lines: {lines}")
    check("hf_wrong" not in mount.log_text(), "the token is in the log")
    write(token, b"hf_good\n")  # re-read when it changes
    wait_until(lambda: can_read(mount.path("org/gated/config.json")), "the new token opens", 10)
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    check(b"hf_good" not in file.read().replace(b"opens", b"") or "test_hub" in
                          os.readlink(f"/proc/{entry}/exe"), "the token is in a command line")
            except OSError:
                pass
    with open("/proc/mounts") as file:
        check("hf_good" not in file.read(), "the token is in /proc/mounts")
    check("hf_good" not in mount.log_text(), "the token is in the log")
    mount.umount()


def can_read(path):
    try:
        return sha_file(path) == sha(text_of("gated").encode())
    except PermissionError:
        return False


def test_exit_status():
    hub, folder = denied_hub(), scratch()
    store = os.path.join(folder, "store")
    base = [CAKE, "--store", store, "--endpoint", hub.url, "--token-file", "/dev/null", "--no-progress"]
    bad = os.path.join(folder, "bad")
    write(bad, b"hf_wrong")
    for words, status in (
            (["cat", "org/open/config.json"], 0), (["cat", "org/open/absent.json"], 3),
            (["cat", "org/gated/config.json"], 4), (["pull", "org/gated"], 4),
            (["pull", "org/open@absent"], 3), (["--offline", "cat", "org/gated/config.json"], 6),
            (["--offline", "cat", "org/open/config.json"], 0), (["cat"], 2),
            (["--offline", "pull", "org/other"], 6),
            (["--token-file", bad, "pull", "org/gated"], 4)):
        start = base if words[0] != "--token-file" else base[:5] + base[7:]
        done = run(*start, *words)
        check_equal(done.returncode, status, f"cake {' '.join(words)}: {done.stderr.strip()}")
        if status:
            check(done.stderr.strip(), f"cake {' '.join(words)}: no message")
            check("hf_wrong" not in done.stderr, "the token is in the message")
    for name in ("hidden", "absent"):
        done = run(*base, "pull", f"org/{name}")
        check(done.returncode in (3, 4), f"pull org/{name}: exit {done.returncode}")


if __name__ == "__main__":
    main([test_errnos_and_log, test_tokens, test_exit_status], 50)
