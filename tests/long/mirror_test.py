#!/usr/bin/env python3
"""The mirror for strangers: the hub's JavaScript client, and nginx with slices in front.

Exit status 77 when node, npm or the package cannot be had; the nginx case says so when it is left out.
"""

import socket
import urllib.error

from longlib import *

DOWNLOAD = """
import { downloadFile, fileDownloadInfo, listFiles, listModels, snapshotDownload } from "@huggingface/hub";
import { createHash } from "node:crypto";
const [hubUrl, cacheDir] = process.argv.slice(2);
console.debug = () => {};
const all = async (list) => { const out = []; for await (const one of list) out.push(one); return out; };
const models = (await all(listModels({ search: { owner: "org" }, hubUrl }))).map((m) => m.name);
if (models.join() !== "org/model") throw new Error("models: " + models);
await snapshotDownload({ repo: "org/model", revision: "main", hubUrl, cacheDir });
const info = await fileDownloadInfo({ repo: "org/model", path: "model.safetensors", hubUrl });
const blob = await downloadFile({ repo: "org/model", path: "model.safetensors", hubUrl });
const hash = createHash("sha256").update(Buffer.from(await blob.arrayBuffer())).digest("hex");
const files = await all(listFiles({ repo: "org/model", recursive: true, hubUrl }));
const absent = await downloadFile({ repo: "org/model", path: "nope", hubUrl });
console.log(JSON.stringify({ size: info.size, hash, files: files.length, absent }));
"""

NGINX = """
daemon off; pid {dir}/pid; error_log {dir}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/temp;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  proxy_cache_path {dir}/cache keys_zone=hub:1m max_size=1g;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      slice 1m;
      proxy_cache hub;
      proxy_cache_key $uri$is_args$args$slice_range;
      proxy_cache_lock on;
      proxy_set_header Range $slice_range;
      proxy_set_header Host $http_host;
      proxy_http_version 1.1;
      proxy_pass {mirror};
      add_header X-Cache $upstream_cache_status;
    }}
  }}
}}
"""


def made(folder):
    weights = noise(9 * MIB + 11, 4)
    files = {"model.safetensors": weights, "config.json": b"{}", "sub dir/é.txt": b"odd"}
    for name, data in files.items():
        write(f"{folder}/o/org/model/{name}", data)
    hub = Hub(f"{folder}/o")
    mirror = Server([CAKE, "--store", f"{folder}/mirror", "--endpoint", hub.url, "--token-file",
                     "/dev/null", "serve", "hf:", "--listen", "127.0.0.1:0"])
    check(mirror.url.startswith("http://"), "cake serve did not start")
    return hub, mirror, files


def test_javascript_client():
    packages = npm_packages("@huggingface/hub")
    folder = scratch()
    hub, mirror, files = made(folder)
    hub.control(reset_counters=1)
    said = json.loads(node(packages, DOWNLOAD, mirror.url, f"{folder}/cache"))
    check_equal(said, {"size": len(files["model.safetensors"]), "files": 4,
                       "hash": sha(files["model.safetensors"]), "absent": None}, "the client says")
    total = sum(len(data) for data in files.values())
    check(hub.body_bytes() <= total * 1.01 + MIB, f"{hub.body_bytes()} bytes from the hub for {total}")
    cached = f"{folder}/cache/models--org--model"
    with open(f"{cached}/refs/main") as file:
        commit = file.read()
    for name, data in files.items():
        check_equal(sha_file(f"{cached}/snapshots/{commit}/{name}"), sha(data), name)


def ask(url, first, last):
    request = urllib.request.Request(url, headers={"Range": f"bytes={first}-{last}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.status, answer.headers.get("X-Cache"), answer.read()


def test_nginx_in_front():
    if not shutil.which("nginx"):
        note("left out: nginx is not installed")
        return
    folder = scratch()
    hub, mirror, files = made(folder)
    weights = files["model.safetensors"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = f"{folder}/nginx"
    os.mkdir(place)
    os.chmod(folder, 0o755)
    write(f"{place}/conf", ("user root;" + NGINX.format(dir=place, port=port, mirror=mirror.url)).encode())
    front = Server(["nginx", "-p", place, "-c", f"{place}/conf"], f"http://127.0.0.1:{port}")

    def is_up():
        try:
            urllib.request.urlopen(front.url + "/api/models", timeout=10).close()
            return True
        except (urllib.error.URLError, ConnectionError):
            return False

    wait_until(is_up, "nginx answers", 60)
    with urllib.request.urlopen(front.url + "/api/models/org/model", timeout=60) as answer:
        commit = json.load(answer)["sha"]
    url = f"{front.url}/org/model/resolve/{commit}/model.safetensors"
    for first, last in ((0, 99), (MIB - 5, 3 * MIB + 7), (len(weights) - 10, len(weights) - 1)):
        status, _, body = ask(url, first, last)
        check_equal((status, sha(body)), (206, sha(weights[first:last + 1])), f"{first}-{last}")
    # The branch's URL leads to the commit's, so it is kept as well.
    status, _, body = ask(f"{front.url}/org/model/resolve/main/model.safetensors", 5 * MIB, 6 * MIB)
    check_equal((status, sha(body)), (206, sha(weights[5 * MIB:6 * MIB + 1])), "by branch")
    # Nobody behind nginx any more: what was asked for is served by nginx itself.
    mirror.stop()
    hub.stop()
    for first, last in ((0, 99), (MIB + 17, 2 * MIB + 99), (5 * MIB, 6 * MIB)):
        status, cache, body = ask(url, first, last)
        check_equal((status, cache, sha(body)), (206, "HIT", sha(weights[first:last + 1])),
                    f"{first}-{last} from nginx alone")
    front.stop()


def test_three_mounts():
    """Three mounts at once, through the mirror: each byte leaves the hub once."""
    folder = scratch()
    hub, mirror, files = made(folder)
    hub.control(reset_counters=1)
    mounts = []
    for i in range(3):
        os.mkdir(f"{folder}/{i}")
        mounts.append(Mount(mirror, f"{folder}/{i}"))

    def read_all(i):
        for name, data in files.items():
            check_equal(sha_file(mounts[i].path("org/model", name)), sha(data), name)

    in_threads(3, read_all)
    total = sum(len(data) for data in files.values())
    note(f"{hub.body_bytes()} bytes from the hub for {total}, three readers")
    check(hub.body_bytes() <= total * 1.01 + 2 * MIB, f"{hub.body_bytes()} bytes for {total}")
    for mount in mounts:
        mount.umount()


if __name__ == "__main__":
    main([test_nginx_in_front, test_three_mounts, test_javascript_client], 600)
