#!/usr/bin/env bash
# pull, ls, du, tree, stat and cat against a hub that can fail on command.
# ctest: asan timeout=200
# shellcheck source=tests/cli/clilib.sh
source "$(dirname "${BASH_SOURCE[0]}")/clilib.sh"

start_hub "repo=org/model&file=config.json&text=%7B%7D" \
  "repo=org/model&file=model.safetensors&bytes=40000000&seed=1" \
  "repo=org/model&file=pytorch_model.bin&bytes=1000&seed=2" \
  "repo=org/model&file=sub/notes.txt&text=hello" \
  "repo=org/copy&file=model.safetensors&bytes=40000000&seed=1" \
  "repo=org/longer&file=model.safetensors&bytes=41000000&seed=1"

# A dry run changes nothing; safetensors make the other format superfluous.
expect 0 pull org/model --dry-run
grep -q '^model.safetensors'$'\t'40000000$'\t'0$'\t'0$'\t'40000000$ "$work/out" ||
  fail 'dry run lists the weights'
grep -q pytorch "$work/out" && fail 'dry run lists superfluous weights'
expect 0 ls -q
[[ -s $work/out ]] && ! grep -qx model/org/model "$work/out" && fail 'ls after a dry run'

# stalled_pull ARGS…: a pull of org/model that waits for the hub, as $pull.
stalled_pull() {
  control 'clear=1&release=1&reset_counters=1' >/dev/null
  control 'fault=stall_body&path=*model.safetensors&after=1000000' >"$work/err" || fail 'setting a fault'
  "$CAKE_BIN" --endpoint "$url" --store "$store" pull org/model "$@" >"$work/out" 2>"$work/err" &
  pull=$!
  for ((i = 0; i < 200; i++)); do
    control counters=1 2>/dev/null | grep -q '"stalled": *[1-9]' && break
    sleep 0.1
  done
}
# end_pull SIGNAL STATUS
end_pull() {
  local status=0
  kill "-$1" "$pull"
  SECONDS=0
  wait "$pull" 2>/dev/null || status=$?
  ((status == $2)) || fail "pull after SIG$1: status $status, not $2"
  ((SECONDS <= 10)) || fail "pull after SIG$1 took $SECONDS s to end"
  [[ -s $work/out ]] && fail "a pull after SIG$1 names a path"
}
leftovers() { find "$work/plain" -name '.*.part' 2>/dev/null | wc -l; }

# A stalled transfer: Ctrl-C ends it with 130, soon, and what came stays.
stalled_pull
end_pull INT 130
# So does a terminal that is closed; what is written of a plain file goes.
stalled_pull --local-dir "$work/plain"
[[ $(leftovers) == 1 ]] || fail 'the plain file is written beside its place'
end_pull HUP 130
[[ $(leftovers) == 0 ]] || fail 'a pull whose terminal was closed left a file'
# What a killed one leaves, the next removes; another that is at work keeps its own.
stalled_pull --local-dir "$work/plain"
end_pull KILL 137
[[ $(leftovers) == 1 ]] || fail 'a killed pull leaves its file'
stalled_pull --local-dir "$work/plain"
[[ $(leftovers) == 1 ]] || fail 'the next pull removes what a killed one left'
timeout 60 "$CAKE_BIN" --endpoint "$url" --store "$store" -q pull org/model \
  --local-dir "$work/plain" --include '*.txt' >/dev/null || fail 'a pull to the same folder'
[[ $(leftovers) == 1 ]] || fail 'a pull removed the file that another writes'
end_pull TERM 130
rm -r "$work/plain"
control 'clear=1&release=1' >/dev/null

expect 0 pull org/model
[[ $(tail -n 1 "$work/out") =~ ^hf:org/model@[0-9a-f]{40}$ ]] || fail 'the last line is the reference'
expect 0 pull org/model --local-dir "$work/plain" --include '*.txt' --include '*.safetensors'
[[ $(cat "$work/out") == "$work/plain" ]] || fail 'the last line is the folder'
[[ $(find "$work/plain" -type f -printf '%P\n' | sort | xargs) == 'model.safetensors sub/notes.txt' ]] ||
  fail 'the folder holds what was included, and no leftovers'
[[ $(stat -c %s "$work/plain/model.safetensors") == 40000000 ]] || fail 'the size of the plain file'
[[ $(cat "$work/plain/sub/notes.txt") == hello ]] || fail 'the bytes of the plain file'

# A name as long as names get leaves no room for more than itself.
long=$(printf 'n%.0s' {1..251}).txt
control "repo=org/names&file=$long&text=long" >/dev/null
expect 0 pull org/names --local-dir "$work/names"
[[ $(cat "$work/names/$long") == long ]] || fail 'the bytes of a file with a long name'
expect 0 export org/names "$work/exported"
[[ $(cat "$work/exported/$long") == long ]] || fail 'the bytes of an exported file with a long name'
[[ $(find "$work/names" "$work/exported" -type f | wc -l) == 2 ]] || fail 'leftovers of long names'
expect 0 rm -y org/names

# What stands in a file's place and is none is left alone, and not waited for.
mkdir "$work/pipes"
mkfifo "$work/pipes/config.json"
expect 1 pull org/model --local-dir "$work/pipes" --include '*.json'
grep -q 'pipes/config.json is not a regular file' "$work/err" || fail 'a pipe is named'
[[ -p $work/pipes/config.json ]] || fail 'a pipe was replaced'

# Nor does a folder that cannot be made say anything of the hub.
: >"$work/afile"
expect 1 pull org/model --local-dir "$work/afile/x" --include '*.json'
expect 1 pull org/model --local-dir /proc/nodir --include '*.json'
expect 1 export org/model/config.json "$work/afile/x"
grep -q "$work/afile" "$work/err" || fail 'the path is named'

# Nothing that matches is no failure, but hardly what was meant.
expect 0 pull org/model --include '*.nomatch'
grep -qx 'no file of org/model matches' "$work/err" || fail 'a pull of nothing says so'
expect 0 pull org/model --exclude '*' --dry-run
grep -qx 'no file of org/model matches' "$work/err" || fail 'a dry run of nothing says so'
expect 0 pull org/model --include '*.json'
grep -q 'matches' "$work/err" && fail 'a pull of something says that it is nothing'

# What is complete is not fetched again, and a dry run says why.
expect 0 pull org/model --dry-run --json
python3 - "$work/out" <<'END' || fail 'dry run of what is here'
import json, sys
for row in json.load(open(sys.argv[1])):
    assert row["already_here"] == row["size"] and row["to_fetch"] == 0, row
END
expect 0 pull org/copy --dry-run
grep -q '^model.safetensors'$'\t'40000000$'\t'0$'\t'40000000$'\t'0$ "$work/out" ||
  fail 'dry run of a file that another repo has'
control reset_counters=1 >/dev/null
expect 0 pull org/copy --json
python3 - "$work/out" <<'END' || fail 'pull --json of a file that another repo has'
import json, sys
facts = json.load(open(sys.argv[1]))
assert facts["fetched"] == 0 and facts["saved_by_dedupe"] == 40000000, facts
END
control counters=1 | grep -q '"resolve"' && fail 'a file that another repo has was fetched'

# Failures are said once, with the status that scripts branch on.
control 'repo=org/gated&file=a.safetensors&bytes=1000&seed=3' >/dev/null
expect 0 tree --remote org/gated
control 'repo=org/gated&access=gated' >/dev/null
expect 4 pull org/gated
(($(grep -c '^cake: ' "$work/err") == 1)) || fail 'a refusal is said once'
expect 3 pull org/absent
(($(wc -l <"$work/err") == 1)) || fail 'an absent repo is said once'
control 'repo=org/gated&access=open' >/dev/null

# Several repos in one go; events for programs.
expect 0 pull org/model config.json hf:org/copy
[[ $(wc -l <"$work/out") == 2 ]] || fail 'a path for each repo'
expect 0 pull org/model config.json hf:org/copy --json
json '[row["repo"] for row in it] == ["model/org/model", "model/org/copy"] and it[0]["files"] == 1'
expect 3 pull org/copy hf:org/absent --json
json '[row["repo"] for row in it] == ["model/org/copy"]'
expect 0 pull org/model config.json hf:org/copy --dry-run --json
json '[(row["repo"], row["file"]) for row in it] == [("model/org/model", "config.json"), ("model/org/copy", "model.safetensors")]'
expect 0 pull org/gated --json
python3 - "$work/err" <<'END' || fail 'events'
import json, sys
events = [json.loads(line) for line in open(sys.argv[1])]
assert [e["event"] for e in events] == ["file", "end"], events
assert events[-1]["done"] == events[-1]["total"] == 1000, events
END

# Who only looks moves no branch under the mounts of the store; nor does a pull that fails.
commit_here() { expect 0 --offline stat org/moving --json && json_value 'it["commit"]'; }
control 'repo=org/moving&file=a.txt&text=one' >/dev/null
expect 0 pull org/moving
before=$(commit_here)
control 'repo=org/moving&file=b.txt&text=two' >/dev/null
expect 0 pull org/moving --dry-run
grep -q '^b.txt' "$work/out" || fail 'a dry run shows what the hub has now'
[[ $(commit_here) == "$before" ]] || fail 'a dry run moved the branch'
expect 0 tree --remote org/moving
grep -q '^b.txt' "$work/out" || fail 'tree --remote shows what the hub has now'
expect 0 stat --remote org/moving/b.txt
expect 0 cat --remote org/moving/b.txt
[[ $(cat "$work/out") == two ]] || fail 'cat --remote of a new file'
[[ $(commit_here) == "$before" ]] || fail 'a look at the hub moved the branch'
expect 3 pull org/moving nosuch.txt
[[ $(commit_here) == "$before" ]] || fail 'a pull that failed moved the branch'
expect 0 pull org/moving
[[ $(commit_here) != "$before" ]] || fail 'a pull moves the branch'
expect 0 rm -y org/moving

# The same file in another repo takes no second copy, nor do the bytes of one that begins alike.
expect 0 pull org/copy
expect 0 pull org/longer
expect 0 ls --json
python3 - "$work/out" <<'END' || fail 'ls --json'
import json, sys
rows = {row["id"]: row for row in json.load(open(sys.argv[1]))}
assert set(rows) == {f"model/org/{n}" for n in ("model", "copy", "longer", "gated")}, rows
copy = rows["model/org/copy"]
assert copy["size"] == 40000000 and copy["cached_percent"] == 100, copy
assert copy["unique"] == 0, copy
assert 0 < rows["model/org/longer"]["unique"] < 2500000, rows
END
expect 0 du --by repo --json
python3 - "$work/out" <<'END' || fail 'the columns of du add up'
import json, sys
*rows, total = json.load(open(sys.argv[1]))
assert total["what"] == "TOTAL"
for key in total:
    if key != "what":
        assert sum(row[key] for row in rows) == total[key], (key, rows, total)
assert total["after_dedupe"] < total["logical"]
END

# What came wrong is seen before pull says that it is here, and is fetched again.
control 'repo=org/odd&file=w.bin&bytes=3000000&seed=9' >/dev/null
curl -fsSL --noproxy '*' "$url/org/odd/resolve/main/w.bin" >"$work/right" || fail 'fetching with curl'
control 'fault=wrong_bytes&path=*w.bin&after=1000&count=1' >/dev/null
expect 0 pull org/odd
grep -q 'w.bin: its hash is not the one' "$work/err" || fail 'a wrong hash is told'
expect 0 --offline cat org/odd/w.bin
cmp -s "$work/out" "$work/right" || fail 'what came wrong was fetched again'
# Wrong every time: no success, and nothing wrong is kept.
expect 0 rm -y org/odd
control 'fault=wrong_bytes&path=*w.bin&after=1000' >/dev/null
expect 1 pull org/odd --local-dir "$work/odd"
[[ ! -e $work/odd/w.bin ]] || fail 'a file that is wrong appeared'
expect 6 --offline cat org/odd/w.bin
control clear=1 >/dev/null
expect 0 pull org/odd --local-dir "$work/odd"
cmp -s "$work/odd/w.bin" "$work/right" || fail 'the hub is right again, and so is the file'

# Without the hub everything cached is there, and nothing else.
kill "$hub"
wait "$hub"
hub=
cp "$work/plain/model.safetensors" "$work/whole"
expect 0 --offline cat org/model/model.safetensors
cmp -s "$work/out" "$work/whole" || fail 'cat offline gives the same bytes'
expect 0 --offline cat --range 100-199 org/model/model.safetensors
cmp -s "$work/out" <(tail -c +101 "$work/whole" | head -c 100) || fail 'cat --range'
expect 0 --offline tree org/model
expect 0 --offline stat --json org/model/config.json
expect 6 --offline cat org/model/pytorch_model.bin
expect 6 --offline tree org/unknown
expect 3 --offline cat org/model/nothing
# Whoever waits for a hub that is not there is told so before the time is over.
# Long enough for the four failures that it takes, however the waits between them fall.
echo 'timeo=5' >"$work/conf"
CAKE_CONFIG=$work/conf expect 6 pull org/unknown
grep -q "warning: org/unknown at main: .*; trying again for" "$work/err" || fail 'a silent wait'
finish
