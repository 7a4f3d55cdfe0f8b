// GGUF version 3 (ggml's docs/gguf.md): strict reader over a map.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/files.hpp"

namespace sinew {

enum class GgufType : std::uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64
};

struct GgufArray;
using GgufValue = std::variant<std::uint64_t, std::int64_t, double, bool, std::string, GgufArray>;
// Arrays of one scalar type. Numbers are kept widened, strings as views into the map.
struct GgufArray {
  GgufType type = GgufType::u8;
  std::vector<std::uint64_t> unsigneds;
  std::vector<std::int64_t> signeds;
  std::vector<double> floats;
  std::vector<std::string_view> strings;
  std::size_t size() const { return unsigneds.size() + signeds.size() + floats.size() + strings.size(); }
};

struct GgufTensor {
  std::string name;
  std::uint32_t type = 0;           // ggml type number
  std::vector<std::int64_t> shape;  // as in the file: fastest dimension first
  std::uint64_t offset = 0;         // in the file
  std::uint64_t bytes = 0;
};

class Gguf {
 public:
  explicit Gguf(const std::filesystem::path& path);
  const std::vector<std::pair<std::string, GgufValue>>& metadata() const { return metadata_; }  // file order
  const GgufValue* find(std::string_view key) const;  // null when absent
  // The value under `key` as T; throws UserError when it is missing or of another kind.
  std::string get_string(std::string_view key) const;
  std::int64_t get_int(std::string_view key) const;
  double get_float(std::string_view key) const;
  const GgufArray& get_array(std::string_view key) const;

  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* find_tensor(std::string_view name) const;
  std::span<const std::byte> data(const GgufTensor& tensor) const;
  const std::filesystem::path& path() const { return file_.path(); }

 private:
  MappedFile file_;
  std::vector<std::pair<std::string, GgufValue>> metadata_;
  std::vector<GgufTensor> tensors_;
};

}  // namespace sinew
