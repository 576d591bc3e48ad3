#!/usr/bin/env python3
"""Feeds check_includes.py small trees, each with one mistake, and one without."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

CHECK = pathlib.Path(__file__).resolve().parent / "check_includes.py"


def run_on(files):
    """Exit status and output of the check over a tree of `files` (path: text)."""
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            file = pathlib.Path(root, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        done = subprocess.run([sys.executable, str(CHECK), root], stdout=subprocess.PIPE, text=True, check=False)
        return done.returncode, done.stdout


class CheckIncludes(unittest.TestCase):
    def assert_flagged(self, path, line, others=()):
        files = {path: f"// first line\n{line}\n", **{other: "" for other in others}}
        status, output = run_on(files)
        self.assertEqual(status, 1, output)
        self.assertTrue(output.startswith(f"{path}:2: {line}: "), output)
        self.assertEqual(output.count("\n"), 1, output)

    def test_accepts_a_tree_that_keeps_the_rules(self):
        status, output = run_on({
            "store/base/bytes.h": "#pragma once\n#include <cstdint>\n",
            "store/base/digest.cc": "#include <blake3.h>\n#include <openssl/evp.h>\n",
            "store/sqlite.h": "#include <sqlite3.h>\n",
            "store/pack.cc": '#include "store/base/bytes.h"\n#include <linux/falloc.h>\n',
            "fetch/http.cc": '#include <curl/curl.h>\n#include "store/sqlite.h"\n',
            "fetch/hub.cc": "#include <nlohmann/json.hpp>\n",
            "fs/ops.cc": "#include <fuse_lowlevel.h>\n#include <fuse3/fuse.h>\n",
            "tools/cake.cc": '#include <CLI/CLI.hpp>\n#include "store/sqlite.h"\n',
            "tests/fs/ops_test.cc": "#include <gtest/gtest.h>\n#include <curl/curl.h>\n",
        })
        self.assertEqual((status, output), (0, ""))

    def test_flags_each_step_against_the_direction(self):
        for low, high in [("store/base", "store"), ("store", "fetch"), ("fetch", "fs"), ("fs", "tools")]:
            with self.subTest(low=low, high=high):
                self.assert_flagged(f"{low}/a.cc", f'#include "{high}/b.h"', [f"{high}/b.h"])

    def test_flags_a_leap_against_the_direction(self):
        self.assert_flagged("store/base/a.h", '#include "tools/b.h"', ["tools/b.h"])

    def test_flags_third_party_headers_outside_their_owner(self):
        for path, header in [
            ("fetch/hub.cc", "curl/curl.h"),
            ("fetch/http.h", "curl/curl.h"),
            ("store/index.cc", "sqlite3.h"),
            ("store/pack.cc", "zstd.h"),
            ("store/pack.cc", "blake3.h"),
            ("fetch/http.cc", "openssl/ssl.h"),
            ("fetch/hub.h", "nlohmann/json.hpp"),
            ("fetch/hub_server.cc", "microhttpd.h"),
            ("tools/cmd_mount.cc", "fuse_lowlevel.h"),
            ("store/base/file.cc", "linux/fuse.h"),
            ("fs/keeper.cc", "CLI/CLI.hpp"),
            ("fs/keeper.cc", "spdlog/spdlog.h"),
            ("fs/keeper.cc", "gtest/gtest.h"),
        ]:
            with self.subTest(path=path, header=header):
                self.assert_flagged(path, f"#include <{header}>")

    def test_flags_includes_of_tests(self):
        self.assert_flagged("tools/a.cc", '#include "tests/support/b.h"', ["tests/support/b.h"])

    def test_flags_paths_that_do_not_start_at_the_root(self):
        self.assert_flagged("store/a.cc", '#include "b.h"', ["store/b.h"])
        self.assert_flagged("store/a.cc", '#include "../store/b.h"', ["store/b.h"])

    def test_flags_own_headers_in_angle_brackets(self):
        self.assert_flagged("store/a.cc", "#include <store/b.h>", ["store/b.h"])


if __name__ == "__main__":
    unittest.main()
