# What the command tests share: a hub, a store of their own, and what they expect.  Sourced.
# shellcheck shell=bash
set -uo pipefail
hub_program=$(dirname "$CAKE_BIN")/test_hub
[[ -x $hub_program ]] || { echo "no test_hub beside $CAKE_BIN"; exit 77; }
work=$(mktemp -d) || exit 1
store=$work/store
hub='' url=''
cleanup() {
  [[ -n $hub ]] && kill "$hub" 2>/dev/null && wait "$hub"
  rm -rf "$work"
}
trap cleanup EXIT
export HOME=$work CAKE_CONFIG=$work/none
unset HF_ENDPOINT HF_HUB_OFFLINE HF_TOKEN HF_TOKEN_PATH HF_HOME HF_HUB_CACHE
unset http_proxy https_proxy all_proxy
failures=0
# The last command's output, of what there is.
fail() {
  echo "FAIL: $*"
  [[ -e $work/err ]] && sed 's/^/  /' "$work/err" "$work/out" | head -40
  failures=$((failures + 1))
}

# start_hub ARGS…: the test hub with what ARGS say (tests/support/README.md); sets url.
start_hub() {
  mkfifo "$work/url"
  "$hub_program" "$@" >"$work/url" &
  hub=$!
  read -r url <"$work/url"
}
control() { curl -fsS --noproxy '*' "$url/_control?$1"; }

# expect STATUS ARGS…: cake ARGS ends with STATUS; its output is in out and err.
expect() {
  local wanted=$1 status=0
  shift
  timeout 60 "$CAKE_BIN" --endpoint "$url" --store "$store" "$@" >"$work/out" 2>"$work/err" \
    </dev/null || status=$?
  ((status == wanted)) || fail "cake $*: status $status, not $wanted"
}
# json EXPRESSION: holds for the JSON in out, as `it`.
json() {
  python3 -c 'import json, sys; it = json.load(open(sys.argv[1])); assert '"$1" "$work/out" || fail "$1"
}
# json_value EXPRESSION
json_value() {
  python3 -c 'import json, sys; it = json.load(open(sys.argv[1])); print('"$1"')' "$work/out"
}
finish() {
  ((failures == 0)) || exit 1
  echo ok
  exit 0
}
