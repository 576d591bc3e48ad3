#!/usr/bin/env bash
# The hub's own JavaScript client lists and downloads from `cake serve`, byte for byte.
#
# An independent reader of the protocol: what our client and our server misunderstand alike shows
# here.  Exit status 77 when node, npm or the package cannot be had.
set -euo pipefail

cake=${CAKE_BIN:?the built program}
skip() {
  echo "npm_hub_test: skipped: $1"
  exit 77
}
command -v node >/dev/null || skip "node is not installed"
command -v npm >/dev/null || skip "npm is not installed"

work=$(mktemp -d)
server=
finish() {
  [[ -z $server ]] || { kill "$server" && wait "$server"; } || true
  rm -rf "$work"
}
trap finish EXIT

(cd "$work" && timeout 180 npm install --no-audit --no-fund --silent @huggingface/hub \
  >npm.log 2>&1) || skip "npm cannot install @huggingface/hub: $(tail -n 1 "$work/npm.log")"

hub=$work/hub
mkdir -p "$hub/org/model/sub dir" "$hub/org/model@v1" "$hub/org/model@refs%2Fpr%2F1" \
  "$hub/datasets/org/data"
printf '{"a": 1}\n' >"$hub/org/model/config.json"
head -c 20000000 /dev/urandom >"$hub/org/model/model.safetensors"
head -c 3000 /dev/urandom >"$hub/org/model/sub dir/odd é+.txt" # the client encodes no '#', '?', '%'
: >"$hub/org/model/empty"
for i in $(seq 1 1200); do echo "$i" >"$hub/org/model/sub dir/$i"; done # more than a page
echo one >"$hub/org/model@v1/only"
echo pull >"$hub/org/model@refs%2Fpr%2F1/only"
echo 1,2 >"$hub/datasets/org/data/data.csv"

coproc SERVE { XDG_CACHE_HOME=$work/cache exec "$cake" serve "$hub" --listen 127.0.0.1:0 2>"$work/log"; }
server=$SERVE_PID
url=
read -rt 20 url <&"${SERVE[0]}" || true
[[ $url == http://127.0.0.1:* ]] || {
  echo "cake serve did not start:"
  cat "$work/log"
  exit 1
}

cat >"$work/check.mjs" <<'SCRIPT'
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { downloadFile, fileDownloadInfo, listDatasets, listFiles, listModels, modelInfo, pathsInfo,
  fileExists, snapshotDownload } from "@huggingface/hub";

const [hubUrl, root, cacheDir] = process.argv.slice(2);
const hash = (kind, bytes) => createHash(kind).update(bytes).digest("hex");
function expect(what, condition) {
  if (!condition) throw new Error("not so: " + what);
}
async function all(list) {
  const out = [];
  for await (const one of list) out.push(one);
  return out;
}
function files(folder, prefix = "") {
  return readdirSync(folder).flatMap((name) =>
    statSync(join(folder, name)).isDirectory()
      ? files(join(folder, name), prefix + name + "/") : [prefix + name]);
}

const models = (await all(listModels({ search: { owner: "org" }, hubUrl }))).map((m) => m.name);
expect("models: " + models, models.join() === "org/model");
const datasets = (await all(listDatasets({ search: { owner: "org" }, hubUrl }))).map((d) => d.name);
expect("datasets: " + datasets, datasets.join() === "org/data");

let checked = 0;
async function checkRepo(repo, folder, revision) {
  const listed = (await all(listFiles({ repo, revision, recursive: true, hubUrl })))
    .filter((one) => one.type === "file");
  const there = files(folder).sort();
  expect("files of " + folder, JSON.stringify(listed.map((f) => f.path).sort()) === JSON.stringify(there));
  for (const file of listed) {
    const want = readFileSync(join(folder, file.path));
    expect("size of " + file.path, file.size === want.length);
    if (file.lfs) expect("sha256 of " + file.path, file.lfs.oid === hash("sha256", want));
    else expect("oid of " + file.path,
      file.oid === hash("sha1", Buffer.concat([Buffer.from(`blob ${want.length}\0`), want])));
    if (/^sub dir\/\d+$/.test(file.path) && Number(file.path.slice(8)) % 100) continue;
    if (file.size === 0) continue;  // the client asks for bytes=0-0
    const blob = await downloadFile({ repo, revision, path: file.path, hubUrl });
    expect("a body for " + file.path, blob);
    const got = Buffer.from(await blob.arrayBuffer());
    expect("bytes of " + file.path, hash("sha256", got) === hash("sha256", want));
    checked++;
  }
}
await checkRepo("org/model", join(root, "org/model"));
await checkRepo("org/model", join(root, "org/model@v1"), "v1");
await checkRepo("org/model", join(root, "org/model@refs%2Fpr%2F1"), "refs/pr/1");
await checkRepo("datasets/org/data", join(root, "datasets/org/data"));

const weights = await downloadFile({ repo: "org/model", path: "model.safetensors", hubUrl });
const part = Buffer.from(await weights.slice(12345, 99999).arrayBuffer());
const want = readFileSync(join(root, "org/model/model.safetensors"));
expect("a range", part.equals(want.subarray(12345, 99999)));

const info = await modelInfo({ name: "org/model", hubUrl, additionalFields: ["sha"] });
expect("a commit", /^[0-9a-f]{40}$/.test(info.sha));
const facts = await fileDownloadInfo({ repo: "org/model", path: "config.json", hubUrl });
expect("size of config.json", facts.size === 9);
expect("an absent file is null",
  (await downloadFile({ repo: "org/model", path: "nope", hubUrl })) === null);
expect("an absent file does not exist",
  !(await fileExists({ repo: "org/model", path: "nope", hubUrl })));
const paths = await pathsInfo({ repo: "org/model", paths: ["config.json", "nope"], hubUrl });
expect("paths-info", paths.length === 1 && paths[0].path === "config.json");

const snapshot = await snapshotDownload({ repo: "org/model", revision: "v1", hubUrl, cacheDir });
expect("a snapshot", readFileSync(join(snapshot, "only"), "utf8") === "one\n");
console.log(`npm_hub_test: ${checked} files downloaded and compared`);
SCRIPT
timeout 300 node "$work/check.mjs" "$url" "$hub" "$work/hfcache"
kill "$server"
status=0
wait "$server" || status=$?
server=
[[ $status == 0 ]] || { echo "cake serve ended with $status"; exit 1; }
