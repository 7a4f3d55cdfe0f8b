#include "compress/block_store.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "base/error.hpp"
#include "base/text.hpp"

namespace sinew::compress {

BlockStore::BlockStore(const std::filesystem::path& beside, const std::vector<std::uint64_t>& bytes) {
  for (const std::uint64_t size : bytes) {
    offsets_.push_back(size_);
    size_ += (size + 63) / 64 * 64;
  }
  size_ = std::max<std::size_t>(size_, 64);
  std::string name = beside.string() + ".blocks-XXXXXX";
  const int fd = ::mkstemp(name.data());
  if (fd < 0) throw IoError(fmt::format("{}: cannot be created: {}", name, std::strerror(errno)));
  ::unlink(name.c_str());
  if (const int error = ::posix_fallocate(fd, 0, static_cast<off_t>(size_)); error != 0) {
    ::close(fd);
    throw IoError(fmt::format("{}: no room for {} beside it: {}", beside.string(),
                              human_bytes(static_cast<double>(size_)), std::strerror(error)));
  }
  void* const map = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ::close(fd);
  if (map == MAP_FAILED)
    throw IoError(fmt::format("{}: cannot map {}: {}", beside.string(),
                              human_bytes(static_cast<double>(size_)), std::strerror(errno)));
  data_ = static_cast<std::byte*>(map);
}

BlockStore::~BlockStore() { ::munmap(data_, size_); }

void BlockStore::release() { ::madvise(data_, size_, MADV_DONTNEED); }

}  // namespace sinew::compress
