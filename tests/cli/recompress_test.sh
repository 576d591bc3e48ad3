#!/usr/bin/env bash
# recompress: a store made by one codec setting becomes what another one makes.
# ctest: asan timeout=200
# shellcheck source=tests/cli/clilib.sh
source "$(dirname "${BASH_SOURCE[0]}")/clilib.sh"

mkdir -p "$work/repos/org/a" "$work/repos/org/b"
python3 - "$work/repos/org" <<'END' || exit 1
import array, json, random, struct, sys
def write(repo, seed, mib):
    chance = random.Random(seed)
    # BF16 as weights are: normally distributed, so the exponents are worth a third.
    block = array.array("f", (chance.gauss(0, 0.02) for _ in range(1 << 19)))
    raw = block.tobytes()
    body = b"".join(bytes(x) for x in zip(raw[2::4], raw[3::4]))[:1 << 20]
    body = body * mib
    # Every MiB differs, or it would be stored once.
    body = bytearray(body)
    for i in range(mib):
        for k in range(64):
            body[(i << 20) + 1024 * k] ^= (i + 1) & 255
    text = json.dumps({"w": {"dtype": "BF16", "shape": [len(body) // 2], "data_offsets": [0, len(body)]}}).encode()
    text += b" " * (-len(text) % 8)
    open(f"{sys.argv[1]}/{repo}/model.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + body)
write("a", 1, 24)
write("b", 2, 8)
END
start_hub --dir "$work/repos"
packs() { du -s --block-size=1 "$store/packs" | cut -f1; }
same() {
  for repo in a b; do
    expect 0 --offline cat "org/$repo/model.safetensors"
    cmp -s "$work/out" "$work/repos/org/$repo/model.safetensors" || fail "org/$repo: other bytes $1"
  done
  expect 0 fsck
  expect 0 --offline verify
}

CAKE_CODEC=raw expect 0 pull org/a
CAKE_CODEC=raw expect 0 pull org/b
raw=$(packs)
((raw >= 32 << 20)) || fail "a raw store takes $raw"

# A dry run does nothing, a setting that is none is said.
expect 0 --offline recompress --dry-run
grep -q 'org/a' "$work/out" || fail 'a dry run says what it would do'
expect 0 --offline --json recompress --dry-run
json 'sorted(row["size"] >> 20 for row in it) == [8, 24] and all("model.safetensors" in row["file"] for row in it)'
(($(packs) == raw)) || fail 'a dry run changed the packs'
expect 2 --offline recompress --codec best
expect 6 --offline recompress org/unknown

# One repo, then all; then nothing is left to do.
expect 0 --offline --json recompress org/b
json 'it["files"] >= 1 and it["recoded"] == 8 and it["after"] < it["before"] - (2 << 20)'
expect 0 --offline --json recompress
json 'it["recoded"] == 24'
encoded=$(packs)
((encoded < raw * 72 / 100)) || fail "recompressed from $raw to $encoded only"
expect 0 --offline --json du
same 'recompressed'
expect 0 --offline --json recompress
json 'it["recoded"] == 0 and it["after"] <= it["before"]'

# And back.
expect 0 --offline recompress --codec raw
grep -q '^Recoded 32 of ' "$work/out" || fail 'all 32 chunks are decoded'
(($(packs) >= 32 << 20)) || fail 'raw again'
same 'decoded'

# pull --pin: stays when room is made.
expect 0 pull --pin org/b
expect 0 prune -y
expect 4 rm -y org/b
finish
