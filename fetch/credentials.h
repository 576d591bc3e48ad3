// The hub token: where it is found, and never where it could be seen.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "store/base/mutex.h"
#include "store/base/result.h"

namespace cake {

// Reads an environment variable; tests give their own.
using Environment = std::function<std::optional<std::string>(const char* name)>;
std::optional<std::string> process_environment(const char* name);

// The first of: the file given, HF_TOKEN, HUGGING_FACE_HUB_TOKEN, the file HF_TOKEN_PATH,
// $HF_HOME/token, $XDG_CACHE_HOME/huggingface/token, ~/.cache/huggingface/token.  With
// HF_HUB_DISABLE_IMPLICIT_TOKEN set, only the file given.  The environment is read once, by the
// constructor; a file is read again when it was changed or replaced, so a mount takes a new token
// without a restart.
//
// No error names a token, and nothing here logs.  Thread-safe.
class Credentials {
 public:
  // `token_file` may be empty.
  explicit Credentials(std::string token_file,
                       const Environment& environment = process_environment);

  // The token as it is now; empty: none.
  // Errors: denied   the given file is absent, or a token file cannot be read
  //         invalid  the token has blanks, control or non-ASCII characters in it
  Result<std::string> token() const EXCLUDES(mutex_);

  // "HF_TOKEN", or the path that is looked at; empty when implicit tokens are off.
  const std::string& origin() const { return origin_; }

 private:
  // What tells one state of the file from the next.
  struct FileState {
    bool exists = false;
    uint64_t device = 0, inode = 0, bytes = 0;
    int64_t changed_ns = 0, modified_ns = 0;
    bool operator==(const FileState&) const = default;
  };
  FileState look() const;
  Result<std::string> read() const;

  // Constant after construction.
  std::string origin_;
  std::string path_;           // empty: the token came from the environment, or there is none
  bool must_exist_ = false;    // the user named the file
  Result<std::string> fixed_;  // the environment's token, when path_ is empty

  // Guarded by mutex_.  Leaf lock; held while the small file is read.
  mutable Mutex mutex_;
  mutable std::optional<FileState> seen_ GUARDED_BY(mutex_);
  mutable std::optional<Result<std::string>> cached_ GUARDED_BY(mutex_);
};

}  // namespace cake
