// Safetensors (https://github.com/huggingface/safetensors, README "Format"): strict reader over a map,
// atomic writer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.hpp"

namespace sinew {

// Every type of the format. Those after F64 are read and listed but not computed with.
enum class DType {
  BOOL,
  U8,
  I8,
  F8_E4M3,
  F8_E5M2,
  I16,
  U16,
  F16,
  BF16,
  I32,
  U32,
  F32,
  I64,
  U64,
  F64,
  F4,
  F6_E2M3,
  F6_E3M2,
  F8_E8M0,
  F8_E4M3FNUZ,
  F8_E5M2FNUZ,
  C64
};
std::size_t dtype_bits(DType dtype);       // bits an element
std::size_t dtype_size(DType dtype);       // bytes an element; throws UserError for F4 and F6
std::string_view dtype_name(DType dtype);  // as in the header: "F32"
DType parse_dtype(std::string_view name);  // throws UserError

struct TensorInfo {
  std::string name;
  DType dtype;
  std::vector<std::int64_t> shape{};
  std::uint64_t offset = 0;  // in the data section
  std::uint64_t bytes = 0;
  std::int64_t elements() const;
};

// The checked header of `file`; every rule of the reference reader holds (unique names, offsets that
// tile the data exactly, sizes that fit). Throws UserError that names `origin`, tensor and rule.
struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in offset order
  std::map<std::string, std::string> metadata;
  std::uint64_t data_offset = 0;  // of the data section in the file
};
SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& origin);

// One file, mapped.
class Safetensors {
 public:
  explicit Safetensors(const std::filesystem::path& path);
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const TensorInfo* find(std::string_view name) const;  // null when absent
  std::span<const std::byte> data(const TensorInfo& tensor) const;
  const std::filesystem::path& path() const { return file_.path(); }
  const MappedFile& file() const { return file_; }

 private:
  MappedFile file_;
  SafetensorsHeader header_;
  std::map<std::string, std::size_t, std::less<>> index_;
};

// Writes one file: declare every tensor, then give the data in the same order.
class SafetensorsWriter {
 public:
  SafetensorsWriter(std::filesystem::path path, const std::vector<TensorInfo>& tensors,  // offsets ignored
                    const std::map<std::string, std::string>& metadata = {});
  void write(const void* data, std::size_t bytes);  // the next tensor's bytes, whole or in pieces
  void commit();                                    // throws unless every byte was given

 private:
  std::filesystem::path path_;
  AtomicFile file_;
  std::uint64_t expected_ = 0;  // size of the whole file
};

// The weights of a model directory: model.safetensors, or shards with model.safetensors.index.json.
class ModelWeights {
 public:
  explicit ModelWeights(const std::filesystem::path& directory);
  std::vector<TensorInfo> tensors() const;  // sorted by name
  const TensorInfo* find(std::string_view name) const;
  std::span<const std::byte> data(std::string_view name) const;  // throws UserError when absent
  const std::vector<Safetensors>& files() const { return files_; }

 private:
  std::vector<Safetensors> files_;
  std::map<std::string, std::size_t, std::less<>> where_;  // name -> file
};

// Conversions, exact where the target holds the value, round-to-nearest-even elsewhere.
void to_float(DType dtype, const std::byte* source, float* out, std::size_t count);    // BOOL..F64
void from_float(DType dtype, const float* source, std::byte* out, std::size_t count);  // F32, F16, BF16

}  // namespace sinew
