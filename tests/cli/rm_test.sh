#!/usr/bin/env bash
# rm, prune, pin and unpin: what goes, what stays, and what the disk says of it.
# ctest: asan timeout=200
# shellcheck source=tests/cli/clilib.sh
source "$(dirname "${BASH_SOURCE[0]}")/clilib.sh"

start_hub "repo=org/a&file=model.bin&bytes=20000000&seed=1" \
  "repo=org/a&file=own.bin&bytes=10000000&seed=2" \
  "repo=org/b&file=model.bin&bytes=20000000&seed=1" \
  "repo=org/c&file=model.bin&bytes=15000000&seed=3"
packs() { du -s --block-size=1 "$store/packs" | cut -f1; }
number() { grep -o "\"$1\": *[0-9]*" "$work/out" | grep -o '[0-9]*$'; }
# near A B: within 1 % and 64 KiB.
near() {
  local off=$(($1 > $2 ? $1 - $2 : $2 - $1))
  ((off <= $2 / 100 + 65536)) || fail "$1 is not near $2"
}

for repo in a b c; do expect 0 pull "org/$repo"; done
expect 0 ls -q
[[ $(wc -l <"$work/out") == 3 ]] || fail 'three repos are listed'

# A dry run tells and does nothing; without an answer nothing is done either.
before=$(packs)
expect 0 rm org/a --dry-run --json
near "$(number would_free_bytes)" 10000000
expect 1 rm org/a
grep -q 'About to delete model/org/a' "$work/err" || fail 'the question names what goes'
[[ $(packs) == "$before" ]] || fail 'something went without an answer'

# What org/b shares stays; the disk gets what is said.
expect 0 rm org/a -y --json
freed=$(number freed_bytes)
near "$freed" 10000000
near $((before - $(packs))) "$freed"
expect 0 ls -q
grep -q org/a "$work/out" && fail 'a removed repo is listed'
expect 0 --offline cat org/b/model.bin
[[ $(stat -c %s "$work/out") == 20000000 ]] || fail 'the shared file is whole'
expect 3 rm org/a -y
expect 3 rm org/never -y

# A pin holds against rm and prune.
expect 0 pin org/c
expect 4 rm org/c -y
grep -q 'pinned' "$work/err" || fail 'the refusal says why'
expect 0 prune --max-size 1M -y
expect 0 --offline cat org/c/model.bin
[[ $(stat -c %s "$work/out") == 15000000 ]] || fail 'the pinned file is whole'
expect 6 --offline cat org/b/model.bin
expect 0 unpin org/c
expect 3 unpin org/c
expect 3 pin org/never

# What is too small to be materialized does not have to be here, an empty file least of all.
control "repo=org/small&file=empty.txt&bytes=0&seed=1" >/dev/null
control "repo=org/small&file=config.json&text=%7B%7D" >/dev/null
control "repo=org/small&file=model.bin&bytes=2000000&seed=4" >/dev/null
expect 0 pull org/small model.bin
expect 0 pin --hot org/small
grep -q '^1 file(s) materialized' "$work/err" || fail 'the large file is materialized'
expect 0 pull org/small
expect 0 pin --hot org/small
expect 0 unpin --hot org/small
expect 0 rm org/small -y

for pattern in org org/b 'org/?' hf:org/b hf://org/ model/org/b hf: '*'; do
  expect 0 ls -q "$pattern"
  grep -q 'org/b$' "$work/out" || fail "ls $pattern"
done
for pattern in or other hf:org/absent org/b/c; do
  expect 0 ls -q "$pattern"
  [[ -s $work/out ]] && fail "ls $pattern finds something"
done

# By the first digits of its commit.
expect 0 ls --revisions -q
commit=$(grep -o 'org/c@[0-9a-f]*' "$work/out")
before=$(packs)
expect 0 rm "${commit#org/c@}" -y --json
near "$(number freed_bytes)" 15000000
near $((before - $(packs))) 15000000
expect 0 ls -q
grep -q org/c "$work/out" && fail 'a removed revision is listed'

# Names that were removed do not come back with an index made anew from the packs.
rm -f "$store"/index.db*
expect 0 ls -q
grep -q 'org/[ac]' "$work/out" && fail 'a lost index brings removed names back'
grep -q 'org/b' "$work/out" || fail 'a lost index loses names that were not removed'

expect 2 prune --max-age much -y
expect 2 rm
expect 0 prune -y
finish
