# ctest: timeout=120
"""subdir=, include= and exclude=: what of a repo a mount shows, in either layout."""

import os

from mountlib import *


def made_hub():
    hub = Hub()
    for name in ("config.json", "model.safetensors", "pytorch_model.bin", "unet/config.json",
                 "unet/model.bin", "unet/deep/er.txt", "vae/config.json", "unet2/x.json"):
        hub.text("org/pipe", name, name)
    hub.text("org/plain", "config.json", "plain")
    return hub


def tree(root):
    return sorted(os.path.relpath(os.path.join(where, name), root)
                  for where, _, names in os.walk(root) for name in names)


def refused(hub, source, **options):
    folder = scratch()
    os.mkdir(f"{folder}/mnt")
    words = ",".join(f"{k}={v}" for k, v in {"endpoint": hub.url, "store": f"{folder}/s", **options}.items())
    done = run(CAKE, "mount", source, f"{folder}/mnt", "-o", words)
    check(not os.path.ismount(f"{folder}/mnt"), f"{source} {options} was mounted")
    return done


def test_include_and_exclude():
    hub = made_hub()
    mount = Mount(hub, scratch(), include="*.json;*.txt", exclude="vae/")
    check_equal(tree(mount.path("org/pipe")),
                ["config.json", "unet/config.json", "unet/deep/er.txt", "unet2/x.json"], "what is shown")
    check_equal(sorted(os.listdir(mount.path("org/pipe"))), ["config.json", "unet", "unet2"], "no empty folder")
    for hidden in ("model.safetensors", "vae", "vae/config.json", "unet/model.bin"):
        check(not os.path.exists(mount.path("org/pipe", hidden)), f"{hidden} is hidden")
    check_equal(open(mount.path("org/pipe/unet/deep/er.txt")).read(), "unet/deep/er.txt", "bytes")
    # The Hugging Face view keeps its shape, without what is hidden.
    commit = open(mount.path(".hf/hub/models--org--pipe/refs/main")).read()
    view = mount.path(".hf/hub/models--org--pipe/snapshots", commit)
    check_equal(open(os.path.join(view, "unet/config.json")).read(), "unet/config.json", "through the view")
    check(not os.path.lexists(os.path.join(view, "model.safetensors")), "hidden in the view too")
    # A mount of the same store with another choice shows its own.
    other = Mount(hub, scratch(), store=mount.store, exclude="*.json")
    check_equal(tree(other.path("org/pipe")),
                ["model.safetensors", "pytorch_model.bin", "unet/deep/er.txt", "unet/model.bin"], "the other choice")


def test_subdir():
    hub = made_hub()
    mount = Mount(hub, scratch(), subdir="unet/")
    check_equal(tree(mount.path("org/pipe")), ["config.json", "deep/er.txt", "model.bin"], "the folder's files")
    check_equal(open(mount.path("org/pipe/config.json")).read(), "unet/config.json", "the folder's file")
    check(not os.path.exists(mount.path("org/plain")), "a repo without the folder")
    one = Mount(hub, scratch(), source="hf:org/pipe/unet", exclude="unet/deep/")
    check_equal(tree(one.directory), ["config.json", "model.bin"], "a mount of a folder")
    one.remount(offline="yes")
    check_equal(tree(one.directory),
                ["config.json", "model.bin"], "the same offline")


def test_what_cannot_be_shown():
    hub = made_hub()
    done = refused(hub, "hf:org/pipe/nowhere")
    check_equal(done.returncode, 32, f"exit status: {done.stderr}")
    check("no folder nowhere" in done.stderr, f"says why: {done.stderr}")
    done = refused(hub, "hf:", subdir="../up")
    check("subdir" in done.stderr, f"says why: {done.stderr}")


if __name__ == "__main__":
    main([test_include_and_exclude, test_subdir, test_what_cannot_be_shown], 110)
