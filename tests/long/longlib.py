"""What the long tests share: packages from npm, and the library of the mount tests.

Programs are found beside CAKE_BIN.  A package that cannot be had skips the test and says why.
"""

import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(_here), "mount"))
if "CAKE_BIN" in os.environ:
    os.environ.setdefault(
        "TEST_HUB_BIN", os.path.join(os.path.dirname(os.environ["CAKE_BIN"]), "test_hub"))

import mountlib  # noqa: E402
from mountlib import *  # noqa: E402,F401,F403


_installed = {}


def npm_packages(*names, is_bare=False, is_scriptless=False):
    """A folder with those packages in node_modules, installed once a test.

    `is_scriptless`: without install scripts, for those that would download a prebuilt program from
    elsewhere.  `is_bare`: also without optional packages.
    """
    if names in _installed:
        return _installed[names]
    for program in ("node", "npm"):
        if not mountlib.shutil.which(program):
            mountlib.skip(f"{program} is not installed")
    folder = mountlib.scratch()
    words = ["npm", "install", "--no-audit", "--no-fund", "--silent"]
    if is_bare:
        words += ["--omit=optional"]
    if is_bare or is_scriptless:
        words += ["--ignore-scripts"]
    done = mountlib.run(*words, *names, timeout=400, cwd=folder)
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip().splitlines()
        mountlib.skip(f"npm cannot install {' '.join(names)}: {said[-1] if said else '?'}")
    _installed[names] = folder
    return folder


class Server:
    """A program that is ended with the test; `url`: what it prints first, or what is given."""

    def __init__(self, words, url=None):
        self.process = mountlib.subprocess.Popen(
            words, stdout=None if url else mountlib.subprocess.PIPE, text=True)
        mountlib._hubs.append(self)
        self.url = url or self.process.stdout.readline().strip()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except mountlib.subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def node(folder, script, *words, timeout=300, **environment):
    """Runs the text of a module in that folder; what it printed."""
    path = os.path.join(folder, "script.mjs")
    with open(path, "w") as file:
        file.write(script)
    done = mountlib.run("node", path, *words, timeout=timeout, cwd=folder,
                        env={**os.environ, **environment})
    mountlib.check(done.returncode == 0, f"node {words}: exit {done.returncode}: {done.stderr[-3000:]}")
    return done.stdout


def bytes_by_file(hub):
    """Bytes sent of each file since the last reset, by the path's last part."""
    sent = {}
    for path, count in hub.counters()["bytes_by_path"].items():
        name = path.rsplit("/", 1)[-1]
        sent[name] = sent.get(name, 0) + count
    return sent


def floats(count, seed):
    """BF16 numbers as weights have them: exponents that compress, mantissas that do not."""
    chance = mountlib.random.Random(seed)
    high = bytes(chance.choices((0x3C, 0x3D, 0x3B, 0xBC, 0xBD, 0xBB), k=count))
    both = bytearray(2 * count)
    both[0::2], both[1::2] = chance.randbytes(count), high
    return bytes(both)
