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


def npm_packages(*names, is_bare=False):
    """A folder with those packages in node_modules.

    `is_bare`: without optional packages and install scripts, for those that would download a
    prebuilt program from elsewhere.
    """
    for program in ("node", "npm"):
        if not mountlib.shutil.which(program):
            mountlib.skip(f"{program} is not installed")
    folder = mountlib.scratch()
    words = ["npm", "install", "--no-audit", "--no-fund", "--silent"]
    if is_bare:
        words += ["--omit=optional", "--ignore-scripts"]
    done = mountlib.run(*words, *names, timeout=400, cwd=folder)
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip().splitlines()
        mountlib.skip(f"npm cannot install {' '.join(names)}: {said[-1] if said else '?'}")
    return folder


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
