#!/usr/bin/env python3
"""The first load: what the network engine makes of a link, beside its peers, in one run.

    tests/bench/first_load.py [--mib 1024] [--link 400 --each 25 --latency 30] [CASE…]   (as root)

Cases (default: all):
  link      a link with a limit in all and for each connection, and a latency: sequential `cat` through
            the mount after its first second, `cake cat`, curl with one connection, rclone mount, httpdirfs
  loopback  no limit: into a cold store, noise and weights, beside `dd conv=fdatasync` of what is stored; CPU by thread
  trips     round trips to the first tensor byte of a cold model, and requests of a second open
  listing   requests of `ls -lR` of a 10,000-file repo, and of the next one
  http2     parallel HTTP/1.1 against HTTP/2 through an nginx with TLS in front of `cake serve`

The origin and all clients share this machine: compare the columns of one run, and mind its load,
which is printed.  Rates are in MB/s.  CAKE_BIN and TEST_HUB_BIN name the programs.
"""

import argparse
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import read_path

BUILD = os.environ.get("CAKE_BUILD", "build/dev")
CAKE = os.path.abspath(os.environ.get("CAKE_BIN", f"{BUILD}/cake"))
HUB = os.path.abspath(os.environ.get("TEST_HUB_BIN", f"{BUILD}/test_hub"))
MIB = 1 << 20


def drop_page_cache():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as knob:
        knob.write("3")


def wait_until(condition, what, limit=30):
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"{what} did not come up")
        time.sleep(0.02)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def read_timed(source):
    """Bytes and seconds: in all, and of what came after the first second."""
    buffer = bytearray(MIB)
    start = time.monotonic()
    total, late_bytes, late_at = 0, 0, None
    while count := source.readinto(buffer):
        total += count
        now = time.monotonic()
        if late_at is not None:
            late_bytes += count
        elif now - start >= 1:
            late_at = now
    end = time.monotonic()
    late = late_bytes / (end - late_at) / 1e6 if late_at and end > late_at else None
    return total, total / (end - start) / 1e6, late


def show(name, got):
    total, rate, late = got
    late = f"{late:6.0f} after the first second" if late else ""
    print(f"  {name:24} {rate:6.0f}  {late}  ({total / 1e6:.0f} MB)", flush=True)


class Hub:
    def __init__(self, *queries, shape="hub"):
        self.process = subprocess.Popen([HUB, "--shape", shape, *queries], stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()

    def control(self, **knobs):
        query = urllib.parse.urlencode(knobs)
        with urllib.request.urlopen(f"{self.url}/_control?{query}", timeout=60) as answer:
            return json.load(answer)

    def counters(self):
        return self.control(counters=1)["counters"]

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


class Mount:
    """A mount over a fresh store, at a place of its own: the last one may still be on its way out."""

    count = 0

    def __init__(self, work, url, **options):
        Mount.count += 1
        self.directory = os.path.join(work, f"mnt{Mount.count}")
        self.store = os.path.join(work, f"store{Mount.count}")
        os.makedirs(self.directory, exist_ok=True)
        words = {"endpoint": url, "store": self.store, "log": f"{work}/log", **options}
        self.words = ",".join(f"{key}={value}" for key, value in words.items())
        self.mount()

    def mount(self):
        subprocess.run([CAKE, "mount", "hf:", self.directory, "-o", self.words], check=True,
                       stdout=subprocess.DEVNULL)
        entries = json.loads(subprocess.run([CAKE, "ps", "--json"], capture_output=True, text=True).stdout)
        self.worker = next(entry["worker"] for entry in entries if entry["mount"] == self.directory)

    def umount(self):
        subprocess.run(["umount", self.directory], timeout=120)
        wait_until(lambda: not os.path.exists(f"/proc/{self.worker}"), "the worker's end", 120)

    def discard(self):
        self.umount()
        shutil.rmtree(self.store)

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def cpu_by_thread(self):
        """CPU seconds of the worker, by thread name."""
        tick, out = os.sysconf("SC_CLK_TCK"), {}
        for task in os.listdir(f"/proc/{self.worker}/task"):
            with open(f"/proc/{self.worker}/task/{task}/stat") as file:
                name, rest = file.read().split("(", 1)[1].rsplit(")", 1)
            fields = rest.split()
            name = name.rstrip("0123456789-")
            out[name] = out.get(name, 0) + (int(fields[11]) + int(fields[12])) / tick
        return out


def peers(work, base):
    """rclone mount and httpdirfs, if they are installed: (name, start) with start() -> (process, path)."""
    mnt = os.path.join(work, "peer")

    def start(words, relative):
        os.makedirs(mnt, exist_ok=True)
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        path = os.path.join(mnt, relative)
        wait_until(lambda: os.path.exists(path), words[0])
        return process, path

    cache = os.path.join(work, "peer-cache")
    if shutil.which("rclone"):
        yield "rclone mount", lambda file: start(
            ["rclone", "mount", ":http:", mnt, "--http-url", base, "--read-only", "--vfs-cache-mode", "full",
             "--cache-dir", cache, "--buffer-size", "64M", "--vfs-read-ahead", "128M"], file)
    if shutil.which("httpdirfs"):
        yield "httpdirfs", lambda file: start(
            ["httpdirfs", "-f", "--cache", "--cache-location", cache, base, mnt], file)


def case_link(work, chosen):
    size = chosen.mib * MIB
    print(f"link: {chosen.link} MB/s in all, {chosen.each} MB/s a connection, {chosen.latency} ms")
    hub = Hub(f"repo=b/m&file=w.bin&bytes={size}&seed=1", "repo=b/m&file=README.md&text=x", shape="cdn")
    knobs = dict(rate=chosen.link * 1000000, conn_rate=chosen.each * 1000000, latency_ms=chosen.latency)
    mount = Mount(work, hub.url)
    os.listdir(mount.path("b/m"))
    hub.control(**knobs)
    with open(mount.path("b/m/w.bin"), "rb", buffering=0) as file:
        show("cakefs, mount", read_timed(file))
    print("   ", hub.counters()["connections"], "connections")
    mount.umount()
    for name, words in (
            ("cake cat", [CAKE, "--endpoint", hub.url, "--store", f"{work}/store-cat", "cat", "b/m/w.bin"]),
            ("curl, one connection", ["curl", "-sfL", f"{hub.url}/b/m/resolve/main/w.bin"])):
        process = subprocess.Popen(words, stdout=subprocess.PIPE, bufsize=0)
        # One connection takes its time, and its rate is soon known.
        if name.startswith("curl"):
            part = min(size, 8 * chosen.each * 1000000)
            show(name, read_timed(subprocess.Popen(["head", "-c", str(part)], stdin=process.stdout,
                                                   stdout=subprocess.PIPE, bufsize=0).stdout))
            process.terminate()
        else:
            show(name, read_timed(process.stdout))
        process.stdout.close()
        process.wait(60)
    # The peers list directories as nginx prints them; the rates are the hub's, behind nginx.
    if shutil.which("nginx"):
        port, root = free_port(), os.path.join(work, "root")
        os.makedirs(os.path.join(root, "b"), exist_ok=True)
        with open(os.path.join(root, "b", "w.bin"), "wb") as file:
            file.truncate(size)
        config = os.path.join(work, "nginx.conf")
        with open(config, "w") as file:
            file.write(
                f"user root; daemon off; worker_processes 2; pid {work}/nginx.pid; error_log /dev/null;"
                "events {} http { access_log off; server {"
                f"listen 127.0.0.1:{port}; root {root}; autoindex on; limit_rate {chosen.each * 1000000};"
                "} }")
        nginx = subprocess.Popen(["nginx", "-c", config])
        wait_until(lambda: subprocess.call(["curl", "-sfo", "/dev/null", f"http://127.0.0.1:{port}/"]) == 0, "nginx")
        print("  (peers: the limit of each connection only, no latency, from an nginx)")
        for name, start in peers(work, f"http://127.0.0.1:{port}"):
            process, path = start("b/w.bin")
            try:
                with open(path, "rb", buffering=0) as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    part = min(size, 16 * chosen.each * 1000000)
                    began, got, buffer = time.monotonic(), 0, bytearray(MIB)
                    while got < part and (count := file.readinto(buffer)):
                        got += count
                    rate = got / (time.monotonic() - began) / 1e6
                show(name, (got, rate, None))
            except OSError as error:
                print(f"  {name:24} {error}")
            subprocess.run(["umount", "-l", os.path.join(work, "peer")])
            process.terminate()
            process.wait(60)
        nginx.terminate()
        nginx.wait(30)
    hub.stop()


def disk_bytes(folder):
    return sum(512 * os.stat(os.path.join(folder, name)).st_blocks for name in os.listdir(folder))


def write_rate(path, size):
    """What `dd` makes of the disk, in MB/s."""
    drop_page_cache()
    began = time.monotonic()
    subprocess.run(["dd", "if=/dev/zero", f"of={path}", "bs=1M", f"count={max(1, size // MIB)}", "conv=fdatasync"],
                   check=True, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    os.unlink(path)
    return size / seconds / 1e6


def case_loopback(work, chosen):
    print("loopback: no limits, cold store; an origin in memory that sends by sendfile")
    # Where dropping the page cache takes nothing from it.
    origin = tempfile.mkdtemp(prefix="cakefs-bench.", dir="/dev/shm")
    names = {"noise": "b/noise/w.bin", "BF16 weights": "b/weights/w.safetensors"}
    os.makedirs(f"{origin}/b/noise")
    with open(f"{origin}/{names['noise']}", "wb") as file:
        for _ in range(chosen.mib):
            file.write(os.urandom(MIB))
    read_path.make_file(f"{origin}/{names['BF16 weights']}", chosen.mib)
    server = subprocess.Popen([CAKE, "serve", origin, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    url = server.stdout.readline().strip()
    try:
        for name, path in names.items():
            size = os.path.getsize(f"{origin}/{path}")
            for _ in range(3):
                drop_page_cache()
                mount = Mount(work, url)
                os.listdir(mount.path(os.path.dirname(path)))
                before = mount.cpu_by_thread()
                with open(mount.path(path), "rb", buffering=0) as file:
                    got = read_timed(file)
                after = mount.cpu_by_thread()
                mount.umount()
                stored = disk_bytes(f"{mount.store}/packs")
                shutil.rmtree(mount.store)
                show(f"cakefs, {name}", got)
                # Of as many bytes as were stored, in the time that all of them were read.
                dd = write_rate(f"{work}/plain", stored) * size / stored
                print(f"    stored as {stored / size:.2f}; dd conv=fdatasync of that, a byte read: {dd:.0f}: {got[1] / dd:.2f}x of it")
                spent = {thread: (after[thread] - before.get(thread, 0)) / (size / 1e9) for thread in after}
                print("    CPU s/GB:", ", ".join(f"{thread} {value:.2f}" for thread, value in sorted(spent.items()) if value >= 0.005))
            began = time.monotonic()
            subprocess.run(["curl", "-sfLo", "/dev/null", f"{url}/{os.path.dirname(path)}/resolve/main/{os.path.basename(path)}"], check=True)
            print(f"  {'curl to nowhere':24} {size / (time.monotonic() - began) / 1e6:6.0f}")
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(origin)


def case_trips(work, chosen):
    folder = os.path.join(work, "repos/b/m")
    os.makedirs(folder, exist_ok=True)
    tensor = os.urandom(4 * MIB)
    header = json.dumps({"a": {"dtype": "U8", "shape": [len(tensor)], "data_offsets": [0, len(tensor)]}}).encode()
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + b"".join([tensor]))
    hub = subprocess.Popen([HUB, "--shape", "hub", "--dir", os.path.join(work, "repos")], stdout=subprocess.PIPE, text=True)
    url = hub.stdout.readline().strip()

    def control(**knobs):
        with urllib.request.urlopen(f"{url}/_control?{urllib.parse.urlencode(knobs)}") as answer:
            return json.load(answer)

    mount = Mount(work, url)
    os.listdir(mount.path("b/m"))
    mount.umount()
    drop_page_cache()
    mount.mount()
    control(latency_ms=chosen.latency, reset_counters=1)
    began = time.monotonic()
    fd = os.open(mount.path("b/m/model.safetensors"), os.O_RDONLY)
    os.pread(fd, 4096, 0)
    os.pread(fd, 4096, 8 + len(header) + 3 * MIB)
    took = (time.monotonic() - began) * 1000
    counters = control(counters=1)["counters"]
    print(f"trips: first tensor byte after {took:.0f} ms at {chosen.latency} ms: {took / chosen.latency:.1f} round trips; "
          f"{counters['requests']} requests, {counters['connections']} connections")
    os.pread(fd, len(tensor), 0)
    os.close(fd)
    control(reset_counters=1)
    fd = os.open(mount.path("b/m/model.safetensors"), os.O_RDONLY)
    os.pread(fd, 4096, 8 + len(header) + 3 * MIB)
    os.close(fd)
    print(f"  second open: {control(counters=1)['counters']['requests']} requests")
    mount.umount()
    hub.terminate()
    hub.wait(30)


def case_listing(work, chosen):
    folder, files, folders = os.path.join(work, "many/b/m"), 10000, 100
    for i in range(folders):
        os.makedirs(os.path.join(folder, f"d{i}"), exist_ok=True)
        for k in range(files // folders):
            with open(os.path.join(folder, f"d{i}/f{k}"), "w") as file:
                file.write(f"{i} {k}")
    hub = subprocess.Popen([HUB, "--dir", os.path.join(work, "many")], stdout=subprocess.PIPE, text=True)
    url = hub.stdout.readline().strip()
    mount = Mount(work, url)
    for what in ("ls -lR", "ls -lR again"):
        with urllib.request.urlopen(f"{url}/_control?reset_counters=1") as answer:
            answer.read()
        began = time.monotonic()
        lines = subprocess.run(["ls", "-lR", mount.path("b/m")], capture_output=True, text=True, check=True).stdout
        took = time.monotonic() - began
        with urllib.request.urlopen(f"{url}/_control?counters=1") as answer:
            counters = json.load(answer)["counters"]
        print(f"listing: {what}: {counters['requests']} requests, {took:.2f} s, {lines.count(chr(10))} lines "
              f"(at most {-(-(files + folders) // 1000) + 2} allowed)")
    mount.umount()
    hub.terminate()
    hub.wait(30)


def case_http2(work, chosen):
    """The same reads over TLS with HTTP/2 offered and not."""
    if not shutil.which("nginx"):
        return print("http2: no nginx here")
    size = chosen.mib * MIB
    origin = os.path.join(work, "origin")
    os.makedirs(f"{origin}/b/m", exist_ok=True)
    with open(f"{origin}/b/m/w.bin", "wb") as file:
        for _ in range(chosen.mib // 64):
            file.write(os.urandom(64 * MIB))
    serve = subprocess.Popen([CAKE, "serve", origin, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    url = serve.stdout.readline().strip()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=t", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{work}/key", "-out", f"{work}/cert"],
                   check=True, stderr=subprocess.DEVNULL)
    ports = {"HTTP/1.1": free_port(), "HTTP/2": free_port()}
    config = os.path.join(work, "tls.conf")
    servers = "".join(
        f"server {{ listen 127.0.0.1:{port} ssl{' http2' if name == 'HTTP/2' else ''}; ssl_certificate {work}/cert;"
        f"ssl_certificate_key {work}/key; location / {{ proxy_pass {url}; proxy_http_version 1.1; proxy_buffering off;"
        "proxy_set_header Connection ''; } }" for name, port in ports.items())
    with open(config, "w") as file:
        file.write(f"user root; daemon off; worker_processes 2; pid {work}/tls.pid; error_log /dev/null;"
                   f"events {{}} http {{ access_log off; {servers} }}")
    nginx = subprocess.Popen(["nginx", "-c", config])
    wait_until(lambda: subprocess.call(["curl", "-skfo", "/dev/null", f"https://127.0.0.1:{ports['HTTP/2']}/api/models"]) == 0,
               "nginx")
    print("http2: over TLS, nginx in front of cake serve, cold store")
    for _ in range(3):
        for name, port in ports.items():
            mount = Mount(work, f"https://127.0.0.1:{port}", cafile=f"{work}/cert")
            os.listdir(mount.path("b/m"))
            with open(mount.path("b/m/w.bin"), "rb", buffering=0) as file:
                got = read_timed(file)
            spent = sum(mount.cpu_by_thread().values()) / (size / 1e9)
            show(name, got)
            print(f"    {spent:.2f} CPU s/GB")
            mount.discard()
    for process in (nginx, serve):
        process.terminate()
        process.wait(30)


CASES = {"link": case_link, "loopback": case_loopback, "trips": case_trips, "listing": case_listing, "http2": case_http2}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mib", type=int, default=1024)
    options.add_argument("--link", type=int, default=400)
    options.add_argument("--each", type=int, default=25)
    options.add_argument("--latency", type=int, default=30)
    options.add_argument("cases", nargs="*", choices=[*CASES, []])
    chosen = options.parse_args()
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    for name in chosen.cases or CASES:
        work = tempfile.mkdtemp(prefix="cakefs-bench.")
        try:
            CASES[name](work, chosen)
        finally:
            for name in os.listdir(work):
                if os.path.ismount(os.path.join(work, name)):
                    subprocess.run(["umount", "-l", os.path.join(work, name)])
            shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
