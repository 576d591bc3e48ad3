#!/usr/bin/env python3
"""onnxruntime runs a real model from the mount, by path and by name, and computes the same.

The model is silero's voice activity detector, as the npm package @ricky0123/vad-web ships it.
Exit status 77 when node, npm or the packages cannot be had.
"""

from longlib import *

SCRIPT = """
import ort from "onnxruntime-node";
const session = await ort.InferenceSession.create(process.argv[2], { executionProviders: ["cpu"] });
const audio = Float32Array.from({ length: 512 }, (_, i) => Math.sin(i / 7) * 0.4 + Math.sin(i / 3) * 0.2);
let state = new ort.Tensor("float32", new Float32Array(256), [2, 1, 128]);
const out = [];
for (let i = 0; i < 5; i++) {
  const result = await session.run({ input: new ort.Tensor("float32", audio, [1, 512]), state,
    sr: new ort.Tensor("int64", BigInt64Array.from([16000n]), []) });
  state = result.stateN;
  out.push(Buffer.from(result.output.data.buffer).toString("hex"));
}
console.log(session.inputNames.join(), out.join());
"""
DATA = ("resolve", "resolve-cache", "cdn")


def test_inference():
    packages = npm_packages("onnxruntime-node", "@ricky0123/vad-web", is_bare=True)
    folder = scratch()
    shipped = f"{packages}/node_modules/@ricky0123/vad-web/dist"
    for name in ("silero_vad_v5.onnx", "silero_vad_legacy.onnx"):
        with open(f"{shipped}/{name}", "rb") as file:
            write(f"{folder}/o/org/vad/onnx/{name}", file.read())
    write(f"{folder}/o/org/vad/config.json", b"{}")
    path = f"{folder}/o/org/vad/onnx/silero_vad_v5.onnx"
    wanted = node(packages, SCRIPT, path)
    check(wanted.startswith("input,state,sr "), f"onnxruntime says {wanted}")
    hub = Hub(f"{folder}/o", shape="direct")
    mount = Mount(hub, folder)
    hub.control(reset_counters=1)
    check_equal(node(packages, SCRIPT, mount.path("org/vad/onnx/silero_vad_v5.onnx")), wanted, "by path")
    sent, counters = bytes_by_file(hub), hub.counters()
    names = sum(count for endpoint, count in counters["requests_by_endpoint"].items()
                if endpoint not in DATA)
    size = os.path.getsize(path)
    note(f"fetched {sent['silero_vad_v5.onnx']} of {size} bytes, {names} requests about names")
    check(sent["silero_vad_v5.onnx"] <= size + MIB, f"fetched {sent}")
    check("silero_vad_legacy.onnx" not in sent, f"the model beside it was touched: {sent}")
    check(names <= 10, f"requests that are not data: {counters['requests_by_endpoint']}")

    # By name, as a client resolves it; the bytes are here already.
    repo = mount.path(".hf/hub/models--org--vad")
    hub.control(reset_counters=1)
    with open(f"{repo}/refs/main") as file:
        commit = file.read()
    by_name = f"{repo}/snapshots/{commit}/onnx/silero_vad_v5.onnx"
    check_equal(node(packages, SCRIPT, by_name), wanted, "by name")
    check_equal(hub.body_bytes(), 0, "bytes fetched again")
    hub.stop()
    mount.remount(offline="yes")
    check_equal(node(packages, SCRIPT, by_name), wanted, "offline")
    mount.umount()


if __name__ == "__main__":
    main([test_inference], 900)
