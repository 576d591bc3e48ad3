// System calls that fail for some files, as a bad or full disk makes them.
#pragma once

#include <cstdint>
#include <string>

namespace cake {

// While it lives, `call` answers `error_number` for files whose names end in `suffix`.  The calls
// are interposed as WriteLog's are, so not in sanitizer builds.
class FailingCalls {
 public:
  // read_direct: a read past the page cache.  allocate: of blocks; holes can be punched.
  enum class Call { read, read_direct, write, sync, allocate };
  FailingCalls(Call call, std::string suffix, int error_number);
  ~FailingCalls();
  FailingCalls(const FailingCalls&) = delete;
  FailingCalls& operator=(const FailingCalls&) = delete;
  // Reads fail only where they touch this byte.
  FailingCalls& at(uint64_t offset);

  struct Rule;

 private:
  Rule* const rule_;
};

}  // namespace cake
