#!/usr/bin/env python3
"""transformers.js loads a model by its name: from the mount, and from the hub that a mirror is.

The model is silero's voice activity detector, as the npm package @ricky0123/vad-web ships it.
Exit status 77 when node, npm or the packages cannot be had.
"""

from longlib import *

SCRIPT = """
import { AutoModel, Tensor, env } from "@huggingface/transformers";
const [from, name, cache] = process.argv.slice(2);
if (from.startsWith("http")) {
  env.remoteHost = from;
  env.allowLocalModels = false;
  env.cacheDir = cache;
} else {
  env.localModelPath = from;
  env.allowRemoteModels = false;
  env.useFSCache = false;
}
let model;
try {
  model = await AutoModel.from_pretrained(name, { dtype: "fp32", device: "cpu" });
} catch (error) {
  console.log(error.name + " " + error.status);
  process.exit(0);
}
const audio = Float32Array.from({ length: 512 }, (_, i) => Math.sin(i / 7) * 0.4 + Math.sin(i / 3) * 0.2);
let state = new Tensor("float32", new Float32Array(256), [2, 1, 128]);
const sr = new Tensor("int64", [16000n], []);
const out = [];
for (let i = 0; i < 5; i++) {
  const result = await model({ input: new Tensor("float32", audio, [1, 512]), state, sr });
  state = result.stateN;
  out.push(Buffer.from(result.output.data.buffer).toString("hex"));
}
console.log(out.join());
"""
DATA = ("resolve", "resolve-cache", "cdn")


def made(folder, packages):
    shipped = f"{packages}/node_modules/@ricky0123/vad-web/dist"
    for onnx, name in (("silero_vad_v5", "model"), ("silero_vad_legacy", "model_fp16")):
        with open(f"{shipped}/{onnx}.onnx", "rb") as file:
            write(f"{folder}/o/org/vad/onnx/{name}.onnx", file.read())
    write(f"{folder}/o/org/vad/config.json", b'{"model_type": "custom"}')


def test_by_name():
    packages = npm_packages("@huggingface/transformers", "@ricky0123/vad-web", is_scriptless=True)
    folder = scratch()
    made(folder, packages)
    size = os.path.getsize(f"{folder}/o/org/vad/onnx/model.onnx")
    wanted = node(packages, SCRIPT, f"{folder}/o", "org/vad")
    check(len(wanted) > 40, f"from the folder: {wanted}")
    hub = Hub(f"{folder}/o")
    mount = Mount(hub, folder)
    hub.control(reset_counters=1)
    check_equal(node(packages, SCRIPT, mount.directory, "org/vad"), wanted, "from the mount")
    sent, counters = bytes_by_file(hub), hub.counters()
    names = sum(count for endpoint, count in counters["requests_by_endpoint"].items()
                if endpoint not in DATA)
    note(f"fetched {sent} for a model of {size} bytes, {names} requests about names")
    check(sent["model.onnx"] <= size + MIB, f"fetched {sent}")
    check("model_fp16.onnx" not in sent, f"the model beside it was touched: {sent}")
    check(names <= 10, f"requests that are not data: {counters['requests_by_endpoint']}")
    check_equal(node(packages, SCRIPT, mount.directory, "org/none").split()[0],
                "ModelFileNotFoundError", "a wrong name")
    hub.stop()
    mount.remount(offline="yes")
    check_equal(node(packages, SCRIPT, mount.directory, "org/vad"), wanted, "offline")
    mount.umount()


def test_through_a_mirror():
    packages = npm_packages("@huggingface/transformers", "@ricky0123/vad-web", is_scriptless=True)
    folder = scratch()
    made(folder, packages)
    wanted = node(packages, SCRIPT, f"{folder}/o", "org/vad")
    hub = Hub(f"{folder}/o")
    mirror = Server([CAKE, "--store", f"{folder}/mirror", "--endpoint", hub.url, "--token-file",
                     "/dev/null", "serve", "hf:", "--listen", "127.0.0.1:0"])
    check(mirror.url.startswith("http://"), "cake serve did not start")
    for client in ("one", "two"):
        hub.control(reset_counters=1)
        check_equal(node(packages, SCRIPT, f"{mirror.url}/", "org/vad", f"{folder}/{client}"), wanted, client)
        note(f"client {client}: {hub.body_bytes()} bytes from the hub")
    check_equal(hub.body_bytes(), 0, "bytes fetched for the second client")
    check_equal(node(packages, SCRIPT, f"{mirror.url}/", "org/none", f"{folder}/none").split()[0],
                "ModelFileNotFoundError", "a wrong name")
    mirror.stop()


if __name__ == "__main__":
    main([test_by_name, test_through_a_mirror], 900)
