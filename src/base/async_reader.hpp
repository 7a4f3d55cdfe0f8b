// Reads from disk that go on while the caller computes: io_uring (io_uring(7)) past the page cache where
// kernel and file system have it, else a thread that reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>

namespace sinew {

class AsyncReader {
 public:
  // Offsets, sizes and buffers of reads are multiples of this.
  static constexpr std::size_t kAlign = 4096;

  explicit AsyncReader(unsigned depth);  // reads that can be under way at once
  ~AsyncReader();
  AsyncReader(const AsyncReader&) = delete;
  AsyncReader& operator=(const AsyncReader&) = delete;

  // Opens a file for reading, under the number that is returned. Throws IoError.
  int open(const std::filesystem::path& path);
  // Starts reading [offset, offset + bytes) into `buffer`, which stays untouched until `tag` comes out of
  // wait(); what lies beyond the file's end is not written. At most `depth` at a time.
  void start(int file, std::uint64_t offset, std::size_t bytes, std::byte* buffer, std::uint64_t tag);
  // The tag of a read that is complete. With `block` false -1 when there is none yet. Throws IoError, naming
  // the file, when a read failed or came short.
  std::int64_t wait(bool block = true);
  unsigned under_way() const;
  bool direct() const;      // past the page cache
  const char* way() const;  // "io_uring" or "threads"

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sinew
