#include "fs/resident_program.h"

#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

namespace cake {
namespace {

int keep_object_resident(dl_phdr_info* object, size_t, void*) {
  const char* const path = object->dlpi_name[0] == 0 ? "/proc/self/exe" : object->dlpi_name;
  if (path[0] != '/') return 0;  // the vdso has no file
  uint64_t end = 0;
  for (int i = 0; i < object->dlpi_phnum; i++) {
    const auto& part = object->dlpi_phdr[i];
    if (part.p_type == PT_LOAD) end = std::max<uint64_t>(end, part.p_offset + part.p_filesz);
  }
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  // For as long as this process lives.
  static_cast<void>(mmap(nullptr, end, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0));
  close(fd);
  return 0;
}

}  // namespace

void keep_program_resident() {
  dl_iterate_phdr(keep_object_resident, nullptr);
}

}  // namespace cake
