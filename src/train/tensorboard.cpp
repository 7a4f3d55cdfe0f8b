#include "train/tensorboard.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>

#include "base/error.hpp"

namespace sinew {
namespace {

// Little-endian bytes of any plain value.
template <class T>
std::string raw(T value) {
  static_assert(std::endian::native == std::endian::little);
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}

enum Wire : std::uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
std::string tag(std::uint32_t field, Wire wire) { return varint(field << 3 | wire); }
std::string bytes_field(std::uint32_t field, std::string_view bytes) {
  return tag(field, kBytes) + varint(bytes.size()) + std::string(bytes);
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string host() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 && name[0] != 0 ? name.data() : "localhost";
}

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
    table[i] = crc;
  }
  return table;
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static constexpr auto kTable = make_crc_table();
  std::uint32_t crc = ~0u;
  for (const char c : bytes) crc = kTable[(crc ^ static_cast<unsigned char>(c)) & 0xff] ^ crc >> 8;
  return ~crc;
}

std::uint32_t masked_crc32c(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8u; }

EventFile::EventFile(const std::filesystem::path& directory, std::int64_t first_step)
    : path_(directory / fmt::format("events.out.tfevents.{}.{}.{}", static_cast<std::int64_t>(now()), host(),
                                    ::getpid())) {
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) throw IoError(fmt::format("{}: cannot open for writing: {}", path_.string(), system_reason()));
  event(0, bytes_field(3, "brain.Event:2"));                                           // file_version
  if (first_step > 0) event(first_step, bytes_field(7, tag(1, kVarint) + varint(1)));  // session_log: START
}

EventFile::~EventFile() { ::close(fd_); }

void EventFile::event(std::int64_t step, std::string_view body) {
  std::string message = tag(1, kFixed64) + raw(now());  // wall_time
  if (step != 0) message += tag(2, kVarint) + varint(static_cast<std::uint64_t>(step));
  message += body;
  const std::string length = raw(static_cast<std::uint64_t>(message.size()));
  const std::string frame = length + raw(masked_crc32c(length)) + message + raw(masked_crc32c(message));
  ssize_t n = 0;
  do n = ::write(fd_, frame.data(), frame.size());
  while (n < 0 && errno == EINTR);
  if (n == static_cast<ssize_t>(frame.size())) return;
  throw IoError(fmt::format("{}: cannot write: {}", path_.string(),
                            n < 0 ? system_reason() : "No space left on device"));
}

void EventFile::scalars(std::int64_t step, std::span<const std::pair<std::string, double>> values) {
  std::string summary;
  for (const auto& [name, value] : values)
    summary += bytes_field(1, bytes_field(1, name) + tag(2, kFixed32) + raw(static_cast<float>(value)));
  event(step, bytes_field(5, summary));
}

// Summary.Value with metadata of the text plugin and a string tensor (DT_STRING, shape [1]).
void EventFile::text(std::int64_t step, std::string_view name, std::string_view text) {
  const std::string metadata = bytes_field(1, bytes_field(1, "text"));  // plugin_data.plugin_name
  const std::string shape = bytes_field(2, bytes_field(2, tag(1, kVarint) + varint(1)));
  const std::string tensor = tag(1, kVarint) + varint(7) + shape + bytes_field(8, text);
  event(step, bytes_field(5, bytes_field(1, bytes_field(1, name) + bytes_field(9, metadata) +
                                                bytes_field(8, tensor))));
}

}  // namespace sinew
