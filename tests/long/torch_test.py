#!/usr/bin/python3
"""Debian's numpy and torch read weights from the mount: mapped, loaded, mapped by torch itself.

What is mapped is fetched where it is touched; torch.load of a zip file reads what the file lists.
A storage that torch maps shared wants to write, and is refused as on any read-only disk.
Exit status 77 when python3-numpy is not installed; the torch cases say so when python3-torch is not.
"""

from longlib import *

try:
    import numpy
except ImportError:
    skip("python3-numpy is not installed")
try:
    import torch
except ImportError:
    torch = None

TENSORS, TENSOR_BYTES = 24, 3 * MIB


def parse_header(data):
    """A safetensors header by its specification: name to (dtype, shape, first byte, last)."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    return {name: (entry["dtype"], entry["shape"], *(8 + length + o for o in entry["data_offsets"]))
            for name, entry in header.items()}


def test_numpy_memmap():
    folder = scratch()
    arrays = {f"layer.{i}": numpy.random.default_rng(i).standard_normal(TENSOR_BYTES // 4)
              .astype("float32").reshape(256, -1) for i in range(TENSORS)}
    data = safetensors([(name, "F32", list(a.shape), a.tobytes()) for name, a in arrays.items()], pad=3)
    write(f"{folder}/o/org/a/model.safetensors", data)
    hub = Hub(f"{folder}/o", shape="direct")
    mount = Mount(hub, folder)
    path = mount.path("org/a/model.safetensors")
    hub.control(reset_counters=1)
    with open(path, "rb") as file:
        head = file.read(8)
        head += file.read(struct.unpack("<Q", head)[0])
    tensors = parse_header(head)
    check_equal(sorted(tensors), sorted(arrays), "names")

    def mapped(name, mode):
        _, shape, first, last = tensors[name]
        check_equal(last - first, arrays[name].nbytes, name)
        # Offsets of tensors need not be aligned: map bytes, then view them.
        raw = numpy.memmap(path, dtype="u1", mode=mode, offset=first, shape=(last - first,))
        return raw, numpy.frombuffer(raw, dtype="<f4").reshape(shape)

    touched = (("layer.3", "r"), ("layer.17", "c"))
    for name, mode in touched:
        _, view = mapped(name, mode)
        check(numpy.array_equal(view[100], arrays[name][100]), f"a row of {name} mapped {mode}")
    sent = hub.body_bytes()
    note(f"a row of 2 of {TENSORS} tensors of {TENSOR_BYTES} bytes: {sent} bytes fetched of {len(data)}")
    # 3 MiB a touch, as much around the header and again for having read it in order.
    check(sent <= 4 * 3 * MIB, f"fetched {sent}")
    for name, mode in touched:
        _, view = mapped(name, mode)
        check(numpy.array_equal(view, arrays[name]), f"{name} mapped {mode}")
    # Copy on write: what is changed is ours alone.
    raw, _ = mapped("layer.3", "c")
    raw[:4] = 7
    _, again = mapped("layer.3", "r")
    check(numpy.array_equal(again, arrays["layer.3"]), "a private change shows elsewhere")
    for name in arrays:
        _, view = mapped(name, "r")
        check(numpy.array_equal(view, arrays[name]), name)
    check(hub.body_bytes() <= len(data) * 1.01 + 2 * MIB, f"fetched {hub.body_bytes()} in all")
    del _, raw, view, again  # mappings keep a mount busy
    mount.umount()


def test_torch_load():
    if torch is None:
        note("left out: python3-torch is not installed")
        return
    folder = scratch()
    torch.manual_seed(1)
    state = {f"block.{i}.weight": torch.randn(512, 512) for i in range(8)}
    state["step"] = torch.tensor(41)
    state["half"] = torch.randn(1000).to(torch.bfloat16)
    os.makedirs(f"{folder}/o/org/t")
    origin = f"{folder}/o/org/t/pytorch_model.bin"
    torch.save(state, origin)
    write(f"{folder}/o/org/t/optimizer.bin", noise(20 * MIB, 9))
    storage = noise(4 * MIB, 5)
    write(f"{folder}/o/org/t/storage.raw", storage)
    hub = Hub(f"{folder}/o", shape="direct")
    mount = Mount(hub, folder)
    hub.control(reset_counters=1)
    loaded = torch.load(mount.path("org/t/pytorch_model.bin"), map_location="cpu")
    check_equal(sorted(loaded), sorted(state), "names")
    for name, wanted in state.items():
        check(torch.equal(loaded[name], wanted), name)
    sent, size = bytes_by_file(hub), os.path.getsize(origin)
    note(f"torch {torch.__version__}: fetched {sent['pytorch_model.bin']} of {size} bytes")
    check(sent["pytorch_model.bin"] <= size * 1.01 + 2 * MIB, f"fetched {sent}")
    check("optimizer.bin" not in sent, f"the file beside it was touched: {sent}")

    path = mount.path("org/t/storage.raw")
    private = torch.ByteStorage.from_file(path, False, len(storage))
    ends = torch.tensor([], dtype=torch.uint8).set_(private)
    check(ends[:4096].numpy().tobytes() == storage[:4096], "a storage that is mapped privately")
    check(ends[-4096:].numpy().tobytes() == storage[-4096:], "its end")
    private[0] = (storage[0] + 1) % 256
    check_equal(sha_file(path), sha(storage), "the file after a private change")
    try:
        torch.ByteStorage.from_file(path, True, len(storage))
    except RuntimeError as error:
        check("Read-only file system" in str(error), f"torch says: {error}")
    else:
        raise Failed("a shared, writable mapping was made")
    del private, ends
    mount.umount()


if __name__ == "__main__":
    main([test_numpy_memmap, test_torch_load], 600)
