// A file on its way: written beside its target, then renamed over it.
#pragma once

#include <span>
#include <string>

#include "store/base/file.h"

namespace cake {

// Its name is ".NAME.RANDOM.part", for a long NAME the hash of it; `cake verify REF DIR` does not
// take it for a file of the repo.  Random, because a process id does not tell writers apart: in
// containers it is often 1.  While this is there the file is locked, so that what a killed writer
// left can be told from what is being written.  Thread-compatible.
class PartFile {
 public:
  // Makes the file, empty; the target's folder must be there.
  static Result<PartFile> create(const std::string& target, unsigned mode = 0644);
  // Removes the file, unless it was published.
  ~PartFile();
  PartFile(PartFile&&) noexcept = default;
  PartFile& operator=(PartFile&&) = delete;

  const File& file() const { return file_; }
  // Writes it out and gives it the target's name, in place of what is there.
  Status publish();

 private:
  PartFile(File file, std::string target) : file_(std::move(file)), target_(std::move(target)) {}

  File file_;
  std::string target_;
  bool is_published_ = false;
};

// Removes the part files of these targets that nobody writes any more: their writers were killed.
// What cannot be looked at or removed stays, since all that is lost by it is room.
void remove_abandoned_parts(std::span<const std::string> targets);

}  // namespace cake
