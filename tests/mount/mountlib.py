"""What the mount tests share: a hub with knobs, mounts that are cleaned up, raw readers.

Python's own mmap faults while it holds the interpreter's lock, so one stalled page would stop the
whole test; `Map` and `pread` here go through ctypes, which lets go of it and retries nothing.
"""

import atexit
import ctypes
import errno
import faulthandler
import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse
import urllib.request

CAKE = os.environ.get("CAKE_BIN", "cake")
HUB = os.environ.get("TEST_HUB_BIN", "test_hub")
SOURCE = os.environ.get(
    "CAKE_SOURCE_DIR", os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
LONG = "--long" in sys.argv or os.environ.get("CAKE_LONG") == "1"
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

libc = ctypes.CDLL("libc.so.6", use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                      ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.memcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
libc.pread.restype = ctypes.c_ssize_t
libc.pread.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long]
libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
MADV_RANDOM = 1
MNT_DETACH = 2


class Failed(Exception):
    """A check did not hold."""


def check(holds, message):
    if not holds:
        raise Failed(message)


def check_equal(got, wanted, what):
    if got != wanted:
        raise Failed(f"{what}: got {got!r}, wanted {wanted!r}")


def note(text):
    print(text, flush=True)


def skip(reason):
    note(f"skipped: {reason}")
    sys.exit(77)


def sha(data):
    return hashlib.sha256(data).hexdigest()


def sha_file(path, block=MIB):
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(block):
            digest.update(chunk)
    return digest.hexdigest()


def expect_errno(wanted, what, function, *args, **words):
    """`wanted`: an errno, or a tuple of them."""
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    try:
        function(*args, **words)
    except OSError as error:
        names = [errno.errorcode[value] for value in wanted]
        check(error.errno in wanted,
              f"{what}: {errno.errorcode.get(error.errno, error.errno)}, wanted {names}")
        return
    raise Failed(f"{what}: succeeded, wanted {[errno.errorcode[value] for value in wanted]}")


def percentile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def wait_until(condition, what, seconds=20):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        check(time.monotonic() < end, f"did not happen in {seconds} s: {what}")
        time.sleep(0.01)


def drop_caches():
    """Drops page, dentry and inode caches of the machine: what follows is asked of the mount."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3\n")


def memory_kib(pid, key="RssAnon"):
    """KiB of a process, as /proc/PID/status has them under this key."""
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith(key + ":"):
                return int(line.split()[1])
    return 0


def stop_process(pid):
    """Stops a process; when this is back, every thread of it stands still, not just some."""
    def states():
        found = []
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/stat") as file:
                found.append(file.read().rpartition(")")[2].split()[0])
        return found

    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: set(states()) == {"T"}, f"every thread of {pid} is stopped")


def in_threads(count, function):
    """function(i) in `count` threads; the first failure is raised."""
    failures = []

    def body(i):
        try:
            function(i)
        except BaseException as error:  # passed on below
            failures.append(error)

    threads = [threading.Thread(target=body, args=(i,), daemon=True) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


# --- Raw reads --------------------------------------------------------------------------------


def pread(fd, length, offset):
    """One pread(2), never repeated: a short read or EINTR is seen."""
    buffer = ctypes.create_string_buffer(max(length, 1))
    got = libc.pread(fd, buffer, length, offset)
    if got < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return buffer.raw[:got]


def pread_direct(fd, length, offset):
    """One O_DIRECT read into a page-aligned buffer."""
    with mmap.mmap(-1, max(length, 1)) as buffer:
        first = ctypes.c_char.from_buffer(buffer)
        got = libc.pread(fd, ctypes.addressof(first), length, offset)
        failure = ctypes.get_errno()
        del first  # or the buffer cannot be closed
        if got < 0:
            raise OSError(failure, os.strerror(failure))
        return buffer[:got]


class Map:
    """A shared read-only mapping whose faults happen outside of the interpreter's lock."""

    def __init__(self, path, is_random=False):
        fd = os.open(path, os.O_RDONLY)
        self.bytes = os.fstat(fd).st_size
        self.address = libc.mmap(None, self.bytes, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        os.close(fd)
        if self.address == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "mmap")
        if is_random:
            libc.madvise(self.address, self.bytes, MADV_RANDOM)

    def read(self, offset, length):
        length = min(length, self.bytes - offset)
        buffer = ctypes.create_string_buffer(length)
        libc.memcpy(buffer, self.address + offset, length)
        return buffer.raw[:length]

    def close(self):
        libc.munmap(self.address, self.bytes)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# --- Cleaning up ------------------------------------------------------------------------------

_hubs, _mounts, _children, _folders = [], [], [], []


def _clean():
    for child in _children:
        if child.poll() is None:
            child.kill()
    for where in reversed(_mounts):
        where.abandon()
    for hub in _hubs:
        hub.stop()
    with open("/proc/self/mountinfo") as file:
        mounted = [line.split()[4] for line in file]
    for folder in _folders:
        # Removing goes through mounts; what a case bound in there is not ours to remove.
        if any(point.startswith(folder + "/") for point in mounted):
            note(f"left behind, something is mounted there: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


atexit.register(_clean)


def scratch():
    folder = tempfile.mkdtemp(prefix="cakefs-test-")
    os.chmod(folder, 0o755)
    _folders.append(folder)
    return folder


def child(*words, **options):
    """A process that is killed when the test ends."""
    process = subprocess.Popen(words, **options)
    _children.append(process)
    return process


def run(*words, timeout=60, **options):
    return subprocess.run(words, timeout=timeout, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, errors="replace", **options)


# --- The hub ----------------------------------------------------------------------------------


class Hub:
    """test_hub over a folder; `control` turns its knobs."""

    def __init__(self, folder=None, *queries, shape="hub"):
        words = [HUB, "--shape", shape]
        if folder:
            words += ["--dir", folder]
        self.process = subprocess.Popen(words + list(queries), stdout=subprocess.PIPE, text=True)
        _hubs.append(self)
        self.url = self.process.stdout.readline().strip()
        check(self.url.startswith("http://"), "test_hub did not start")

    def control(self, **knobs):
        query = urllib.parse.urlencode(knobs, quote_via=urllib.parse.quote)
        with urllib.request.urlopen(f"{self.url}/_control?{query}", timeout=30) as answer:
            return json.load(answer)

    def pattern(self, repo, file, size, seed=0, revision="main"):
        self.control(repo=repo, file=file, bytes=size, seed=seed, revision=revision)

    def text(self, repo, file, text, revision="main"):
        self.control(repo=repo, file=file, text=text, revision=revision)

    def fault(self, kind, **words):
        return self.control(fault=kind, **words)["fault_id"]

    def recover(self):
        self.control(clear=1)
        self.control(release=1)

    def counters(self):
        return self.control(counters=1)["counters"]

    def body_bytes(self):
        """Bytes of files sent since the last reset."""
        sent = self.counters()["bytes_by_endpoint"]
        return sum(sent.get(key, 0) for key in ("resolve", "resolve-cache", "cdn"))

    def get(self, repo, file, revision="main"):
        where = urllib.parse.quote(f"/{repo}/resolve/{revision}/{file}")
        with urllib.request.urlopen(self.url + where, timeout=120) as answer:
            return answer.read()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


# --- Mounts -----------------------------------------------------------------------------------


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_mounted(directory):
    with open("/proc/self/mountinfo") as file:
        return any(line.split()[4] == directory for line in file)


class Mount:
    """A mount; leaves with its processes when the test ends, however it ends."""

    def __init__(self, hub, folder, source="hf:", store=None, **options):
        self.directory = os.path.join(folder, "mnt")
        self.store = store or os.path.join(folder, "store")
        self.log = os.path.join(folder, "log")
        self.source = source
        self.options = dict(options)
        if hub:
            self.options.setdefault("endpoint", hub.url)
        self.options.setdefault("log", self.log)
        self.options["store"] = self.store
        self.pids = []
        os.makedirs(self.directory, exist_ok=True)
        _mounts.append(self)
        self.mount()

    def mount(self, **options):
        words = ",".join(f"{key}={value}" for key, value in {**self.options, **options}.items())
        done = run(CAKE, "mount", self.source, self.directory, "-o", words)
        check(done.returncode == 0, f"mount: exit {done.returncode}: {done.stderr}")
        self.pids += self.processes()

    def remount(self, **options):
        self.umount()
        drop_caches()
        self.mount(**options)

    def umount(self):
        done = run(CAKE, "umount", self.directory)
        check(done.returncode == 0, f"umount: exit {done.returncode}: {done.stderr}")

    def ps(self):
        done = run(CAKE, "ps", "--json")
        for entry in json.loads(done.stdout or "[]"):
            if entry["mount"] == self.directory:
                return entry
        return None

    def processes(self):
        entry = self.ps()
        return [entry["keeper"], entry["worker"]] if entry else []

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def log_text(self):
        try:
            with open(self.log) as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def abandon(self):
        while is_mounted(self.directory):
            if libc.umount2(self.directory.encode(), MNT_DETACH) != 0:
                break
        for pid in self.pids:
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    is_ours = self.directory.encode() in file.read()
                if is_ours:
                    os.kill(pid, signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                pass


# --- Contents ---------------------------------------------------------------------------------


def noise(count, seed):
    return random.Random(seed).randbytes(count)


def safetensors(tensors, pad=0, metadata=None):
    """`tensors`: (name, dtype, shape, bytes) each; `pad` spaces after the JSON."""
    header, offset, blobs = {}, 0, []
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, dtype, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
        blobs.append(data)
    text = json.dumps(header, separators=(",", ":")).encode() + b" " * pad
    return struct.pack("<Q", len(text)) + text + b"".join(blobs)


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


# --- The frame --------------------------------------------------------------------------------


def main(cases, seconds):
    """Runs the functions in turn; `seconds` bounds them all.  Exit status 1 if one failed."""
    if os.geteuid() != 0:
        skip("mounts as root")
    if not os.path.exists("/dev/fuse"):
        skip("no /dev/fuse")

    def give_up():
        note(f"FAILED: still running after {seconds} s")
        faulthandler.dump_traceback()
        _clean()
        os._exit(1)

    watchdog = threading.Timer(seconds, give_up)
    watchdog.daemon = True
    watchdog.start()
    wanted = [word for word in sys.argv[1:] if not word.startswith("-")]
    failed = []
    for case in cases:
        if wanted and case.__name__ not in wanted:
            continue
        start = time.monotonic()
        try:
            case()
            note(f"ok      {case.__name__} ({time.monotonic() - start:.1f} s)")
        except Exception as error:  # a failed case does not hide the next
            failed.append(case.__name__)
            traceback.print_exc()
            note(f"FAILED  {case.__name__} ({time.monotonic() - start:.1f} s): {error}")
    _clean()
    atexit.unregister(_clean)
    sys.stdout.flush()
    # Threads that a failed case left in a read do not keep the process.
    os._exit(1 if failed else 0)
