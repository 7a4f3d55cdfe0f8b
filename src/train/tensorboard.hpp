// TensorBoard event files: TFRecord frames (u64 length, masked CRC-32C of it, bytes, masked CRC-32C of them)
// around Event messages of tensorflow/core/util/event.proto, encoded by hand.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace sinew {

std::uint32_t crc32c(std::string_view bytes);         // Castagnoli, RFC 3720 B.4
std::uint32_t masked_crc32c(std::string_view bytes);  // rotated right by 15 plus 0xa282ead8

class EventFile {
 public:
  // A new file events.out.tfevents.SECONDS.HOST.PID in `directory`. `first_step` over 0 tells TensorBoard to
  // forget what older files say about that step and later ones.
  EventFile(const std::filesystem::path& directory, std::int64_t first_step);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  void scalars(std::int64_t step, std::span<const std::pair<std::string, double>> values);
  void text(std::int64_t step, std::string_view tag, std::string_view text);
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  void event(std::int64_t step, std::string_view body);
};

}  // namespace sinew
