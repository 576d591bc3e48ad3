// cake completion: scripts for shells, made of the verbs and flags that the parser knows.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <ostream>

#include "store/base/bytes.h"
#include "store/base/settings.h"
#include "tools/command.h"

namespace cake {
namespace {

struct Flag {
  std::vector<std::string> names;  // "-q", "--quiet"
  std::string help;
  bool takes_value = false;
};
struct Verb {
  std::string name, help;
  std::vector<Flag> flags;
};

std::vector<Flag> flags_of(const CLI::App& app) {
  std::vector<Flag> flags;
  for (const CLI::Option* option : app.get_options()) {
    Flag flag{{}, option->get_description(), option->get_items_expected_max() > 0};
    for (const std::string& name : option->get_snames()) flag.names.push_back("-" + name);
    for (const std::string& name : option->get_lnames()) flag.names.push_back("--" + name);
    if (!flag.names.empty()) flags.push_back(std::move(flag));
  }
  return flags;
}

std::vector<Verb> verbs_of(const CLI::App& app) {
  std::vector<Verb> verbs;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) {
    verbs.push_back({verb->get_name(), verb->get_description(), flags_of(*verb)});
    for (const std::string& alias : verb->get_aliases())
      verbs.push_back({alias, verb->get_description(), flags_of(*verb)});
  }
  return verbs;
}

std::string names_of(const std::vector<Flag>& flags) {
  std::string names;
  for (const Flag& flag : flags)
    for (const std::string& name : flag.names) names += (names.empty() ? "" : " ") + name;
  return names;
}

std::string mount_options() {
  std::string names;
  for (const Setting& setting : all_settings()) {
    if (!setting.is_mount_option) continue;
    const bool is_flag = setting.type == SettingType::boolean;
    names += cat(names.empty() ? "" : " ", setting.key, is_flag ? "" : "=");
    if (!setting.opposite.empty()) names += cat(" ", setting.opposite);
  }
  return names;
}

// A word in single quotes.
std::string shell_quoted(std::string_view text) {
  std::string out = "'";
  for (const char letter : text)
    out += letter == '\'' ? std::string("'\\''") : std::string(1, letter);
  return out + "'";
}

void write_bash(const CLI::App& app, std::ostream& out) {
  const std::vector<Verb> verbs = verbs_of(app);
  std::string names;
  for (const Verb& verb : verbs) names += (names.empty() ? "" : " ") + verb.name;
  out << "# Completion of cake(1) for bash; made by `cake completion bash`.\n"
         "_cake() {\n"
         "  local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}\n"
         "  local verb='' i flags\n"
         "  local globals="
      << shell_quoted(names_of(flags_of(app)))
      << "\n"
         "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
         "    case ${COMP_WORDS[i]} in\n"
         "      -*) ;;\n"
         "      *) verb=${COMP_WORDS[i]}; break ;;\n"
         "    esac\n"
         "  done\n"
         "  COMPREPLY=()\n"
         "  case $previous in\n"
         "    --format) COMPREPLY=($(compgen -W 'auto human json quiet' -- \"$word\")); return ;;\n"
         "    --store | --cache-dir | --local-dir) COMPREPLY=($(compgen -d -- \"$word\")); return "
         ";;\n"
         "    --token-file) COMPREPLY=($(compgen -f -- \"$word\")); return ;;\n"
         "    -o)\n"
         "      compopt -o nospace\n"
         "      local last=${word##*,} before=\n"
         "      [[ $word == *,* ]] && before=${word%,*},\n"
         "      COMPREPLY=($(compgen -P \"$before\" -W "
      << shell_quoted(mount_options())
      << " -- \"$last\"))\n"
         "      return ;;\n"
         "  esac\n"
         "  case $verb in\n"
         "    '') COMPREPLY=($(compgen -W \"$globals "
      << names << "\" -- \"$word\")); return ;;\n";
  for (const Verb& verb : verbs)
    out << "    " << verb.name << ") flags=" << shell_quoted(names_of(verb.flags)) << " ;;\n";
  out << "  esac\n"
         "  if [[ $word == -* ]]; then\n"
         "    COMPREPLY=($(compgen -W \"$flags $globals\" -- \"$word\"))\n"
         "    return\n"
         "  fi\n"
         "  case $verb in\n"
         "    mount | umount | upgrade | serve | import) COMPREPLY=($(compgen -d -- \"$word\")) "
         ";;\n"
         "    completion) COMPREPLY=($(compgen -W 'bash zsh fish' -- \"$word\")) ;;\n"
         "    config) COMPREPLY=($(compgen -W \"$(cake config 2>/dev/null | cut -f1 | tail -n "
         "+2)\" "
         "-- \"$word\")) ;;\n"
         "    pull | download | ls | tree | cat | stat | du | df | inspect | hash | diff | compare "
         "| "
         "locate | verify | export)\n"
         "      COMPREPLY=($(compgen -W \"$(cake ls -q 2>/dev/null | sed 's,^model/,,')\" -- "
         "\"$word\")) ;;\n"
         "  esac\n"
         "}\n"
         "complete -F _cake cake\n";
}

// Brackets and colons mean something in _arguments.
std::string zsh_text(std::string_view text) {
  std::string out;
  for (const char letter : text) {
    if (letter == '[' || letter == ']' || letter == ':' || letter == '\\') out += '\\';
    out += letter;
  }
  return out;
}

void write_zsh_flags(const std::vector<Flag>& flags, std::ostream& out) {
  for (const Flag& flag : flags)
    for (const std::string& name : flag.names)
      out << " \\\n        "
          << shell_quoted(
                 cat(name, "[", zsh_text(flag.help), "]", flag.takes_value ? ":value:_files" : ""));
}

void write_zsh(const CLI::App& app, std::ostream& out) {
  out << "#compdef cake\n"
         "# Completion of cake(1) for zsh; made by `cake completion zsh`.\n"
         "_cake() {\n"
         "  local context state line\n"
         "  local -a verbs=(\n";
  const std::vector<Verb> verbs = verbs_of(app);
  for (const Verb& verb : verbs)
    out << "    " << shell_quoted(cat(verb.name, ":", zsh_text(verb.help))) << '\n';
  out << "  )\n"
         "  _arguments -C";
  write_zsh_flags(flags_of(app), out);
  out << " \\\n        '1: :->verb' '*:: :->rest'\n"
         "  case $state in\n"
         "    verb) _describe command verbs ;;\n"
         "    rest)\n"
         "      case $words[1] in\n";
  for (const Verb& verb : verbs) {
    out << "      " << verb.name << ")\n        _arguments";
    write_zsh_flags(verb.flags, out);
    out << " \\\n        '*:argument:_files' ;;\n";
  }
  out << "      esac ;;\n"
         "  esac\n"
         "}\n"
         "_cake \"$@\"\n";
}

void write_fish_flags(const std::string& condition, const std::vector<Flag>& flags,
                      std::ostream& out) {
  for (const Flag& flag : flags) {
    out << "complete -c cake" << condition;
    for (const std::string& name : flag.names)
      out << (name.starts_with("--") ? " -l " : " -s ")
          << name.substr(name.starts_with("--") ? 2 : 1);
    out << (flag.takes_value ? " -r" : "") << " -d " << shell_quoted(flag.help) << '\n';
  }
}

void write_fish(const CLI::App& app, std::ostream& out) {
  out << "# Completion of cake(1) for fish; made by `cake completion fish`.\n";
  write_fish_flags("", flags_of(app), out);
  for (const Verb& verb : verbs_of(app)) {
    out << "complete -c cake -n __fish_use_subcommand -a " << verb.name << " -d "
        << shell_quoted(verb.help) << '\n';
    write_fish_flags(cat(" -n '__fish_seen_subcommand_from ", verb.name, "'"), verb.flags, out);
  }
}

}  // namespace

void add_completion(CLI::App& app, Run& run) {
  CLI::App* verb = app.add_subcommand("completion", "Print the completion script of a shell");
  const auto shell = std::make_shared<std::string>();
  verb->add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  verb->callback([shell, &app, &run] {
    run = [shell, &app](Context& context) {
      if (*shell == "bash") write_bash(app, context.out);
      if (*shell == "zsh") write_zsh(app, context.out);
      if (*shell == "fish") write_fish(app, context.out);
      return kExitOk;
    };
  });
}

}  // namespace cake
