#include "fs/probe_names.h"

#include <algorithm>

namespace cake {

namespace {

// Names with a leading dot, blanks and the like are no repo's by the hub's own rules.
constexpr std::string_view kNames[] = {
    // git asks every directory above it whether it is a bare repository; the others likewise.
    "HEAD", "CVS", "RCS", "SCCS", "_darcs", "_MTN",
    // Desktops look at what was mounted.
    "autorun.inf", "AutoRun.inf", "AUTORUN.INF", "autorun.sh", "desktop.ini", "Desktop.ini",
    "Thumbs.db", "thumbs.db", "BDMV", "VIDEO_TS", "AUDIO_TS", "DCIM",
    // Prompts, editors, build tools and package managers look for a project.
    "node_modules", "__pycache__", "package.json", "package-lock.json", "yarn.lock", "Cargo.toml",
    "go.mod", "go.work", "pyproject.toml", "setup.py", "setup.cfg", "tox.ini", "pyvenv.cfg",
    "Pipfile", "requirements.txt", "environment.yml", "Makefile", "makefile", "GNUmakefile",
    "CMakeLists.txt", "meson.build", "BUILD.bazel", "WORKSPACE", "MODULE.bazel", "pom.xml",
    "build.gradle", "Gemfile", "Rakefile", "composer.json", "mix.exs", "Dockerfile",
    "docker-compose.yml", "Vagrantfile", "Jenkinsfile", "tsconfig.json", "jsconfig.json",
    "compile_commands.json", "cscope.out",
    // Loaders that were given the wrong directory.
    "config.json", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
    "tokenizer.json", "tokenizer_config.json", "generation_config.json", "adapter_config.json",
    "model_index.json", "modules.json", "params.json", "consolidated.safetensors",
    // ld.so below LD_LIBRARY_PATH; its "tls" and "x86_64" could be repos.
    "glibc-hwcaps"};

constexpr std::string_view kEndings[] = {
    ".json", ".toml", ".yaml", ".yml", ".ini",  ".inf",         ".cfg", ".conf",
    ".lock", ".txt",  ".md",   ".xml", ".html", ".js",          ".ts",  ".py",
    ".pyc",  ".sh",   ".so",   ".dll", ".exe",  ".db",          ".tmp", ".swp",
    ".log",  ".zip",  ".onnx", ".bin", ".gguf", ".safetensors", ".pt",  ".desktop"};

}  // namespace

bool is_probed_as_repo(std::string_view name) {
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames) ||
         name.find(".so.") != std::string_view::npos;
}

bool is_probed_as_author(std::string_view name) {
  return is_probed_as_repo(name) ||
         std::any_of(std::begin(kEndings), std::end(kEndings),
                     [name](std::string_view ending) { return name.ends_with(ending); });
}

}  // namespace cake
