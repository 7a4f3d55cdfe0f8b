// metrics.jsonl: one JSON object a line, flat keys, only ever appended to; and TensorBoard events beside it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace sinew {

// One line. Numbers that are not finite are written as null.
struct Record {
  using Value = std::variant<std::int64_t, double, std::string, bool>;
  std::vector<std::pair<std::string, Value>> fields;
  void add(std::string key, Value value) { fields.emplace_back(std::move(key), std::move(value)); }
};
std::string to_json_line(const Record& record);

// Keeps the lines of steps up to `step` (and drops a last line cut short), so that a resumed run's file is
// that of an unbroken one. A missing file stays missing.
void truncate_metrics(const std::filesystem::path& path, std::int64_t step);

class MetricsFile {
 public:
  explicit MetricsFile(std::filesystem::path path);  // opened for appending
  ~MetricsFile();
  MetricsFile(const MetricsFile&) = delete;
  MetricsFile& operator=(const MetricsFile&) = delete;
  void write(const Record& record);  // one write() a line; throws IoError

 private:
  std::filesystem::path path_;
  int fd_ = -1;
};

}  // namespace sinew
