#!/usr/bin/env python3
# cake pull killed at random moments and run again: what was fetched is not fetched again.
# ctest: timeout=280
"""Each kill may cost 64 MiB fetched twice, and nothing that `cake ls` had shown as cached.  20 kills
with --long or CAKE_LONG=1, three otherwise."""

import json
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "mount"))
from mountlib import CAKE, LONG, MIB, Hub, check, main, note, scratch  # noqa: E402

KILLS = 20 if LONG else 3
MAX_LOST = 64 * MIB


def cake(hub, store, *words, **options):
    return subprocess.run([CAKE, "--endpoint", hub.url, "--store", store, *words],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=240,
                          **options)


def cached_bytes(hub, store):
    """What `cake ls` shows of org/big, in bytes."""
    rows = json.loads(cake(hub, store, "ls", "--json", check=True).stdout)
    return sum(row["size"] * row["cached_percent"] / 100 for row in rows)


def test_kills():
    folder = scratch()
    hub = Hub()
    size = (KILLS + 1) * 60 * MIB
    hub.pattern("org/big", "model-1.safetensors", size // 2, seed=1)
    hub.pattern("org/big", "model-2.safetensors", size - size // 2, seed=2)
    hub.control(rate=100 * MIB)
    store = os.path.join(folder, "store")
    command = [CAKE, "--endpoint", hub.url, "--store", store, "--no-progress", "pull", "org/big"]
    seed = random.randrange(1 << 32)
    note(f"seed {seed}")
    chance = random.Random(seed)
    shown = 0
    kills = 0
    for kill in range(KILLS):
        before = hub.body_bytes()
        pull = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        # A moment is a number of bytes that the hub has sent, whatever the machine's speed.
        moment = before + chance.uniform(0.02, 0.9) * size / KILLS
        while hub.body_bytes() < moment and pull.poll() is None:
            time.sleep(0.01)
        if pull.poll() is None:
            pull.kill()
            kills += 1
        pull.wait()
        now = cached_bytes(hub, store)
        check(now + 1 >= shown, f"kill {kill}: {shown - now} bytes shown as cached are gone")
        shown = now
    check(kills > 0, "no pull was killed")
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=240,
                   check=True)
    twice = hub.body_bytes() - size
    note(f"{kills} kills, {twice / MIB:.1f} MiB fetched twice")
    check(twice <= kills * MAX_LOST, f"{twice} bytes fetched twice for {kills} kills")
    check(cached_bytes(hub, store) >= size - 1, "the last pull left something out")


main([test_kills], 270)
