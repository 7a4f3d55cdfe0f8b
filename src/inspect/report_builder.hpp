// Builds a Report: each fact once, for people and for programs. Inside this room only.
#pragma once

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "inspect/inspect.hpp"

namespace sinew {

using Json = nlohmann::ordered_json;

class ReportBuilder {
 public:
  // `kind` is what the file is, e.g. "GGUF model".
  ReportBuilder(const std::filesystem::path& path, std::string_view kind);

  Json json;  // facts are added under their names
  template <class... Args>
  void line(fmt::format_string<Args...> format, Args&&... args) {
    text_ += fmt::format(format, std::forward<Args>(args)...) + "\n";
  }
  void heading(std::string_view title) { text_ += fmt::format("\n{}\n", title); }
  // Something a user should know that is no damage; also under "notes".
  void note(const std::string& text);
  Report finish() const;

 private:
  std::string text_;
  std::vector<std::string> notes_;
};

// One row of a tensor table. `format` and `bytes` are empty and 0 where nothing is stored yet.
struct TensorRow {
  std::string name;
  std::vector<std::int64_t> shape;
  std::string format;
  std::uint64_t bytes = 0;
};

// Adds the tensors: alike ones (same name but for numbers, same shape and format) on one line with the range
// of their numbers, e.g. model.layers.{3..60}.mlp.experts.{0..255}.gate_proj.weight.
void add_tensor_table(ReportBuilder& report, const std::vector<TensorRow>& rows, bool all);

std::int64_t element_count(const std::vector<std::int64_t>& shape);
std::string shape_text(const std::vector<std::int64_t>& shape);  // "[7168, 2048]"

}  // namespace sinew
