// Writes GGUF version 3: metadata first, then the tensors' table, then their data, each at the alignment
// of 32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/files.hpp"
#include "storage/gguf.hpp"

namespace sinew {

// Keys and values in the order in which they were first set; setting a key again replaces its value.
class GgufMetadata {
 public:
  void set_u32(std::string_view key, std::uint32_t value);
  void set_i32(std::string_view key, std::int32_t value);
  void set_u64(std::string_view key, std::uint64_t value);
  void set_f32(std::string_view key, float value);
  void set_bool(std::string_view key, bool value);
  void set_string(std::string_view key, std::string_view value);
  void set_strings(std::string_view key, std::span<const std::string> values);
  void set_i32s(std::string_view key, std::span<const std::int32_t> values);
  void set_f32s(std::string_view key, std::span<const float> values);
  // A value as Gguf::raw_metadata gives it.
  void set_raw(std::string_view key, std::span<const std::byte> value);
  void erase(std::string_view key);
  bool contains(std::string_view key) const;

  std::size_t size() const { return entries_.size(); }
  std::string bytes() const;  // as the file holds them

 private:
  std::vector<std::pair<std::string, std::string>> entries_;  // key, type and value as in the file
  std::string& entry(std::string_view key);
};

class GgufWriter {
 public:
  // Of `tensors` name, type and shape count; offsets and sizes are worked out here.
  GgufWriter(std::filesystem::path path, const GgufMetadata& metadata, std::vector<GgufTensor> tensors);
  void write(const void* data, std::size_t bytes);  // the next tensor's bytes, whole or in pieces
  void commit();                                    // throws unless every byte was given
  std::uint64_t size() const { return file_.size(); }

 private:
  std::filesystem::path path_;
  AtomicFile file_;
  std::vector<GgufTensor> tensors_;
  std::size_t current_ = 0;    // the tensor that is being written
  std::uint64_t written_ = 0;  // bytes of it
  void pad();
  void skip_finished();
};

}  // namespace sinew
