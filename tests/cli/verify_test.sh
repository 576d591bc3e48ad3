#!/usr/bin/env bash
# verify, inspect, hash, diff, locate, du --by codec, import and export against a hub.
# ctest: asan timeout=240
# shellcheck source=tests/cli/clilib.sh
source "$(dirname "${BASH_SOURCE[0]}")/clilib.sh"

# Two fine-tunes: one tensor the same, one with a low bit changed here and there, one of its own.
mkdir -p "$work/repos/org/base" "$work/repos/org/tuned"
python3 - "$work/repos/org" <<'END' || exit 1
import json, random, struct, sys
chance = random.Random(5)
same, near = chance.randbytes(3 << 20), chance.randbytes(2 << 20)
def write(repo, tensors, pad):
    header, at, body = {}, 0, b""
    for name, data in tensors:
        header[name] = {"dtype": "BF16", "shape": [len(data) // 2], "data_offsets": [at, at + len(data)]}
        at += len(data)
        body += data
    text = json.dumps(header).encode() + b" " * pad
    open(f"{sys.argv[1]}/{repo}/model.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + body)
    open(f"{sys.argv[1]}/{repo}/config.json", "w").write(json.dumps({"name": repo}))
changed = bytearray(near)
for i in range(0, len(changed), 200):
    changed[i] ^= 1
write("base", [("same", same), ("near", near), ("base_only", b"\1" * 1000)], 8)
write("tuned", [("same", same), ("near", bytes(changed)), ("other", b"\2" * 500)], 64)
END
start_hub --dir "$work/repos"

# --- inspect, hash, locate: a header is fetched, weights are not ---
control reset_counters=1 >/dev/null
expect 0 inspect org/base/model.safetensors --json
json 'it["tensors"] == 3 and it["format"] == "safetensors" and it["cached"] < 1e6'
expect 0 inspect org/base --json
json '{row["file"] for row in it} == {"config.json", "model.safetensors"}'
expect 0 inspect org/base/model.safetensors --tensors --json
json '[row["tensor"] for row in it] == ["same", "near", "base_only"] and it[0]["shape"] == "1572864"'
expect 0 inspect org/base/model.safetensors --header
json 'set(it) == {"same", "near", "base_only"}'
expect 2 inspect org/base/config.json --header
expect 0 locate org/base/model.safetensors --json
json '{row["state"] for row in it} == {"cached", "missing"} and sum(row["length"] for row in it) > 5000000'
expect 0 pull org/base
expect 0 pull org/tuned
expect 0 inspect org/base/model.safetensors --tensors --json
json 'all(row["cached_percent"] == 100 and len(row["hash"]) == 64 for row in it)'
cp "$work/out" "$work/tensors"
expect 0 hash org/base --tensors --json
python3 - "$work/out" "$work/tensors" <<'END' || fail 'hash and inspect agree'
import json, sys
hashes, tensors = (json.load(open(path)) for path in sys.argv[1:])
assert [(t["tensor"], t["hash"]) for t in hashes] == [(t["tensor"], t["hash"]) for t in tensors]
END
expect 0 hash org/base/model.safetensors -q
stored=$(cat "$work/out")
expect 0 hash "$work/repos/org/base/model.safetensors" -q
[[ $(cat "$work/out") == "$stored" ]] || fail 'a plain file hashes as the stored one'
expect 2 hash org/base --scheme other
expect 0 --offline locate org/base/model.safetensors --json
json 'all(row["state"] == "cached" and row["pack"].endswith(".pack") for row in it)'
expect 3 locate org/base/absent
expect 3 locate "$work/repos/org/base/model.safetensors"

# --- diff: what is the same, what is near ---
expect 1 diff org/base/model.safetensors org/tuned/model.safetensors --tensors --json
json '{row["tensor"]: row["state"] for row in it} == {"same": "same", "near": "near", "base_only": "only in A", "other": "only in B"}'
json '[row["bits_differing"] for row in it if row["tensor"] == "near"] == [10486]'
expect 1 diff org/base org/tuned --json
json '{row["state"]: row["tensors"] for row in it}["different"] == 1'
expect 1 diff org/base "$work/repos/org/tuned" --json
expect 0 diff org/base/model.safetensors "$work/repos/org/base/model.safetensors"
expect 3 diff org/base org/absent

# --- verify: what is damaged is found, dropped, and fetched again when asked ---
expect 0 verify --json
json 'it["verified"] == 4 and not it["mismatched"] and not it["damaged"]'
expect 0 ls --json
json 'all(row["verified_percent"] == 100 for row in it)'
expect 0 stat --json org/base/model.safetensors
json 'it["verified"] is True'
# Flips a bit of the extent in the middle of the file.
flip() {
  expect 0 locate org/base/model.safetensors --extents --json
  python3 - "$work/out" <<'END' || fail 'flipping a bit'
import json, sys
rows = json.load(open(sys.argv[1]))
row = rows[len(rows) // 2]
with open(row["pack"], "r+b") as file:
    file.seek(row["at"] + row["stored"] // 2)
    byte = file.read(1)
    file.seek(-1, 1)
    file.write(bytes([byte[0] ^ 16]))
END
}
flip
expect 1 verify --json
json 'len(it["damaged"]) >= 1 and it["incomplete"] >= 1'
expect 0 verify org/base --json
json 'not it["damaged"]'
expect 0 pull org/base
flip
expect 0 verify --repair --json
json 'it["repaired"] and not it["damaged"]'
expect 0 pull org/base
expect 0 pull org/tuned
expect 0 verify --json
json 'it["verified"] == 4 and it["incomplete"] == 0'

# A folder of plain files.
expect 0 pull org/base --local-dir "$work/plain"
# A link that leads to itself is no file.
ln -s loop "$work/plain/loop"
expect 0 verify org/base "$work/plain" --fail-on-missing-files --fail-on-extra-files
expect 0 hash "$work/plain"
rm "$work/plain/loop"
touch "$work/plain/extra"
expect 0 verify org/base "$work/plain"
expect 1 verify org/base "$work/plain" --fail-on-extra-files
rm "$work/plain/extra"
printf x >>"$work/plain/config.json"
expect 1 verify org/base "$work/plain"
grep -q '^mismatched'$'\t''config.json$' "$work/out" || fail 'a changed file is named'
rm "$work/plain/config.json"
expect 0 verify org/base "$work/plain"
expect 1 verify org/base "$work/plain" --fail-on-missing-files

expect 0 du --by codec --json
json 'sum(row["encoded"] for row in it[:-1]) == it[-1]["encoded"] and it[-1]["codec"] == "TOTAL"'
expect 2 du org/base --by codec

# --- export, and back ---
expect 0 export org/base "$work/flat"
[[ $(cat "$work/out") == "$work/flat" ]] || fail 'export prints the folder'
diff -r "$work/repos/org/base" "$work/flat" || fail 'the exported folder is the same'
expect 0 export org/base "$work/flat" --json
json 'it["written"] == 0 and it["already_there"] == 2'
expect 0 export org/base "$work/hub" --layout hf
snapshot=$(cat "$work/out")
diff -r "$work/repos/org/base" "$snapshot" || fail 'the exported snapshot is the same'
[[ -L $snapshot/config.json && $(readlink "$snapshot/config.json") == ../../blobs/* ]] || fail 'links into blobs'
[[ $(cat "$work/hub/models--org--base/refs/main") == "$(basename "$snapshot")" ]] || fail 'refs/main'
# Blocks are shared where the disk can do that; elsewhere nothing is begun.
if cp --reflink=always "$work/out" "$work/probe" 2>/dev/null; then can_share=0; else can_share=2; fi
expect "$can_share" export org/base "$work/linked" --link reflink
if ((can_share == 0)); then
  diff -r "$work/repos/org/base" "$work/linked" || fail 'the linked folder is the same'
else
  grep -q 'cannot share blocks' "$work/err" || fail 'export says why it cannot link'
fi
expect 2 export org/base "$work/linked" --link hard
expect 0 --offline export org/base/config.json "$work/one"
[[ -f $work/one/config.json ]] || fail 'one file is exported'

# Another store takes the cache in, and serves it without the hub.
store=$work/second
printf lie >"$work/hub/models--org--base/blobs/$(printf '0%.0s' {1..40})"
ln -s "../../blobs/$(printf '0%.0s' {1..40})" "$snapshot/liar.txt"
expect 1 import "$work/hub" --json
json 'it[0]["adopted"] > 5000000 and it[0]["left_out"] == 1'
rm "$snapshot/liar.txt"
expect 0 import "$work/hub" --json
json 'it[0]["adopted"] == 0 and it[0]["already_there"] > 5000000'
expect 0 --offline cat org/base/model.safetensors
cmp -s "$work/out" "$work/repos/org/base/model.safetensors" || fail 'an imported file reads as before'
expect 3 import "$work/absent"

# A plain folder: nothing of it is fetched when a hub names the same files.
store=$work/third
expect 0 import "$work/repos/org/tuned" --name my/tuned --json
json 'it[0]["repo"] == "model/my/tuned" and it[0]["files"] == 2'
control reset_counters=1 >/dev/null
expect 0 pull org/tuned --json
json 'it["fetched"] == 0 and it["saved_by_dedupe"] > 5000000'
control counters=1 >"$work/out"
json '"resolve" not in it["counters"]["requests_by_endpoint"]'

# --- fsck: a flipped bit is found and repaired; an index that was lost is made again ---
expect 0 fsck --json
json 'it["problem_count"] == 0 and it["chunks"] > 5'
store=$work/store
flip
expect 1 fsck --json
json 'it["problem_count"] >= 1 and it["repaired_count"] == 0'
expect 0 fsck --repair --json
json 'it["repaired_count"] == it["problem_count"] >= 1'
expect 0 fsck
expect 0 pull org/base
expect 1 fsck --rebuild
expect 0 fsck --rebuild -y
expect 0 --offline cat org/base/model.safetensors
cmp -s "$work/out" "$work/repos/org/base/model.safetensors" || fail 'a rebuilt index gives the same bytes'
finish
