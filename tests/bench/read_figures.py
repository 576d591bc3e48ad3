#!/usr/bin/env python3
"""First figures: reading one model file through cakefs, side by side with its peers, in one run.

    tests/bench/read_figures.py [--mib 2048] [--rounds 5] [--json FILE]      (as root)

Columns: the plain file on the same disk; curl, rclone mount and httpdirfs from an nginx on this
machine; bindfs of the plain file's folder, for what the kernel's FUSE page cache can give; cakefs from
`cake serve` on this machine, the second time with the file materialized (passthrough).  Rows: cold
(nothing local, page cache dropped), warm (in the local store or cache, page cache dropped), hot (page
cache), each read sequentially and through mmap.  Medians of the rounds, columns taken in turn within
each round; the plain file's own spread is printed because machines are shared.  What is not installed
is left out.
CAKE_BIN names the program; default build/dev/cake.
"""

import argparse
import hashlib
import json
import mmap
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

CAKE = os.path.abspath(os.environ.get("CAKE_BIN", "build/dev/cake"))
BLOCK = 1 << 20


def drop_page_cache():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as knob:
        knob.write("1")


def read_sequential(path):
    total = 0
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(BLOCK)
        while count := file.readinto(buffer):
            total += count
    return total


def read_mapped(path):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        total = 0
        view = memoryview(mapped)
        sink = bytearray(BLOCK)
        for offset in range(0, len(view), BLOCK):
            part = view[offset : offset + BLOCK]
            sink[: len(part)] = part
            total += len(part)
            part.release()
        view.release()
        return total


def seconds(function, *arguments):
    start = time.monotonic()
    result = function(*arguments)
    return time.monotonic() - start, result


def wait_until(condition, what, limit=30):
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"{what} did not come up")
        time.sleep(0.05)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Bench:
    def __init__(self, work, mib):
        self.work = work
        self.bytes = mib << 20
        self.origin = os.path.join(work, "origin")
        self.plain = os.path.join(self.origin, "bench", "model", "w.safetensors")
        self.mounts = []
        self.processes = []
        self.make_file()
        self.start_servers()

    def make_file(self):
        """One safetensors file of BF16-like tensors of 64 MiB, incompressible in their low bytes."""
        os.makedirs(os.path.dirname(self.plain))
        tensors, size = {}, 64 << 20
        for index in range(self.bytes // size):
            tensors[f"layer.{index}.weight"] = {
                "dtype": "BF16",
                "shape": [size // 2],
                "data_offsets": [index * size, (index + 1) * size],
            }
        header = json.dumps(tensors).encode()
        with open(self.plain, "wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for _ in range(self.bytes // size):
                file.write(os.urandom(size))
        self.bytes = os.path.getsize(self.plain)

    def start_servers(self):
        server = subprocess.Popen(
            [CAKE, "serve", self.origin, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
        )
        self.processes.append(server)
        self.hub = server.stdout.readline().strip()
        self.nginx = None
        if shutil.which("nginx"):
            port = free_port()
            config = os.path.join(self.work, "nginx.conf")
            with open(config, "w") as file:
                file.write(
                    f"user root; daemon off; worker_processes 2; pid {self.work}/nginx.pid;"
                    "error_log /dev/null; events {} http { access_log off; sendfile on;"
                    f"server {{ listen 127.0.0.1:{port}; root {self.origin}; autoindex on; }} }}"
                )
            self.processes.append(subprocess.Popen(["nginx", "-c", config]))
            self.nginx = f"http://127.0.0.1:{port}"
            wait_until(lambda: subprocess.call(["curl", "-sfo", "/dev/null", self.nginx]) == 0, "nginx")

    # --- systems: each has start(fresh) -> path of the file, and stop() ---

    def cake_start(self, is_fresh, store="store"):
        store, mnt = os.path.join(self.work, store), os.path.join(self.work, "cake")
        if is_fresh:
            shutil.rmtree(store, ignore_errors=True)
        os.makedirs(mnt, exist_ok=True)
        subprocess.run([CAKE, "mount", "hf:", mnt, "-o", f"endpoint={self.hub},store={store},log={self.work}/log"],
                       check=True, stdout=subprocess.DEVNULL)
        self.mounts.append(mnt)
        return os.path.join(mnt, "bench/model/w.safetensors")

    def rclone_start(self, is_fresh):
        cache, mnt = os.path.join(self.work, "rclone-cache"), os.path.join(self.work, "rclone")
        if is_fresh:
            shutil.rmtree(cache, ignore_errors=True)
        os.makedirs(mnt, exist_ok=True)
        self.peer = subprocess.Popen(
            ["rclone", "mount", ":http:", mnt, "--http-url", self.nginx, "--read-only", "--vfs-cache-mode",
             "full", "--cache-dir", cache, "--buffer-size", "64M", "--vfs-read-ahead", "128M"],
            stderr=subprocess.DEVNULL)
        self.mounts.append(mnt)
        path = os.path.join(mnt, "bench/model/w.safetensors")
        wait_until(lambda: os.path.exists(path), "rclone")
        return path

    def httpdirfs_start(self, is_fresh):
        cache, mnt = os.path.join(self.work, "httpdirfs-cache"), os.path.join(self.work, "httpdirfs")
        if is_fresh:
            shutil.rmtree(cache, ignore_errors=True)
        os.makedirs(mnt, exist_ok=True)
        os.makedirs(cache, exist_ok=True)
        self.peer = subprocess.Popen(
            ["httpdirfs", "-f", "--cache", "--cache-location", cache, self.nginx, mnt],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.mounts.append(mnt)
        path = os.path.join(mnt, "bench/model/w.safetensors")
        wait_until(lambda: os.path.exists(path), "httpdirfs")
        return path

    def stop_mount(self):
        mnt = self.mounts.pop()
        # A busy or broken mount must not keep the bench.
        subprocess.run(["umount", mnt], stderr=subprocess.DEVNULL, timeout=60)
        if os.path.ismount(mnt):
            subprocess.run(["umount", "-l", mnt], timeout=60)
        if getattr(self, "peer", None):
            self.peer.wait(60)
            self.peer = None

    def measure_mount(self, start, read):
        """Seconds of a cold, a warm and a hot reading."""
        times = {}
        path = start(True)
        drop_page_cache()
        for row in ("cold", "warm", "hot"):
            if row == "warm":
                self.stop_mount()
                path = start(False)
                drop_page_cache()
            times[row], count = seconds(read, path)
            if count != self.bytes:
                raise SystemExit(f"{path}: read {count} of {self.bytes} bytes")
        self.stop_mount()
        return times

    def measure_local(self, start, read):
        """The same, of what is complete from the start."""
        path = start()
        drop_page_cache()
        times = {row: seconds(read, path)[0] for row in ("warm", "hot")}
        self.stop_mount()
        return times

    def bindfs_start(self):
        mnt = os.path.join(self.work, "bindfs")
        os.makedirs(mnt, exist_ok=True)
        subprocess.run(["bindfs", "-o", "kernel_cache,ro", os.path.dirname(self.plain), mnt], check=True)
        self.mounts.append(mnt)
        return os.path.join(mnt, os.path.basename(self.plain))

    def materialize(self):
        """Once, before the rounds: a disk that is still writing is slow to read from."""
        for words in (["pull"], ["pin", "--hot"]):
            subprocess.run([CAKE, "--store", os.path.join(self.work, "hot"), "--endpoint", self.hub, *words,
                            "bench/model"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def measure_plain(self, read):
        drop_page_cache()
        cold, _ = seconds(read, self.plain)
        hot, _ = seconds(read, self.plain)
        return {"warm": cold, "hot": hot}

    def measure_curl(self, _):
        base = self.nginx + "/bench/model/w.safetensors" if self.nginx else None
        url = base or self.hub + "/bench/model/resolve/main/w.safetensors"
        spent, _ = seconds(subprocess.run, ["curl", "-sfo", "/dev/null", url])
        return {"cold": spent}

    def check_bytes(self):
        path = self.cake_start(True)
        with open(path, "rb") as through, open(self.plain, "rb") as plain:
            same = hashlib.file_digest(through, "sha256").digest() == hashlib.file_digest(plain, "sha256").digest()
        self.stop_mount()
        if not same:
            raise SystemExit("the mount gave other bytes than the origin")

    def close(self):
        while self.mounts:
            self.stop_mount()
        for process in self.processes:
            process.terminate()
            process.wait(30)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mib", type=int, default=2048)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--json")
    chosen = options.parse_args()
    work = tempfile.mkdtemp(prefix="cakefs-bench.")
    bench = Bench(work, chosen.mib)
    try:
        bench.check_bytes()
        bench.materialize()
        systems = {"plain file": bench.measure_plain, "curl": bench.measure_curl,
                   "cakefs": lambda read: bench.measure_mount(bench.cake_start, read),
                   "cakefs, materialized":
                       lambda read: bench.measure_local(lambda: bench.cake_start(False, "hot"), read)}
        if shutil.which("bindfs"):
            systems["bindfs"] = lambda read: bench.measure_local(bench.bindfs_start, read)
        if bench.nginx and shutil.which("rclone"):
            systems["rclone mount"] = lambda read: bench.measure_mount(bench.rclone_start, read)
        if bench.nginx and shutil.which("httpdirfs"):
            systems["httpdirfs"] = lambda read: bench.measure_mount(bench.httpdirfs_start, read)
        found, failed = {}, {}
        for _ in range(chosen.rounds):
            for how, read in (("sequential", read_sequential), ("mmap", read_mapped)):
                for name, measure in list(systems.items()):
                    if name in failed:
                        continue
                    try:
                        times = measure(read)
                    except OSError as failure:
                        if name == "plain file" or name.startswith("cakefs"):
                            raise
                        failed[name] = str(failure)
                        bench.stop_mount()
                        continue
                    for row, spent in times.items():
                        found.setdefault((row, how), {}).setdefault(name, []).append(bench.bytes / spent / 1e6)
        names = list(systems)
        print(f"MB/s, medians of {chosen.rounds}; file of {chosen.mib} MiB\n")
        print("| |" + "|".join(names) + "|\n|---" + "|---" * len(names) + "|")
        for (row, how), columns in sorted(found.items()):
            cells = [f"{statistics.median(columns[name]):.0f}" if name in columns else "–" for name in names]
            print(f"| {row}, {how} |" + "|".join(cells) + "|")
        for name, failure in failed.items():
            print(f"{name} failed: {failure}")
        for (row, how), columns in sorted(found.items()):
            if "plain file" in columns:
                values = columns["plain file"]
                ratios = ", ".join(f"{name} {statistics.median(speeds) / statistics.median(values):.2f}"
                                   for name, speeds in columns.items() if name != "plain file")
                print(f"{row}, {how}: plain file {min(values):.0f} to {max(values):.0f}; of it {ratios}")
        if chosen.json:
            with open(chosen.json, "w") as file:
                json.dump([{"row": row, "how": how, "mb_per_s": columns} for (row, how), columns in found.items()], file)
    finally:
        bench.close()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
