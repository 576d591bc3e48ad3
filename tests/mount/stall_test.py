# ctest: serial timeout=200
"""An origin that does not answer holds only those who want its bytes."""

import ctypes
import os
import signal
import subprocess

from mountlib import *

READERS = 300

# One stalled read, in a process of its own: "buffered", "direct" or "fault".
READER = """
import ctypes, mmap, os, sys
kind, path, offset = sys.argv[1], sys.argv[2], int(sys.argv[3])
fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if kind == "direct" else 0))
print("go", flush=True)
if kind == "fault":
    got = mmap.mmap(fd, 0, prot=mmap.PROT_READ)[offset:offset + 4096]
else:
    buffer = mmap.mmap(-1, 4096)
    count = os.preadv(fd, [buffer], offset)
    got = buffer[:count]
sys.stdout.write(got.hex())
"""

# Many reads, each by a thread; prints how many were right.
CROWD = """
import ctypes, hashlib, os, sys, threading
path, count, step = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
fd = os.open(path, os.O_RDONLY)
answers = {}
def read(i):
    try: answers[i] = hashlib.sha256(os.pread(fd, 4096, i * step + 5)).hexdigest()
    except OSError as error: answers[i] = str(error)
threads = [threading.Thread(target=read, args=(i,)) for i in range(count)]
for thread in threads: thread.start()
print("go", flush=True)
for thread in threads: thread.join()
for i in range(count): print(answers[i])
"""


def python(code, *words, **options):
    return child(sys.executable, "-c", code, *map(str, words), stdout=subprocess.PIPE, text=True,
                 **options)


def timed(function, *args):
    start = time.monotonic()
    function(*args)
    return time.monotonic() - start


def check_p99(what, function, count=200, limit=0.050):
    times = [timed(function) for _ in range(count)]
    p99 = percentile(times, 0.99)
    note(f"{what}: p99 {p99 * 1000:.1f} ms, worst {max(times) * 1000:.1f} ms")
    check(p99 < limit, f"{what}: p99 {p99 * 1000:.1f} ms")


def read_uncached(path):
    """The file's bytes from the mount, not from the page cache."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    got = pread(fd, 64 * KIB, 0)
    os.close(fd)
    return got


def set_up_hub(folder, size=READERS * MIB):
    hub = Hub(None, shape="direct")
    hub.pattern("org/big", "model.bin", size, seed=1)
    hub.pattern("org/big", "other.bin", 64 * MIB, seed=2)
    hub.pattern("org/small", "cached.bin", 3 * MIB, seed=3)
    mount = Mount(hub, folder)
    sha_file(mount.path("org/small/cached.bin"))
    os.listdir(mount.path("org/small"))
    os.stat(mount.path("org/big/model.bin"))
    os.stat(mount.path("org/big/other.bin"))
    return hub, mount


def stall(hub):
    return hub.fault("black_hole", endpoint="resolve")


def start_crowd(hub, mount):
    crowd = python(CROWD, mount.path("org/big/model.bin"), READERS, MIB)
    check_equal(crowd.stdout.readline(), "go\n", "the crowd starts")
    wait_until(lambda: hub.counters()["stalled"] > 0, "a request stalls")
    # Every thread of the crowd sleeps in its read.
    tasks = f"/proc/{crowd.pid}/task"

    def parked():
        count = 0
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/syscall") as file:
                count += file.read().split()[0] == "17"  # pread64
        return count >= READERS

    wait_until(parked, "300 threads are in pread")
    return crowd


def check_crowd(hub, crowd):
    data = hub.get("org/big", "model.bin")
    out, _ = crowd.communicate(timeout=60)
    got = out.split("\n")[:READERS]
    wanted = [sha(data[i * MIB + 5:i * MIB + 5 + 4096]) for i in range(READERS)]
    wrong = [(i, a) for i, (a, b) in enumerate(zip(got, wanted)) if a != b]
    check_equal(len(got), READERS, "answers")
    check(not wrong, f"{len(wrong)} of the readers are wrong: {wrong[:3]}")


def test_300_stalled_reads():
    folder = scratch()
    hub, mount = set_up_hub(folder)
    cached = read_uncached(mount.path("org/small/cached.bin"))
    stall(hub)
    crowd = start_crowd(hub, mount)
    check_p99("stat", lambda: os.stat(mount.path("org/small/cached.bin")))
    check_p99("stat of the stalled file", lambda: os.stat(mount.path("org/big/model.bin")))
    check_p99("ls", lambda: os.listdir(mount.path("org/small")))
    check_p99("ls of the root", lambda: os.listdir(mount.path()))
    check_p99("read of a cached file",
              lambda: check(read_uncached(mount.path("org/small/cached.bin")) == cached, "bytes"))
    for kind in ("buffered", "direct", "fault"):
        reader = python(READER, kind, mount.path("org/big/other.bin"), 33 * MIB)
        check_equal(reader.stdout.readline(), "go\n", kind)
        time.sleep(0.3)
        check(reader.poll() is None, f"{kind}: the reader waits")
        reader.kill()
        start = time.monotonic()
        reader.wait(10)
        took = time.monotonic() - start
        note(f"SIGKILL of a {kind} reader: gone after {took * 1000:.0f} ms")
        check(took < 2, f"{kind}: gone after {took:.1f} s")
    expect_errno(errno.EBUSY, "umount with open files", umount_plain, mount.directory)
    check(crowd.poll() is None, "the crowd waits")
    hub.recover()
    check_crowd(hub, crowd)
    mount.umount()


def umount_plain(directory):
    if libc.umount2(directory.encode(), 0) != 0:
        raise OSError(ctypes.get_errno(), "umount")


def test_lazy_umount_with_parked_reads():
    folder = scratch()
    hub, mount = set_up_hub(folder)
    stall(hub)
    crowd = start_crowd(hub, mount)
    pids = mount.processes()
    took = timed(lambda: check_equal(libc.umount2(mount.directory.encode(), MNT_DETACH), 0, "umount -l"))
    note(f"umount -l with {READERS} parked reads: {took * 1000:.0f} ms")
    check(took < 1, f"umount -l took {took:.1f} s")
    check(all(is_alive(pid) for pid in pids), "the readers are still served")
    hub.recover()
    check_crowd(hub, crowd)
    wait_until(lambda: not any(is_alive(pid) for pid in pids), "no process is left", 15)

    # The same with readers that are killed, and no recovery.
    mount.mount()
    hub.control(fault="black_hole", endpoint="resolve")
    os.stat(mount.path("org/big/other.bin"))
    reader = python(READER, "direct", mount.path("org/big/other.bin"), 50 * MIB)
    check_equal(reader.stdout.readline(), "go\n", "reader")
    time.sleep(0.3)
    pids = mount.processes()
    check_equal(libc.umount2(mount.directory.encode(), MNT_DETACH), 0, "umount -l")
    reader.kill()
    check(timed(reader.wait) < 2, "the reader is gone within 2 s")
    wait_until(lambda: not any(is_alive(pid) for pid in pids), "no process is left", 15)


# Cold faults and reads in the thread that gets the signals of a 1 kHz timer.
PROFILED = """
import sys, os, signal, hashlib
sys.path.insert(0, os.path.dirname(sys.argv[1]))
import mountlib
ticks = 0
def tick(*_):
    global ticks
    ticks += 1
signal.signal(signal.SIGALRM, tick)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
digest = hashlib.sha256()
with mountlib.Map(sys.argv[2], is_random=True) as mapped:
    for i in range(48): digest.update(mapped.read(i * 1300000 + 77, 6000))
fd = os.open(sys.argv[3], os.O_RDONLY)
for i in range(48): digest.update(mountlib.pread(fd, 6000, i * 1300000 + 77))
direct = os.open(sys.argv[3], os.O_RDONLY | os.O_DIRECT)
for i in range(48): digest.update(mountlib.pread_direct(direct, 6000, i * 1300000 + 700077))
signal.setitimer(signal.ITIMER_REAL, 0, 0)
print(digest.hexdigest(), ticks)
"""


def test_signals_at_1_khz():
    folder = scratch()
    hub, mount = set_up_hub(folder, 64 * MIB)
    hub.control(latency_ms=15)
    done = run(sys.executable, "-c", PROFILED, os.path.abspath(__file__), mount.path("org/big/model.bin"),
               mount.path("org/big/other.bin"), timeout=100)
    hub.control(latency_ms=0)
    check_equal(done.returncode, 0, f"the profiled reader: {done.stderr[-500:]}")
    first, second = hub.get("org/big", "model.bin"), hub.get("org/big", "other.bin")
    parts = [first[i * 1300000 + 77:][:6000] for i in range(48)]
    parts += [second[i * 1300000 + 77:][:6000] for i in range(48)]
    parts += [second[i * 1300000 + 700077:][:6000] for i in range(48)]
    digest, ticks = done.stdout.split()
    note(f"signals were handled {ticks} times during the reads")  # once a read, however many came
    check(int(ticks) > 30, f"signals were handled {ticks} times only")
    check_equal(digest, sha(b"".join(parts)), "bytes")
    mount.umount()


LOOKUPS = """
import os, sys, threading
def look(i):
    try: os.stat(f"{sys.argv[1]}/org/unknown-{i}")
    except OSError: pass
for i in range(300): threading.Thread(target=look, args=(i,)).start()
print("go", flush=True)
"""


def test_stalled_lookups():
    folder = scratch()
    hub, mount = set_up_hub(folder, 4 * MIB)
    os.listdir(mount.path("org"))
    hub.fault("black_hole")
    crowd = python(LOOKUPS, mount.directory)
    check_equal(crowd.stdout.readline(), "go\n", "the crowd starts")
    wait_until(lambda: hub.counters()["stalled"] > 0, "a look-up stalls")
    single = python("import os, sys; print('go', flush=True); os.stat(sys.argv[1])",
                    mount.path("org/unknown-single"), stderr=subprocess.DEVNULL)
    check_equal(single.stdout.readline(), "go\n", "the look-up starts")
    check_p99("ls of the root", lambda: os.listdir(mount.path()))
    check_p99("ls of a cached directory", lambda: os.listdir(mount.path("org/small")))
    check_p99("ls of the same ORG", lambda: os.listdir(mount.path("org")))
    for what, process in (("one look-up", single), ("300 look-ups", crowd)):
        if process.poll() is not None:
            note(f"{what}: answered already")
            continue
        process.kill()
        took = timed(process.wait)
        note(f"SIGKILL of {what}: gone after {took * 1000:.0f} ms")
        check(took < 2, f"{what}: gone after {took:.1f} s")
    hub.recover()
    mount.umount()


# Submits a direct read with io_submit(2) and leaves without waiting for it.
SUBMITTER = """
import ctypes, mmap, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
setup, submit = (206, 209) if os.uname().machine == "x86_64" else (0, 2)
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
context, buffer = ctypes.c_ulong(), mmap.mmap(-1, 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
# struct iocb: data, key, rw_flags, opcode (PREAD), priority, fd, buffer, bytes, offset
block = ctypes.create_string_buffer(struct.pack("QIiHhIQQq", 0, 0, 0, 0, 0, fd, address, 4096, 0), 64)
blocks = (ctypes.c_void_p * 1)(ctypes.addressof(block))
failed = libc.syscall(setup, 1, ctypes.byref(context)) != 0 or libc.syscall(submit, context, 1, blocks) != 1
print(os.strerror(ctypes.get_errno()) if failed else "go", flush=True)
os._exit(0)
"""


def test_exit_with_an_asynchronous_read():
    """The kernel waits for it, after SIGKILL can no longer be seen to be pending."""
    folder = scratch()
    hub, mount = set_up_hub(folder, 4 * MIB)
    path = mount.path("org/big/other.bin")
    os.stat(path)
    stall(hub)
    process = python(SUBMITTER, path)
    check_equal(process.stdout.readline(), "go\n", "the read is submitted")
    took = timed(process.wait, 30)
    check(took < 2, f"gone after {took:.1f} s")
    hub.recover()
    mount.umount()


def test_half_cached_file():
    folder = scratch()
    hub, mount = set_up_hub(folder, 16 * MIB)
    data = hub.get("org/big", "model.bin")
    mount.remount(prefetch="off")
    path = mount.path("org/big/model.bin")
    # The odd MiB of the file, one by one: what else the mount fetched beside them is no hole.
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    for i in range(1, 16, 4):
        pread_direct(fd, MIB, i * MIB)
    os.close(fd)
    mount.remount(prefetch="off")
    stall_id = hub.fault("drop", endpoint="resolve")
    drop_caches()
    fd = os.open(path, os.O_RDONLY)
    for i in range(1, 16, 4):
        for page in [*range(0, 256, 17), 254, 255]:
            offset = i * MIB + page * 4096
            check(pread(fd, 4096, offset) == data[offset:offset + 4096], f"pread at {offset}")
    drop_caches()
    with Map(path) as mapped:
        for i in range(1, 16, 4):
            for page in [255, *range(0, 256, 19)]:
                offset = i * MIB + page * 4096
                check(mapped.read(offset, 4096) == data[offset:offset + 4096], f"fault at {offset}")
    os.close(fd)
    waiting = {}
    for kind in ("buffered", "fault", "direct"):
        waiting[kind] = python(READER, kind, path, 11 * MIB)
        check_equal(waiting[kind].stdout.readline(), "go\n", kind)
    time.sleep(1)
    for kind, reader in waiting.items():
        check(reader.poll() is None, f"{kind}: absent bytes wait on a hard mount")
    hub.control(clear_fault=stall_id)
    for kind, reader in waiting.items():
        out, _ = reader.communicate(timeout=90)
        check_equal(out, data[11 * MIB:11 * MIB + 4096].hex(), f"{kind}: bytes after recovery")
    mount.umount()


if __name__ == "__main__":
    main([test_300_stalled_reads, test_lazy_umount_with_parked_reads, test_signals_at_1_khz,
          test_stalled_lookups, test_exit_with_an_asynchronous_read, test_half_cached_file], 190)
