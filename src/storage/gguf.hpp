// GGUF version 3 (ggml's docs/gguf.md; version 2 has the same layout): strict reader over a map.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
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
// Arrays of one scalar type. Numbers are kept widened (booleans as 0 and 1), strings as views into the map.
struct GgufArray {
  GgufType type = GgufType::u8;
  std::vector<std::uint64_t> unsigneds;
  std::vector<std::int64_t> signeds;
  std::vector<double> floats;
  std::vector<std::string_view> strings;
  std::size_t size() const { return unsigneds.size() + signeds.size() + floats.size() + strings.size(); }
};

// An element type of ggml: `block` elements take `bytes` bytes.
struct GgmlType {
  std::uint32_t id;
  std::string_view name;  // as ggml spells it: "q4_K"
  std::uint32_t block, bytes;
};
const GgmlType* ggml_type(std::uint32_t id);       // null when unknown
const GgmlType* ggml_type(std::string_view name);  // case does not matter

struct GgufTensor {
  std::string name;
  std::uint32_t type = 0;             // ggml type number
  std::vector<std::int64_t> shape{};  // as in the file: fastest dimension first
  std::uint64_t offset = 0;           // in the file
  std::uint64_t bytes = 0;
  std::uint32_t file = 0;  // which of the files of a split model
  std::int64_t elements() const;
};

// The checked header of one file. Every rule of llama.cpp's reader holds: unique keys and names, no arrays of
// arrays, at most 4 dimensions, rows of whole blocks, data in the order of the tensors at the alignment.
// A file that ends where its data would begin holds metadata only; one that ends later but too early is an
// error. Strings are views into `file`. Throws UserError that names `origin` and the rule.
struct GgufHeader {
  std::vector<std::pair<std::string, GgufValue>> metadata;  // file order
  std::vector<std::span<const std::byte>> raw;  // each value as the file writes it, its type first
  std::vector<GgufTensor> tensors;
  bool metadata_only = false;
};
GgufHeader parse_gguf(std::span<const std::byte> file, const std::string& origin);

// One file, or the first of a split model (NAME-00001-of-00003.gguf), whose other files are opened too.
class Gguf {
 public:
  explicit Gguf(const std::filesystem::path& path);
  const std::vector<std::pair<std::string, GgufValue>>& metadata() const {
    return header_.metadata;
  }  // file order
  // The value of metadata()[i] as the file writes it, its type first; for copying to another file.
  std::span<const std::byte> raw_metadata(std::size_t i) const { return header_.raw[i]; }
  const GgufValue* find(std::string_view key) const;  // null when absent
  // The value under `key` as T; throws UserError when it is missing or of another kind.
  std::string get_string(std::string_view key) const;
  std::int64_t get_int(std::string_view key) const;
  double get_float(std::string_view key) const;  // integers too
  bool get_bool(std::string_view key) const;
  const GgufArray& get_array(std::string_view key) const;

  const std::vector<GgufTensor>& tensors() const { return header_.tensors; }
  const GgufTensor* find_tensor(std::string_view name) const;
  std::span<const std::byte> data(
      const GgufTensor& tensor) const;  // throws UserError in a file of metadata only
  bool metadata_only() const { return header_.metadata_only; }
  const std::filesystem::path& path() const { return files_[0].path(); }
  std::span<const MappedFile> files() const { return files_; }

 private:
  std::vector<MappedFile> files_;
  GgufHeader header_;
  std::map<std::string, std::size_t, std::less<>> index_;
  void open_splits();
  void index_tensors();
};

}  // namespace sinew
