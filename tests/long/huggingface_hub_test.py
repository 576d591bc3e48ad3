#!/usr/bin/env python3
"""huggingface_hub itself: models by name from the view, `cake serve` and a mirror as its hub.

It is looked for where `python3` finds it; exit status 77 when it is not there.
"""

from longlib import *

CLIENT = """
import json, os, sys
import huggingface_hub as hf

def name_of_error(ask, *words, **options):
    try:
        return "found " + str(ask(*words, **options))
    except Exception as error:
        return type(error).__name__

kind, cache = sys.argv[1:]
said = {"paths": []}
for repo, revision, repo_type in (("org/model", "main", "model"), ("org/model", "v1", "model"),
                             ("org/data", "main", "dataset"), ("org/other", "main", "model")):
    if kind != "lazily" or repo == "org/other":
        said["paths"].append(hf.snapshot_download(repo, revision=revision, repo_type=repo_type))
said["file"] = hf.hf_hub_download("org/other", "model.safetensors")
said["no repo"] = name_of_error(hf.hf_hub_download, "org/none", "config.json")
said["no file"] = name_of_error(hf.hf_hub_download, "org/model", "none")
said["no revision"] = name_of_error(hf.snapshot_download, "org/model", revision="none")
if kind == "hub":
    api = hf.HfApi()
    said["models"] = sorted(model.id for model in api.list_models(author="org"))
    said["files"] = api.list_repo_files("org/model")
    said["refs"] = [ref.name for ref in api.list_repo_refs("org/model").branches]
    said["exist"] = [api.repo_exists("org/none"), api.repo_exists("org/model"),
                     api.file_exists("org/model", "none"), api.revision_exists("org/model", "v1")]
    said["tensors"] = sorted(hf.get_safetensors_metadata("org/model").files_metadata
                             ["model.safetensors"].tensors)
else:
    found = hf.scan_cache_dir()
    said["warnings"] = [str(warning) for warning in found.warnings]
    said["repos"] = sorted(repo.repo_id for repo in found.repos)
print(json.dumps(said))
"""
FILES = {"org/model": ["config.json", "empty", "model.safetensors", "sub dir/odd +%é.txt"],
         "org/model@v1": ["config.json"], "datasets/org/data": ["train.csv"],
         "org/other": ["config.json", "model.safetensors"]}
MISSING_AT_HUB = {"no repo": "RepositoryNotFoundError", "no file": "RemoteEntryNotFoundError",
                  "no revision": "RevisionNotFoundError"}
MISSING_OFFLINE = dict.fromkeys(("no repo", "no file", "no revision"), "LocalEntryNotFoundError")


def origin(folder):
    for i, (repo, files) in enumerate(FILES.items()):
        for name in files:
            data = (safetensors([("t", "U8", [3 * MIB + i], noise(3 * MIB + i, i)), ("u", "F32", [10], noise(40, i))])
                    if name.endswith(".safetensors") else b"" if name == "empty" else f"{repo} {name}".encode())
            write(f"{folder}/o/{repo}/{name}", data)
    return f"{folder}/o"


def client(folder, kind, cache, **environment):
    if run("python3", "-c", "import huggingface_hub").returncode != 0:
        skip("python3 has no huggingface_hub")
    script = f"{folder}/client.py"
    write(script, CLIENT.encode())
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = run("python3", script, kind, cache, timeout=300,
               env={**clean, "HF_HOME": f"{folder}/home", "HF_HUB_CACHE": cache, **environment})
    check(done.returncode == 0, f"huggingface_hub, {kind}: {done.stderr[-3000:]}")
    return json.loads(done.stdout)


def tree_of(top):
    """Path to link target or digest; without what clients keep for themselves."""
    found = {}
    for parent, folders, names in os.walk(top):
        folders[:] = [name for name in folders if name not in (".locks", ".no_exist")]
        for name in folders + names:
            path = os.path.join(parent, name)
            if os.path.islink(path):
                found[os.path.relpath(path, top)] = os.readlink(path)
            elif os.path.isfile(path):
                found[os.path.relpath(path, top)] = sha_file(path)
    return found


def check_paths(said, source):
    for path, repo in zip(said["paths"], FILES):
        for name in FILES[repo]:
            check_equal(sha_file(f"{path}/{name}"), sha_file(f"{source}/{repo}/{name}"), f"{repo}/{name}")


def check_missing(said, wanted):
    for what, error in wanted.items():
        check_equal(said[what], error, what)


def test_hub():
    folder = scratch()
    source = origin(folder)
    server = Server([CAKE, "serve", source, "--listen", "127.0.0.1:0"])
    said = client(folder, "hub", f"{folder}/cache", HF_ENDPOINT=server.url)
    check_paths(said, source)
    check_missing(said, MISSING_AT_HUB)
    check_equal(said["models"], ["org/model", "org/other"], "models")
    check_equal(said["files"], FILES["org/model"], "files")
    check_equal(said["refs"], ["main", "v1"], "refs")
    check_equal(said["exist"], [False, True, False, True], "exist")
    check_equal(said["tensors"], ["t", "u"], "tensors")
    server.stop()


def test_mirror():
    folder = scratch()
    source = origin(folder)
    hub = Hub(source)
    mirror = Server([CAKE, "--store", f"{folder}/mirror", "--endpoint", hub.url, "--token-file",
                     "/dev/null", "serve", "hf:", "--listen", "127.0.0.1:0"])
    for name in ("one", "two"):
        hub.control(reset_counters=1)
        said = client(folder, "hub", f"{folder}/{name}", HF_ENDPOINT=mirror.url)
        check_paths(said, source)
        check_missing(said, MISSING_AT_HUB)
        note(f"client {name}: {hub.body_bytes()} bytes of files from the hub")
    check_equal(hub.body_bytes(), 0, "bytes for the second client")
    mirror.stop()


def test_view():
    folder = scratch()
    source = origin(folder)
    hub = Hub(source)
    mount = Mount(hub, folder)
    view = mount.path(".hf/hub")
    hub.control(reset_counters=1)
    # One model by its name, which nobody here has heard of.
    said = client(folder, "lazily", view, HF_HUB_OFFLINE="1")
    check_missing(said, MISSING_OFFLINE)
    sent = bytes_by_file(hub)
    check("model.safetensors" not in sent, f"fetched without being read: {sent}")
    check_equal(sha_file(said["file"]), sha_file(f"{source}/org/other/model.safetensors"), "by name")
    said = client(folder, "all", view, HF_HUB_OFFLINE="1")
    check_paths(said, source)
    check_missing(said, MISSING_OFFLINE)
    check_equal((said["warnings"], said["repos"]), ([], ["org/data", "org/model", "org/other"]), "scan")
    # What the client makes by downloading.
    server = Server([CAKE, "serve", source, "--listen", "127.0.0.1:0"])
    client(folder, "hub", f"{folder}/cache", HF_ENDPOINT=server.url)
    server.stop()
    made, shown = tree_of(f"{folder}/cache"), tree_of(view)
    made.pop("CACHEDIR.TAG", None)
    trees = {path: digest for path, digest in made.items() if "/trees/" in path}
    for path, digest in trees.items():
        check_equal(sha_file(f"{view}/{path}"), digest, path)  # there when asked for
    check_equal(shown, {path: what for path, what in made.items() if path not in trees}, "the view")
    # Another process, no hub.
    hub.stop()
    mount.remount(offline="yes")
    said = client(folder, "all", view, HF_HUB_OFFLINE="1")
    check_paths(said, source)
    check_missing(said, MISSING_OFFLINE)
    mount.umount()


if __name__ == "__main__":
    main([test_hub, test_mirror, test_view], 600)
