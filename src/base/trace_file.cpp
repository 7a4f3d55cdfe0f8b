#include "base/trace_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/error.hpp"

namespace sinew {
namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) out += c;
  }
  return out + "\"";
}

}  // namespace

TraceFile::TraceFile(const std::filesystem::path& path, int rank, const std::string& label)
    : path_(path), fd_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
  if (fd_ < 0) throw IoError(fmt::format("{}: cannot be written: {}", path.string(), std::strerror(errno)));
  const auto wall = std::chrono::duration_cast<std::chrono::nanoseconds>(
                        std::chrono::system_clock::now().time_since_epoch())
                        .count();
  put(fmt::format("{{\"rank\":{},\"label\":{},\"wall\":{},\"steady\":{}}}\n", rank, quoted(label), wall,
                  span_now()));
}

TraceFile::~TraceFile() { ::close(fd_); }

void TraceFile::write(std::span<const SpanEvent> events) {
  std::string text;
  for (const auto& event : events)
    text +=
        fmt::format("[{},\"{}\",{},{}]\n", quoted(event.name),
                    kSpanNames[static_cast<std::size_t>(event.kind)], event.begin, event.end - event.begin);
  put(text);
}

void TraceFile::put(const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const auto n = ::write(fd_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw IoError(fmt::format("{}: cannot be written: {}", path_.string(), std::strerror(errno)));
    done += static_cast<std::size_t>(n);
  }
}

}  // namespace sinew
