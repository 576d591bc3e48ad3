#pragma once

#include <string>

#include "store/snapshot.h"

// What tests call a repository that needs no name of its own.
namespace cake {

inline const std::string kSource = "hf:https://hub.test";
inline const RepoName kRepo{RepoType::model, "org/name"};
inline const std::string kCommit(40, 'c');

}  // namespace cake
