// A file's bytes as a stream: plain, gzip, zstd or bzip2, chosen by the name's ending.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>

namespace sinew {

class InputStream {
 public:
  virtual ~InputStream() = default;
  // Up to `size` bytes of content; 0 at the end only. Throws UserError naming the file when the stream
  // is damaged or cut short, IoError when it cannot be read.
  virtual std::size_t read(char* out, std::size_t size) = 0;
  virtual std::uint64_t consumed() const = 0;  // bytes of the file read so far (compressed)
};

// .gz (any number of members), .zst (any number of frames), .bz2 (likewise); else the file as it is.
// Only regular files: text is read more than once.
std::unique_ptr<InputStream> open_input(const std::filesystem::path& path);

// `path` without its compression ending: a.jsonl.gz -> a.jsonl.
std::filesystem::path without_compression(const std::filesystem::path& path);

}  // namespace sinew
