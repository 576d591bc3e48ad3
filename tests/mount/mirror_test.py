# ctest: timeout=120
"""`cake serve hf:` as a mirror: a second cakefs reads everything through it, a byte comes once."""

import http.client
import os
import ssl

import mountlib
from mountlib import *


class Mirror:
    """`cake serve` over a store of its own; cleaned up as hubs are."""

    def __init__(self, hub, folder, *words):
        self.store = os.path.join(folder, "mirror")
        endpoint = ["--endpoint", hub.url] if hub else []
        self.process = subprocess.Popen(
            [CAKE, "--store", self.store, *endpoint, "--token-file", "/dev/null", "serve", "hf:",
             "--listen", "127.0.0.1:0", *words], stdout=subprocess.PIPE, text=True)
        mountlib._hubs.append(self)
        self.url = self.process.stdout.readline().strip()
        check(self.url.startswith("http"), "cake serve did not start")

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise Failed("cake serve did not end at SIGTERM")
        return self.process.returncode


def fetch(url, path, headers=None, method="GET", context=None):
    """Status, headers in lower case, body; redirects are not followed."""
    host = url.split("://")[1]
    make = http.client.HTTPSConnection if context else http.client.HTTPConnection
    connection = make(host, timeout=60, **({"context": context} if context else {}))
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_a_second_cakefs():
    folder = scratch()
    files = {"config.json": b'{"a": 1}', "sub dir/odd +%.txt": b"odd", "empty": b"",
             "model.safetensors": safetensors([("t", "U8", [3 * MIB], noise(3 * MIB, 1)),
                                               ("u", "U8", [2 * MIB + 1], noise(2 * MIB + 1, 2))])}
    for name, data in files.items():
        write(f"{folder}/o/org/m/{name}", data)
    hub = Hub(f"{folder}/o")
    mirror = Mirror(hub, folder)
    hub.control(reset_counters=1)
    mounts = []
    for name in ("one", "two", "three"):
        os.mkdir(f"{folder}/{name}")
        mounts.append(Mount(mirror, f"{folder}/{name}"))

    def read_all(i):
        for name, data in files.items():
            check_equal(sha_file(mounts[i].path("org/m", name)), sha(data), f"{name} by {i}")

    in_threads(3, read_all)
    total = sum(len(data) for data in files.values())
    sent = hub.body_bytes()
    note(f"three clients of {total} bytes: {sent} from the hub")
    check(sent <= total * 1.01 + 2 * MIB, f"{sent} bytes from the hub")
    check(sent >= total, f"counted {sent} bytes only: the counter is wrong")
    check_equal(os.listdir(mounts[0].path("org")), ["m"], "the author's repos, through the mirror")
    expect_errno((errno.ENOENT, errno.EACCES), "an absent repo", os.stat, mounts[0].path("org/none"))
    expect_errno(errno.ENOENT, "an absent revision", os.stat, mounts[0].path("org/m@none"))
    for mount in mounts:
        mount.umount()
    # The mirror alone: what it holds it serves, after a restart too.
    hub.stop()
    check_equal(mirror.stop(), 0, "exit status of cake serve")
    mirror = Mirror(hub, folder)
    os.mkdir(f"{folder}/four")
    mount = Mount(mirror, f"{folder}/four")
    for name, data in files.items():
        check_equal(sha_file(mount.path("org/m", name)), sha(data), f"{name} without the hub")
    status, headers, _ = fetch(mirror.url, "/api/models/org/other")
    check_equal((status, headers.get("retry-after")), (503, "5"), "what is not here, without the hub")
    mount.umount()
    check_equal(mirror.stop(), 0, "exit status of cake serve")


def test_it_ends_while_clients_wait():
    folder = scratch()
    hub = Hub()
    for i in range(8):
        hub.pattern(f"org/m{i}", "model.bin", 3 * MIB, seed=i)
    mirror = Mirror(hub, folder)
    check_equal(fetch(mirror.url, "/api/models/org/m0/revision/main")[0], 200, "a name")
    hub.control(fault="black_hole")

    def ask(path):
        try:
            fetch(mirror.url, path)
        except (OSError, http.client.HTTPException):
            pass

    paths = [f"/api/models/org/m{i}/revision/main" for i in range(1, 8)] + ["/org/m0/resolve/main/model.bin"]
    clients = [threading.Thread(target=ask, args=(path,), daemon=True) for path in paths]
    for client in clients:
        client.start()
    wait_until(lambda: hub.counters()["stalled"] >= 2, "the mirror waits for the hub")
    start = time.monotonic()
    check_equal(mirror.stop(), 0, "exit status")
    note(f"ended in {time.monotonic() - start:.2f} s")
    for client in clients:
        client.join(10)
        check(not client.is_alive(), "a client still waits")


def test_names_that_leave():
    folder = scratch()
    hub = Hub()
    hub.text("org/m", "config.json", "{}")
    mirror = Mirror(hub, folder)
    check_equal(fetch(mirror.url, "/org/m/resolve/main/config.json")[0], 307, "a branch's file")
    for path in ("/org/m/resolve/main/../../../etc/passwd", "/../../../../etc/passwd",
                 "/org/m/resolve/main/%2e%2e/%2e%2e/etc/passwd", "/org/m/resolve/main/%00",
                 "/org/../resolve/main/config.json", "/org/m/resolve/..%2f..%2fmain/config.json",
                 "/api/models/..%2f..", "/api/models/../m/tree/main", "//etc/passwd",
                 "/.hf/hub", "/org/m/resolve/main/" + "a/" * 5000):
        status, _, body = fetch(mirror.url, path)
        check(400 <= status < 500, f"{path}: {status}")
        check(b"root:" not in body, f"{path}: gave a file of the machine")
    check_equal(mirror.stop(), 0, "exit status of cake serve")


def test_token_and_tls():
    if not shutil.which("openssl"):
        note("left out: openssl is not installed")
        return
    folder = scratch()
    hub = Hub()
    data = noise(MIB + 5, 3)
    hub.text("org/m", "config.json", "{}")
    hub.pattern("org/m", "w.bin", MIB + 5, seed=3)
    data = hub.get("org/m", "w.bin")
    write(f"{folder}/token", b"secret-of-the-mirror\n")
    done = run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
               "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout",
               f"{folder}/key.pem", "-out", f"{folder}/cert.pem")
    check_equal(done.returncode, 0, done.stderr)
    mirror = Mirror(hub, folder, "--tls-cert", f"{folder}/cert.pem", "--tls-key", f"{folder}/key.pem",
                    "--require-token", f"{folder}/token")
    check(mirror.url.startswith("https://"), mirror.url)
    trust = ssl.create_default_context(cafile=f"{folder}/cert.pem")
    for path in ("/api/models", "/api/models/org/m", "/org/m/resolve/main/config.json",
                 "/api/whoami-v2"):
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            status, _, body = fetch(mirror.url, path, headers, context=trust)
            check_equal(status, 401, f"{path} with {headers}")
            check(b"secret" not in body, "the token is in an answer")
    own = {"Authorization": "Bearer secret-of-the-mirror"}
    status, headers, _ = fetch(mirror.url, "/org/m/resolve/main/w.bin", own, context=trust)
    check_equal(status, 307, "a branch's file")
    status, headers, body = fetch(mirror.url, headers["location"], own, context=trust)
    check_equal((status, sha(body)), (200, sha(data)), "the file")
    check(headers["cache-control"].startswith("private"), f"shared caches: {headers['cache-control']}")
    # A cakefs of its own through it: token and certificate are its options.
    os.mkdir(f"{folder}/m")
    mount = Mount(mirror, f"{folder}/m", token_file=f"{folder}/token", cafile=f"{folder}/cert.pem")
    check_equal(sha_file(mount.path("org/m/w.bin")), sha(data), "w.bin through TLS")
    mount.umount()
    check_equal(mirror.stop(), 0, "exit status of cake serve")
    for words in (["--tls-cert", f"{folder}/cert.pem"], ["--require-token", f"{folder}/none"],
                  ["--tls-cert", f"{folder}/token", "--tls-key", f"{folder}/token"]):
        done = run(CAKE, "--store", mirror.store, "serve", "hf:", "--listen", "127.0.0.1:0", *words)
        check(done.returncode not in (0, None) and done.stderr, f"{words} was accepted")


if __name__ == "__main__":
    main([test_a_second_cakefs, test_it_ends_while_clients_wait, test_names_that_leave, test_token_and_tls], 110)
