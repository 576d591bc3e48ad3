// Names that programs look for in every directory, and that no author or repo has: they are
// answered without asking a hub.  Pure.
#pragma once

#include <string_view>

namespace cake {

// In the place of an author: what git, ld.so, desktops, prompts and build tools probe for.  An
// author's name with such an ending would be a file's.
bool is_probed_as_author(std::string_view name);

// In the place of a repo, where endings mean little ("model.onnx" may be one): the fixed names and
// libraries.
bool is_probed_as_repo(std::string_view name);

}  // namespace cake
