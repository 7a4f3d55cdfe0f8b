// Files: read whole, mapped, and written so that a crash leaves the old file or the new one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace sinew {

namespace fs = std::filesystem;

// The whole file. Throws IoError when it cannot be read, UserError when it is over `limit` bytes.
std::string read_file(const fs::path& path, std::uint64_t limit = std::uint64_t{1} << 32);

// Writes a file beside `path` under a temporary name; commit() makes it durable and renames it over
// `path`. Without commit() the destructor removes the temporary file. Throws IoError.
class AtomicFile {
 public:
  explicit AtomicFile(fs::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t size);
  void write(std::string_view text) { write(text.data(), text.size()); }
  std::uint64_t size() const { return size_; }
  void commit();

 private:
  fs::path path_, temporary_;
  int fd_ = -1;
  std::uint64_t size_ = 0;
  std::string buffer_;
  void flush();
};

void write_file_atomic(const fs::path& path, std::string_view text);

// fsync of a directory, so that a rename inside it survives a power cut.
void sync_directory(const fs::path& directory);

// Creates `directory` and its parents; one clear IoError when that is not possible.
void make_directories(const fs::path& directory);

// A read-only map of a whole file. Empty files map to an empty span. A page that is lost because another
// program cuts the file reads as zeros instead of ending the process; check() tells (base/map_guard.hpp).
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const fs::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  const fs::path& path() const { return path_; }
  // Throws IoError when the file was cut short or written to since it was mapped.
  void check() const;

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  int guard_ = -1;
  fs::path path_;
};

// MappedFile::check() of every file that is mapped now: call it after work that read from maps, before the
// result is trusted.
void check_mapped_files();

}  // namespace sinew
