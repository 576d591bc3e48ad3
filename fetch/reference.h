// How users name repos and files of a hub: "hf:ORG/NAME@REV/PATH" and its relatives.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "store/base/result.h"
#include "store/snapshot.h"

namespace cake {

struct Reference {
  RepoName repo;
  std::string revision;  // decoded; empty when none was given
  std::string path;      // inside the repo; empty for all of it

  // "hf:ORG/NAME@REV/PATH"; the type goes in front for all but models: "hf:datasets/ORG/NAME".
  std::string text() const;
  bool operator==(const Reference&) const = default;
};

// Takes, with every part checked as a hub would:
//   [hf:][datasets/|spaces/]ORG/NAME[@REV][/PATH]
//   hf://[models/|datasets/|spaces/]ORG/NAME[@REV][/PATH]
//   model/ORG/NAME, dataset/ORG/NAME, space/ORG/NAME   (as `hf cache` prints them)
//   NAME                                              (a repo without namespace, such as gpt2)
// A slash in REV is written %2F; hf:// URLs may also say @refs/pr/N and @refs/convert/NAME.
// Errors: invalid, saying what is wrong with which part.
Result<Reference> parse_reference(std::string_view text);

// "hf:" and "hf://": the whole hub, as a mount shows it.
bool is_whole_hub(std::string_view text);

// A path of this machine rather than a name: starts with "/", or is "." or ".." or starts with
// "./" or "../".
bool is_local_path(std::string_view text);

}  // namespace cake
