#!/usr/bin/env python3
"""Real llama.cpp maps a GGUF from the mount and says the same as from the folder.

The model is random: the text means nothing, but every weight decides it.  node-llama-cpp reads the
tail of the file first and then the head; llama.cpp maps it whole, with MAP_POPULATE.
Exit status 77 when node, npm or the packages cannot be had.
"""

from longlib import *

WIDTH, HIDDEN, LAYERS, HEADS = 256, 512, 5, 4

GGUF_U32, GGUF_F32, GGUF_STRING, GGUF_ARRAY, GGUF_I32 = 4, 6, 8, 9, 5
TENSOR_F32, TENSOR_F16 = 0, 1

SCRIPT = """
import { getLlama, LlamaCompletion, readGgufFileInfo } from "node-llama-cpp";
const path = process.argv[2];
const info = await readGgufFileInfo(path);
const llama = await getLlama({ gpu: false, build: "never", skipDownload: true, logLevel: "error" });
const model = await llama.loadModel({ modelPath: path, useMmap: true, gpuLayers: 0 });
const context = await model.createContext({ contextSize: 128, threads: 2 });
const completion = new LlamaCompletion({ contextSequence: context.getSequence() });
const text = await completion.generateCompletion("the mount says", { maxTokens: 32, temperature: 0 });
console.log(JSON.stringify({ name: info.metadata.general.name, text }));
await llama.dispose();
"""


def gguf_string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def gguf_value(value):
    if isinstance(value, str):
        return GGUF_STRING, gguf_string(value)
    if isinstance(value, float):
        return GGUF_F32, struct.pack("<f", value)
    if isinstance(value, int):
        return GGUF_U32, struct.pack("<I", value)
    # Arrays hold strings, floats or signed numbers.
    kind = {str: GGUF_STRING, float: GGUF_F32, int: GGUF_I32}[type(value[0])]
    items = b"".join(struct.pack("<i", item) if kind == GGUF_I32 else gguf_value(item)[1]
                     for item in value)
    return GGUF_ARRAY, struct.pack("<IQ", kind, len(value)) + items


def random_gguf(seed):
    """A LLaMA with a vocabulary of bytes and letters, 7 MB of F16."""
    letters = ["\u2581"] + [chr(i) for i in range(33, 127)] + [a + b for a in "aeiou" for b in "rstln"]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)] + letters
    kinds = [2, 3, 3] + [6] * 256 + [1] * len(letters)
    facts = {
        "general.architecture": "llama", "general.name": f"noise {seed}", "general.file_type": 1,
        "llama.context_length": 256, "llama.embedding_length": WIDTH, "llama.block_count": LAYERS,
        "llama.feed_forward_length": HIDDEN, "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": HEADS, "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": WIDTH // HEADS, "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(i) for i in range(len(tokens))],
        "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
    }
    shapes = {"token_embd": [WIDTH, len(tokens)], "output_norm": [WIDTH],
              "output": [WIDTH, len(tokens)]}
    for i in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes[f"blk.{i}.{name}"] = [WIDTH, WIDTH]
        for name in ("ffn_gate", "ffn_up"):
            shapes[f"blk.{i}.{name}"] = [WIDTH, HIDDEN]
        shapes[f"blk.{i}.ffn_down"] = [HIDDEN, WIDTH]
        for name in ("attn_norm", "ffn_norm"):
            shapes[f"blk.{i}.{name}"] = [WIDTH]
    rng = random.Random(seed)
    head, body = b"", b""
    for name, shape in shapes.items():
        # Norms are 1; the rest is small noise: six bits of mantissa around 2^-4, with a sign.
        if len(shape) == 1:
            kind, data = TENSOR_F32, struct.pack("<f", 1.0) * shape[0]
        else:
            count = shape[0] * shape[1]
            noise_bytes = rng.randbytes(count)
            data = b"".join(_half[value] for value in noise_bytes)
            kind = TENSOR_F16
        head += (gguf_string(name + ".weight") + struct.pack("<I", len(shape)) +
                 struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, len(body)))
        body += data + bytes(-len(data) % 32)
    start = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(facts))
    for key, value in facts.items():
        kind, data = gguf_value(value)
        start += gguf_string(key) + struct.pack("<I", kind) + data
    start += head
    return start + bytes(-len(start) % 32) + body


_half = [struct.pack("<e", (-1 if value & 128 else 1) * (64 + (value & 127)) / 1536)
         for value in range(256)]


def test_same_text():
    packages = npm_packages("node-llama-cpp", "@node-llama-cpp/linux-x64", is_bare=True)
    folder = scratch()
    model = random_gguf(7)
    note(f"a model of {len(model)} bytes")
    check(len(model) > 6_500_000, "the model is too small to mean anything")
    write(f"{folder}/o/org/noise-GGUF/noise-f16.gguf", model)
    write(f"{folder}/o/org/noise-GGUF/noise-q8.gguf", random_gguf(8))
    wanted = node(packages, SCRIPT, f"{folder}/o/org/noise-GGUF/noise-f16.gguf")
    other = node(packages, SCRIPT, f"{folder}/o/org/noise-GGUF/noise-q8.gguf")
    check(json.loads(wanted)["text"] != json.loads(other)["text"], "the weights decide the text")
    hub = Hub(f"{folder}/o", shape="direct")
    mount = Mount(hub, folder)
    path = mount.path("org/noise-GGUF/noise-f16.gguf")
    hub.control(reset_counters=1)
    check_equal(node(packages, SCRIPT, path), wanted, "from the mount, cold")
    sent = bytes_by_file(hub)
    note(f"{json.loads(wanted)['text']!r}; fetched {sent}")
    check(sent["noise-f16.gguf"] <= len(model) * 1.01 + 2 * MIB, f"fetched {sent}")
    check("noise-q8.gguf" not in sent, f"the file beside it was touched: {sent}")
    check_equal(sha_file(path), sha(model), "bytes")
    hub.stop()
    mount.remount(offline="yes")
    check_equal(node(packages, SCRIPT, path), wanted, "offline, warm")
    mount.umount()


if __name__ == "__main__":
    main([test_same_text], 900)
