#!/usr/bin/env python3
"""The hub's own JavaScript client beside /.hf/hub: its downloads, its scan, its reads.

A cache that the client made by downloading is, byte for byte, link for link and ref for ref, what
the view shows of the same repos.  Exit status 77 when node, npm or the package cannot be had.
"""

from longlib import *

DOWNLOAD = """
import { snapshotDownload } from "@huggingface/hub";
const [hubUrl, cacheDir] = process.argv.slice(2);
console.debug = () => {};
for (const [repo, revision] of [["org/model", "main"], ["org/model", "v1"], ["datasets/org/data", "main"],
                                ["org/small", "main"]])
  await snapshotDownload({ repo, revision, hubUrl, cacheDir });
"""

SCAN = """
import { scanCacheDir } from "@huggingface/hub";
const found = await scanCacheDir(process.argv[2]);
if (found.warnings.length) throw new Error("warnings: " + found.warnings);
const by = (key) => (a, b) => (key(a) < key(b) ? -1 : 1);
console.log(JSON.stringify(found.repos.map((repo) => ({
  id: repo.id, size: repo.size, files: repo.filesCount,
  revisions: repo.revisions.map((one) => ({
    commit: one.commitOid, refs: one.refs.sort(), size: one.size,
    files: one.files.map((file) => [file.path.split("/").pop(), file.blob.path.split("/").pop(), file.blob.size])
      .sort(by((file) => file[0])),
  })).sort(by((one) => one.commit)),
})).sort(by((repo) => repo.id.type + repo.id.name)), null, 1));
"""

READ = """
import { downloadFileToCacheDir, snapshotDownload } from "@huggingface/hub";
import { readFileSync } from "node:fs";
const [cacheDir, commit, hubUrl] = process.argv.slice(2);
const dead = () => { throw new Error("a request was made"); };
const path = await downloadFileToCacheDir({ repo: "org/model", path: "sub dir/part é.bin", revision: commit,
  cacheDir, fetch: dead });
process.stdout.write(path + "\\n" + readFileSync(path).toString("base64") + "\\n");
// All of it: two questions to the hub, no download, nothing written.
const folder = await snapshotDownload({ repo: "org/model", revision: commit, cacheDir, hubUrl });
process.stdout.write(folder + "\\n");
"""


def test_client_and_view():
    packages = npm_packages("@huggingface/hub")
    folder = scratch()
    origin = f"{folder}/o"
    weights, part = noise(15 * MIB + 3, 1), noise(300_000, 2)
    write(f"{origin}/org/model/model.safetensors", weights)
    write(f"{origin}/org/model/config.json", b'{"a": 1}\n')
    write(f"{origin}/org/model/copy.json", b'{"a": 1}\n')
    write(f"{origin}/org/model/sub dir/part é.bin", part)
    write(f"{origin}/org/model@v1/config.json", b'{"a": "v1"}\n')
    write(f"{origin}/org/small/README.md", b"small\n")
    write(f"{origin}/datasets/org/data/a/b/c.csv", b"1,2\n")
    hub = Hub(origin, shape="direct")
    real = f"{folder}/real"
    node(packages, DOWNLOAD, hub.url, real)

    mount = Mount(hub, folder)
    view = mount.path(".hf/hub")
    hub.control(reset_counters=1)
    # The names that were downloaded, looked up as an offline client does.
    for repo, revision in (("models--org--model", "main"), ("models--org--model", "v1"),
                           ("models--org--small", "main"), ("datasets--org--data", "main")):
        with open(f"{view}/{repo}/refs/{revision}", "rb") as file:
            commit = file.read().decode()
        check(os.path.isdir(f"{view}/{repo}/snapshots/{commit}"), f"the snapshot of {repo}@{revision}")
    check_equal(json.loads(node(packages, SCAN, view)), json.loads(node(packages, SCAN, real)),
                "the client's scan")
    check_equal(hub.body_bytes(), 0, "bytes of files that a scan fetches")

    with open(f"{view}/models--org--model/refs/main") as file:
        commit = file.read()
    lines = node(packages, READ, view, commit, hub.url).splitlines()
    check_equal(lines[0], f"{view}/models--org--model/snapshots/{commit}/sub dir/part é.bin", "the path")
    check(__import__("base64").b64decode(lines[1]) == part, "bytes that the client read")
    check_equal(lines[2], f"{view}/models--org--model/snapshots/{commit}", "the snapshot")
    sent = hub.body_bytes()
    note(f"{sent} bytes fetched for a file of {len(part)}")
    check(sent <= len(part) + MIB, f"{sent} bytes fetched")
    check("model.safetensors" not in bytes_by_file(hub), "a file was fetched that nobody read")

    for words in ([], ["--no-dereference"]):
        done = run("diff", "-r", *words, real, view, timeout=300)
        check_equal((done.returncode, done.stdout, done.stderr), (0, "", ""), f"diff -r {words}")
    check_equal(sha_file(f"{view}/models--org--model/blobs/{sha(weights)}"), sha(weights), "a blob")
    mount.umount()


if __name__ == "__main__":
    main([test_client_and_view], 900)
