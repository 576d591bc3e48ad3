#!/usr/bin/env bash
# What `cake` says of itself and of mistakes, without a hub.
# ctest: asan
set -uo pipefail
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
export HOME=$work CAKE_CONFIG=$work/conf
unset HF_ENDPOINT HF_HUB_OFFLINE CAKE_STORE CAKE_ENDPOINT
failures=0

# expect STATUS ARGS…: runs cake; output in $work/out and $work/err.
expect() {
  local wanted=$1 status=0
  shift
  timeout 30 "$CAKE_BIN" "$@" >"$work/out" 2>"$work/err" </dev/null || status=$?
  if ((status != wanted)); then
    echo "FAIL: cake $*: status $status, not $wanted"
    sed 's/^/  /' "$work/out" "$work/err"
    failures=$((failures + 1))
  fi
}
# has FILE TEXT…: the file contains each text.
has() {
  local file=$work/$1 text
  shift
  for text; do
    grep -qF -- "$text" "$file" && continue
    echo "FAIL: $file lacks '$text':"
    sed 's/^/  /' "$file"
    failures=$((failures + 1))
  done
}
empty() {
  [[ ! -s $work/$1 ]] && return
  echo "FAIL: $1 is not empty:"
  sed 's/^/  /' "$work/$1"
  failures=$((failures + 1))
}

expect 0 --version
has out 'cake '
expect 0 --help
has out mount umount upgrade pull ls tree cat stat du serve config doctor completion
grep -q internal "$work/out" && { echo 'FAIL: --help shows internal verbs'; failures=$((failures + 1)); }
expect 0 pull --help
has out --include --local-dir --max-workers

# Mistakes: status 2, on stderr, with what was meant.
expect 2
expect 2 mout
has err "did you mean 'mount'?"
empty out
expect 2 ls --revision
has err '--revisions'
expect 2 cat org/name
has err 'ORG/NAME/FILE'
expect 2 pull 'https://huggingface.co/org/name'
expect 2 --endpoint 'https://u:secret@hub' config
grep -q secret "$work/err" && { echo 'FAIL: a password was shown'; failures=$((failures + 1)); }
expect 2 mount hf: "$work" -o cache_sise=1G
has err "did you mean 'cache_size'?"
expect 2 mount hf: "$work" -o token=hf_secret
has err token_file
expect 2 mount hf: "$work" -o subdir=../x
expect 2 mount /dev/sda1 "$work"
# The store is of this machine: nothing to do with repos that are absent or not allowed.
expect 1 --store /etc/passwd ls
expect 3 serve "$work/absent"
expect 1 serve "$work" --listen 127.0.0.1:0 --require-token "$work/absent"

# A length of 0 that is none: taken as the length, everything hashes alike.
mkfifo "$work/pipe"
: >"$work/nothing"
for path in /dev/zero /proc/self/status "$work/pipe"; do
  for verb in hash inspect "diff $work/nothing"; do
    # shellcheck disable=SC2086  # the verb and what stands before the path
    expect 2 $verb "$path"
    has err "$path is not a regular file"
    empty out
  done
done
expect 3 hash "$work/absent"
expect 0 hash "$work/nothing"

# The layers of settings, and where a value came from.
printf 'cache_size = 10G\nmem_cache = 64M\n' >"$work/conf"
mkdir -p "$work/.config"
printf 'mem_cache = 32M\n' >"$work/.config/cakefs.conf"
expect 0 config
has out "cache_size"$'\t'"10G"$'\t'"$work/conf:1" "mem_cache"$'\t'"32M"$'\t'"$work/.config/cakefs.conf:1" \
  "timeo"$'\t'"60"$'\t'"default"
CAKE_MEM_CACHE=16M expect 0 config --json
has out '"origin": "CAKE_MEM_CACHE"'
python3 -c 'import json,sys; rows=json.load(open(sys.argv[1])); assert len(rows) > 30; assert set(rows[0]) == {"key","value","origin"}' "$work/out" ||
  { echo 'FAIL: config --json'; failures=$((failures + 1)); }
HF_HUB_OFFLINE=1 expect 0 config offline
[[ $(cat "$work/out") == yes ]] || { echo 'FAIL: HF_HUB_OFFLINE'; failures=$((failures + 1)); }
printf 'nonsense = 1\n' >"$work/conf"
expect 2 config
has err "$work/conf:1"
rm "$work/conf"

# The opposite of a setting is a variable too.
CAKE_SOFT=yes expect 0 config hard
[[ $(cat "$work/out") == no ]] || { echo 'FAIL: CAKE_SOFT'; failures=$((failures + 1)); }
CAKE_SOFT=perhaps expect 2 config

# A variable that is not set must not mean the default, nor swallow the next word.
expect 2 pull org/name --local-dir= --dry-run
has err '--local-dir='
expect 2 pull org/name --local-dir ''
expect 2 verify org/name ''
expect 2 prune --max-size '' -y
expect 2 import ''
expect 2 config ''
expect 2 cat org/name/file --range ''
for number in 0 -1 '' 99999999999999999999 many; do
  expect 2 ls --limit "$number"
  expect 2 pull org/name --max-workers "$number"
done
expect 2 pull org/name --max-workers 65

# The unknown flag is named, not what is missing beside it.
expect 2 --frobnicate
has err "unknown flag '--frobnicate'"
expect 2 pull -x
has err "unknown flag '-x'"
expect 2 pull org/name --dry-run -- --x
has err "unknown flag '--x'"
expect 0 help
has out pull recompress
expect 0 help pull
has out --max-workers
expect 2 help mout
has err "did you mean 'mount'?"

# Output must not go into what is opened next.
for closed in 0 1 2; do
  status=0
  eval "timeout 30 \"\$CAKE_BIN\" --store '$work/closed' ls >'$work/out' 2>'$work/err' $closed>&-" ||
    status=$?
  ((status == (closed == 1))) ||
    { echo "FAIL: ls without descriptor $closed: status $status"; failures=$((failures + 1)); }
done
grep -rqa 'LAST_ACCESSED' "$work/closed" &&
  { echo 'FAIL: output went into the store'; failures=$((failures + 1)); }

# Nothing cached, no network: status 6, soon; a store without repos lists none.
store=$work/store
expect 6 --offline --store "$store" cat org/name/config.json
expect 6 --offline --store "$store" pull org/name
expect 0 --offline --store "$store" ls
expect 0 --store "$store" ls --json
[[ $(cat "$work/out") == '[]' ]] || { echo 'FAIL: ls --json of nothing'; failures=$((failures + 1)); }
expect 0 --store "$store" du --json
expect 2 --store "$store" ls --sort nonsense
expect 2 --store "$store" ls --filter 'size>big'
expect 0 env

# Completions: the files that packages install are what the program prints.
for pair in bash:cake.bash zsh:_cake fish:cake.fish; do
  expect 0 completion "${pair%%:*}"
  cmp -s "$work/out" "$CAKE_SOURCE_DIR/tools/dist/${pair##*:}" || {
    echo "FAIL: tools/dist/${pair##*:} is not what 'cake completion ${pair%%:*}' prints"
    failures=$((failures + 1))
  }
done
bash -n "$CAKE_SOURCE_DIR/tools/dist/cake.bash" || failures=$((failures + 1))

# A full disk is not success.
if [[ -w /dev/full ]]; then
  status=0
  "$CAKE_BIN" config >/dev/full 2>"$work/err" || status=$?
  ((status == 1)) || { echo "FAIL: config >/dev/full: status $status"; failures=$((failures + 1)); }
  status=0
  "$CAKE_BIN" --help >/dev/full 2>"$work/err" || status=$?
  ((status == 1)) || { echo "FAIL: --help >/dev/full: status $status"; failures=$((failures + 1)); }
fi

# The other name of the program has the statuses of mount(8).
helper=$work/mount.cakefs
ln -s "$CAKE_BIN" "$helper"
helper_expect() {
  local wanted=$1 status=0
  shift
  timeout 30 "$helper" "$@" >"$work/out" 2>"$work/err" </dev/null || status=$?
  ((status == wanted)) && return
  echo "FAIL: mount.cakefs $*: status $status, not $wanted"
  sed 's/^/  /' "$work/out" "$work/err"
  failures=$((failures + 1))
}
helper_expect 1
helper_expect 1 hf: "$work" -o nonsense=1
helper_expect 0 hf: "$work" -f -s -o nonsense=1,rw,noexec,_netdev,nofail,x-systemd.automount
helper_expect 1 hf: "$work" -f -o cache_size=much
helper_expect 32 hf: "$work/absent" -n
helper_expect 32 hf: "$work/absent" -f
helper_expect 1 hf: "$work" -f -o store="$work/inside"
exit $((failures > 0))
