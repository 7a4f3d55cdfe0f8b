#include "base/files.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "base/map_guard.hpp"

namespace sinew {
namespace {

template <class... Args>
[[noreturn]] void io_fail(fmt::format_string<Args...> format, Args&&... args) {
  throw IoError(fmt::format(format, std::forward<Args>(args)...));
}

int open_for_reading(const fs::path& path, std::uint64_t* size) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) io_fail("{}: cannot open: {}", path.string(), system_reason());
  struct stat info {};
  if (::fstat(fd, &info) != 0 || S_ISDIR(info.st_mode)) {
    ::close(fd);
    io_fail("{}: not a file", path.string());
  }
  *size = static_cast<std::uint64_t>(info.st_size);
  return fd;
}

void write_all(int fd, const char* data, std::size_t size, const fs::path& path) {
  while (size > 0) {
    const ssize_t n = ::write(fd, data, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) io_fail("{}: cannot write: {}", path.string(), system_reason());
    data += n;
    size -= static_cast<std::size_t>(n);
  }
}

constexpr std::size_t kBuffer = 1 << 20;

}  // namespace

std::string read_file(const fs::path& path, std::uint64_t limit) {
  std::uint64_t size = 0;
  const int fd = open_for_reading(path, &size);
  if (size > limit) {
    ::close(fd);
    fail("{}: {} bytes, more than the {} this reader takes", path.string(), size, limit);
  }
  std::string text(size, '\0');
  std::size_t done = 0;
  for (;;) {  // Special files report size 0 and grow while read.
    if (done == text.size()) text.resize(text.size() + 4096);
    const ssize_t n = ::read(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const std::string reason = system_reason();
      ::close(fd);
      io_fail("{}: cannot read: {}", path.string(), reason);
    }
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
    if (done > limit) {
      ::close(fd);
      fail("{}: more than the {} bytes this reader takes", path.string(), limit);
    }
  }
  ::close(fd);
  text.resize(done);
  return text;
}

AtomicFile::AtomicFile(fs::path path)
    : path_(std::move(path)), temporary_(path_.string() + ".tmp" + std::to_string(::getpid())) {
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) io_fail("{}: cannot create: {}", path_.string(), system_reason());
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::flush() {
  write_all(fd_, buffer_.data(), buffer_.size(), path_);
  buffer_.clear();
}

void AtomicFile::write(const void* data, std::size_t size) {
  size_ += size;
  if (size >= kBuffer) {
    flush();
    write_all(fd_, static_cast<const char*>(data), size, path_);
    return;
  }
  buffer_.append(static_cast<const char*>(data), size);
  if (buffer_.size() >= kBuffer) flush();
}

void AtomicFile::commit() {
  flush();
  if (::fsync(fd_) != 0) io_fail("{}: cannot flush to disk: {}", path_.string(), system_reason());
  if (::close(std::exchange(fd_, -1)) != 0) io_fail("{}: cannot close: {}", path_.string(), system_reason());
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const std::string reason = system_reason();
    ::unlink(temporary_.c_str());
    io_fail("{}: cannot rename into place: {}", path_.string(), reason);
  }
  sync_directory(path_.has_parent_path() ? path_.parent_path() : fs::path("."));
}

void write_file_atomic(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void sync_directory(const fs::path& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;  // A directory that cannot be opened for reading can still hold our file.
  ::fsync(fd);
  ::close(fd);
}

void make_directories(const fs::path& directory) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) io_fail("{}: cannot create the directory: {}", directory.string(), error.message());
}

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  std::uint64_t size = 0;
  const int fd = open_for_reading(path, &size);
  size_ = size;
  if (size_ == 0) {
    ::close(fd);
    return;
  }
  void* map = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) {
    const std::string reason = system_reason();
    ::close(fd);
    io_fail("{}: cannot map: {}", path.string(), reason);
  }
  data_ = static_cast<const std::byte*>(map);
  try {
    guard_ = map_guard::add(map, size_, fd, path);
  } catch (...) {
    ::munmap(map, size_);
    throw;
  }
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  map_guard::remove(guard_);
  ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      guard_(std::exchange(other.guard_, -1)),
      path_(std::move(other.path_)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(guard_, other.guard_);
  std::swap(path_, other.path_);
  return *this;
}

void MappedFile::check() const {
  if (guard_ >= 0) map_guard::check(guard_);
}

void check_mapped_files() { map_guard::check_all(); }

}  // namespace sinew
