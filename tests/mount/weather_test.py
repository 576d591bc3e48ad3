# ctest: timeout=240
"""Every fault of the test hub, on a real mount: right bytes in the end or a clear error.

Each fault has files of its own, so all the weather happens at once, on one mount.
"""

import http.client
import socket
import ssl
import subprocess

from mountlib import *

SIZE = MIB + 4321
# What a fault takes besides its kind, and which of the hub's endpoints it strikes.
FAULTS = {
    "drop": {}, "reset": {}, "black_hole": {}, "slow_headers": {"delay_ms": 60000},
    "cut_body": {"after": 70000}, "reset_body": {"after": 70000}, "stall_body": {"after": 70000},
    "status-429": {}, "status-429-after": {"retry_after": 1}, "status-500": {}, "status-502": {},
    "status-503": {}, "status-504": {}, "ignore_range": {}, "wrong_content_range": {},
    "wrong_length": {}, "redirect_loop": {}, "gzip": {},
}
KINDS = ("pread", "mmap", "direct")
# A whole fault table is one more round of each; soft reads and names need not have them all.
FEW = ("drop", "black_hole", "stall_body", "status-429", "status-503", "wrong_content_range",
       "redirect_loop")


def strike(hub, name, **words):
    kind, _, status = name.partition("-")
    if status:
        words["status"] = status.split("-")[0]
    hub.fault(kind, **{**FAULTS[name], **words})


def strike_next(hub, name, times=1, **words):
    """So often that each of `times` questions fails once: libcurl hides a drop on a kept connection
    by asking again, and a loop takes nine requests to be one."""
    each = {"drop": 2, "reset": 2, "redirect_loop": 9}.get(name, 1)
    strike(hub, name, count=each * times, **words)


# A mapped read that cannot be served kills its reader: a process of its own.
MAPPED = """
import os, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))
import mountlib
with mountlib.Map(sys.argv[2]) as mapped:
    print(mountlib.sha(mapped.read(int(sys.argv[3]), int(sys.argv[4]))))
"""


def read_mapped(path, offset, length):
    """Exit status and what was read, hashed."""
    reader = child(sys.executable, "-c", MAPPED, os.path.abspath(__file__), path, str(offset), str(length),
                   stdout=subprocess.PIPE, text=True)
    out, _ = reader.communicate(timeout=150)
    return reader.returncode, out.strip()


def read_part(path, kind, offset, length):
    """The bytes' hash."""
    if kind == "mmap":
        status, got = read_mapped(path, offset, length)
        check_equal(status, 0, f"the reader that maps {path}")
        return got
    fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if kind == "direct" else 0))
    try:
        read = pread_direct if kind == "direct" else pread
        end, step = offset + length, 512 * KIB
        return sha(b"".join(read(fd, min(step, end - at), at) for at in range(offset, end, step)))
    finally:
        os.close(fd)


def set_up(names, folder, **options):
    hub = Hub()
    wanted = {}
    for i, name in enumerate(names):
        for k, kind in enumerate(KINDS):
            hub.pattern("org/weather", f"{name}-{kind}.bin", SIZE, seed=10 * i + k)
            wanted[name, kind] = sha(hub.get("org/weather", f"{name}-{kind}.bin"))
    mount = Mount(hub, folder, prefetch="off", **options)
    os.listdir(mount.path("org/weather"))
    return hub, mount, wanted


def check_log(mount, names):
    """Every trouble is told with repo, file and range, and once."""
    lines = mount.log_text().splitlines()
    for name in names:
        told = [line for line in lines if f"/{name}-" in line]
        check(told, f"{name}: nothing in the log")
        check(len(told) <= 2 * len(KINDS), f"{name}: {len(told)} lines in the log: {told[:3]}")
        for line in told:
            check("org/weather@" in line and " bytes " in line, f"no file and range: {line}")
            check("Signature" not in line, f"a signed URL in the log: {line}")


def test_hard_mount():
    folder = scratch()
    hub, mount, wanted = set_up(FAULTS, folder)
    for name in FAULTS:
        strike_next(hub, name, len(KINDS), endpoint="cdn", path=f"*/{name}-*")
    jobs = list(wanted)

    def read(i):
        name, kind = jobs[i]
        got = read_part(mount.path("org/weather", f"{name}-{kind}.bin"), kind, 0, SIZE)
        check_equal(got, wanted[name, kind], f"{name}, {kind}")

    start = time.monotonic()
    in_threads(len(jobs), read)
    note(f"{len(jobs)} reads through {len(FAULTS)} faults: {time.monotonic() - start:.1f} s")
    counters = hub.counters()
    check_equal(counters["authorization_at_cdn"], 0, "tokens at the CDN")
    check(counters["faults"] >= len(KINDS) * len(FAULTS), f"{counters['faults']} faults only")
    check_log(mount, [name for name in FAULTS if name != "ignore_range"])
    mount.umount()


def test_soft_mount():
    folder = scratch()
    hub, mount, wanted = set_up(FEW, folder, hard="no", timeo=4, retrans=1)
    for name in FEW:
        strike(hub, name, endpoint="cdn", path=f"*/{name}-*")
    jobs = list(wanted)

    def read(i):
        name, kind = jobs[i]
        path = mount.path("org/weather", f"{name}-{kind}.bin")
        if kind == "mmap":
            check_equal(read_mapped(path, 0, 4096)[0], -signal.SIGBUS, f"{name}: the mapped reader")
            return
        expect_errno((errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EIO), f"{name}, {kind}",
                     read_part, path, kind, 0, SIZE)

    start = time.monotonic()
    in_threads(len(jobs), read)
    took = time.monotonic() - start
    note(f"{len(jobs)} failures: {took:.1f} s")
    check(took < 60, f"failures took {took:.1f} s")
    check_log(mount, FEW)
    hub.recover()
    for name, kind in jobs:
        path = mount.path("org/weather", f"{name}-{kind}.bin")

        def is_right():
            try:
                return read_part(path, "pread", 0, SIZE) == wanted[name, kind]
            except OSError:
                return False  # remembered for a few seconds

        wait_until(is_right, f"{name}, {kind}: right after recovery", 60)
    mount.umount()


def test_names():
    folder = scratch()
    hub = Hub()
    for name in FAULTS:
        hub.text(f"org/n-{name}", "README.md", f"about {name}")
    mount = Mount(hub, folder)
    for name in FAULTS:
        words = {"after": 50} if "_body" in name else {}
        # What stalls takes ten seconds to be given up: once is enough.
        for endpoint in {"black_hole": ["info"], "slow_headers": ["tree"],
                         "stall_body": ["tree"]}.get(name, ["info", "tree"]):
            strike_next(hub, name, endpoint=endpoint, path=f"*/n-{name}/*", **words)
    strike(hub, "status-503", endpoint="list", count=1)
    names = list(FAULTS)

    def look(i):
        where = mount.path(f"org/n-{names[i]}")
        check_equal(os.listdir(where), ["README.md"], names[i])
        with open(os.path.join(where, "README.md")) as file:
            check_equal(file.read(), f"about {names[i]}", names[i])

    in_threads(len(names), look)
    check_equal(sorted(os.listdir(mount.path("org"))), sorted(f"n-{name}" for name in names), "ls")
    mount.umount()

    # Nothing that stays broken is taken for absent, and nobody waits longer than timeo.
    broken = [name for name in FEW if name != "wrong_content_range"]  # names have no ranges
    for name in broken:
        hub.text(f"org/broken-{name}", "README.md", name)
        strike(hub, name, endpoint="info", path=f"*/broken-{name}/*",
               **({"after": 50} if "_body" in name else {}))
    mount.mount(timeo=3)

    def fail(i):
        start = time.monotonic()
        expect_errno((errno.EHOSTUNREACH, errno.EIO), broken[i], os.stat,
                     mount.path(f"org/broken-{broken[i]}"))
        took = time.monotonic() - start
        check(took < 30, f"{broken[i]}: answered after {took:.1f} s")

    in_threads(len(broken), fail)
    hub.recover()

    def listed(path):
        try:
            return os.listdir(path)
        except OSError:
            return None

    # A look-up that failed a moment ago is not made again yet.
    for name in broken:
        path = mount.path(f"org/broken-{name}")
        wait_until(lambda path=path: listed(path) == ["README.md"], f"{name}: names are back", 2)

    # Who waits behind another for the same name does not wait as long again.
    hub.text("org/silent", "README.md", "silent")
    strike(hub, "black_hole", endpoint="info", path="*/silent/*")

    def fail_together(i):
        start = time.monotonic()
        expect_errno((errno.EHOSTUNREACH, errno.EIO), "silent", os.stat, mount.path("org/silent"))
        took = time.monotonic() - start
        check(took < 6, f"{i}: one name, asked for by eight, was answered after {took:.1f} s")

    in_threads(8, fail_together)
    hub.recover()
    mount.umount()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_hub_that_goes_away():
    """Refused connections and expired URLs under readers of all kinds."""
    folder = scratch()
    ports = ("--port", str(free_port()), "--cdn-port", str(free_port()))
    files = [f"repo=org/weather&file=f-{kind}.bin&bytes={8 * SIZE}&seed={i}"
             for i, kind in enumerate(KINDS)]
    hub = Hub(None, *ports, *files)
    wanted = [hub.get("org/weather", f"f-{kind}.bin") for kind in KINDS]
    mount = Mount(hub, folder, prefetch="off")
    for kind in KINDS:
        read_part(mount.path("org/weather", f"f-{kind}.bin"), kind, 0, SIZE)
    hub.control(expire_urls=1)
    hub.stop()
    done = []

    def read(i):
        at = 5 * MIB
        got = read_part(mount.path("org/weather", f"f-{KINDS[i]}.bin"), KINDS[i], at, MIB)
        check_equal(got, sha(wanted[i][at:at + MIB]), KINDS[i])
        done.append(i)

    threads = [threading.Thread(target=read, args=(i,), daemon=True) for i in range(len(KINDS))]
    for thread in threads:
        thread.start()
    wait_until(lambda: mount.log_text().count("check network") >= len(KINDS), "the log tells why", 60)
    check_equal(done, [], "reads that ended without a hub")
    check_equal(len(os.listdir(mount.path("org/weather"))), len(KINDS), "ls goes on")
    again = Hub(None, *ports, *files)
    for thread in threads:
        thread.join(60)
    check_equal(sorted(done), list(range(len(KINDS))), "reads that came right")
    again.stop()
    mount.umount()


class TlsFront:
    """Ends TLS in front of the hub, with a certificate of its own making."""

    def __init__(self, hub, folder):
        self.certificate = os.path.join(folder, "certificate")
        key = os.path.join(folder, "key")
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-days", "2", "-subj", "/CN=t", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key,
            "-out", self.certificate, check=True)
        self.target = hub.url.removeprefix("http://")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.certificate, key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self.listener.getsockname()[1]}"
        self.handshakes = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, raw):
        self.handshakes += 1
        try:
            with self.context.wrap_socket(raw, server_side=True) as client:
                lines = client.makefile("rb")
                while request := lines.readline():
                    headers = http.client.parse_headers(lines)
                    upstream = http.client.HTTPConnection(self.target, timeout=60)
                    upstream.request("GET", request.split()[1].decode(), headers=dict(headers))
                    answer = upstream.getresponse()
                    body = answer.read()
                    head = f"HTTP/1.1 {answer.status} x\r\n" + "".join(
                        f"{key}: {value}\r\n" for key, value in answer.getheaders())
                    client.sendall(head.encode() + b"\r\n" + body)
        except OSError:  # a client that does not trust us
            pass


def test_tls():
    folder = scratch()
    hub = Hub(shape="direct")
    hub.text("org/tls", "README.md", "over TLS")
    front = TlsFront(hub, folder)
    mount = Mount(None, folder, endpoint=front.url)
    start = time.monotonic()
    expect_errno(errno.EACCES, "an untrusted certificate", os.stat, mount.path("org/tls"))
    took = time.monotonic() - start
    check(took < 20, f"refused after {took:.1f} s, the time-out is 60 s")
    check("SSL_CERT_FILE" in mount.log_text(), f"the log does not say what to do: {mount.log_text()}")
    mount.umount()
    mount.mount(cafile=front.certificate)
    with open(mount.path("org/tls/README.md")) as file:
        check_equal(file.read(), "over TLS", "bytes")
    mount.umount()


def test_proxy_down():
    folder = scratch()
    hub = Hub()
    hub.text("org/proxied", "README.md", "text")
    mount = Mount(hub, folder, proxy="http://127.0.0.1:1", timeo=2)
    expect_errno(errno.EHOSTUNREACH, "a proxy that is down", os.stat, mount.path("org/proxied"))
    check("proxy" in mount.log_text(), f"the log does not name the proxy: {mount.log_text()}")
    mount.umount()


def cat_elsewhere(folder, mounts, url, path, **options):
    """`cake cat` where files of /etc are others."""
    words = ["unshare", "-m", "sh", "-ec", mounts + 'exec "$@"', "sh", CAKE, "--endpoint", url,
             "--store", os.path.join(folder, "s"), "cat", path]
    return run(*words, **options)


def test_name_service():
    """A name with a dead IPv6 address is reached by IPv4; a dead name server is told in time."""
    if run("unshare", "-m", "true").returncode != 0:
        note("no mount namespaces here")
        return
    folder = scratch()
    hub = Hub(shape="direct")
    hub.text("org/m", "README.md", "by IPv4")
    port = int(hub.url.rsplit(":", 1)[1])
    hosts = os.path.join(folder, "hosts")
    write(hosts, b"127.0.0.1 two-families.test\n::1 two-families.test\n")
    # A full backlog: SYNs are dropped, as by a black hole.
    with socket.socket(socket.AF_INET6) as full:
        has_hole = True
        try:
            full.bind(("::1", port))
        except OSError:
            note("no IPv6 here")
            has_hole = False
        keep = []
        if has_hole:
            full.listen(0)
            for _ in range(4):
                one = socket.socket(socket.AF_INET6)
                one.setblocking(False)
                one.connect_ex(("::1", port))
                keep.append(one)
        start = time.monotonic()
        done = cat_elsewhere(folder, f"mount --bind {hosts} /etc/hosts; ",
                             f"http://two-families.test:{port}", "org/m/README.md")
        took = time.monotonic() - start
        check_equal((done.returncode, done.stdout), (0, "by IPv4"), f"cat: {done.stderr}")
        note(f"past a dead IPv6 address in {took:.2f} s")
        check(took < 9, f"the IPv6 address was waited for: {took:.1f} s")
        for one in keep:
            one.close()

    # A name server that never answers.
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        server.bind(("127.0.0.1", 53))
    except OSError as error:
        note(f"no name server of our own: {error}")
        return
    resolv = os.path.join(folder, "resolv.conf")
    write(resolv, b"nameserver 127.0.0.1\noptions timeout:30 attempts:4\n")
    start = time.monotonic()
    done = cat_elsewhere(folder, f"mount --bind {resolv} /etc/resolv.conf; ",
                         "http://hub.unreachable.test", "org/m/README.md",
                         env={**os.environ, "CAKE_TIMEO": "3"}, timeout=100)
    took = time.monotonic() - start
    note(f"a dead name server: exit {done.returncode} after {took:.1f} s: {done.stderr.strip()}")
    check(done.returncode in (1, 6), f"exit {done.returncode}: {done.stderr}")
    check(took < 25, f"the name server was waited for: {took:.1f} s")
    server.close()


if __name__ == "__main__":
    main([test_hard_mount, test_soft_mount, test_names, test_hub_that_goes_away, test_tls,
          test_proxy_down, test_name_service], 220)
