#include "train/metrics.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/files.hpp"

namespace sinew {

std::string to_json_line(const Record& record) {
  nlohmann::ordered_json line;
  for (const auto& [key, value] : record.fields)
    std::visit([&, name = &key](const auto& v) { line[*name] = v; },
               value);  // NaN and infinity are dumped as null
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

void truncate_metrics(const fs::path& path, std::int64_t step) {
  if (!fs::exists(path)) return;
  const std::string text = read_file(path, std::uint64_t{1} << 36);
  std::string kept;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;  // cut short
    const std::string_view line(text.data() + begin, end - begin);
    const auto parsed = nlohmann::json::parse(line, nullptr, false);
    if (parsed.is_object() && parsed.contains("step") && parsed["step"].is_number() &&
        parsed["step"].get<std::int64_t>() <= step) {
      kept += line;
      kept += '\n';
    }
    begin = end + 1;
  }
  if (kept.size() != text.size()) write_file_atomic(path, kept);
}

MetricsFile::MetricsFile(fs::path path) : path_(std::move(path)) {
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) throw IoError(fmt::format("{}: cannot open for writing: {}", path_.string(), system_reason()));
}

MetricsFile::~MetricsFile() { ::close(fd_); }

void MetricsFile::write(const Record& record) {
  const std::string line = to_json_line(record);
  ssize_t n = 0;
  do n = ::write(fd_, line.data(), line.size());
  while (n < 0 && errno == EINTR);
  if (n == static_cast<ssize_t>(line.size())) return;
  const std::string reason = n < 0 ? system_reason() : "No space left on device";
  throw IoError(fmt::format("{}: cannot write: {}", path_.string(), reason));
}

}  // namespace sinew
