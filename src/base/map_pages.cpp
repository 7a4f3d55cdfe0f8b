#include "base/map_pages.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

namespace sinew {

void give_back_pages(const std::byte* data, std::size_t bytes) {
  static const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<std::uintptr_t>(data) + page - 1) / page * page;
  const auto end = (reinterpret_cast<std::uintptr_t>(data) + bytes) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

void ask_for_huge_pages(const std::byte* data, std::size_t bytes) {
  ::madvise(const_cast<std::byte*>(data), bytes, MADV_HUGEPAGE);  // a wish: without it small pages come
}

}  // namespace sinew
