#include "storage/gguf_writer.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace sinew {
namespace {

constexpr std::uint64_t kAlignment = 32;

template <class T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

void append_string(std::string& out, std::string_view text) {
  append(out, std::uint64_t{text.size()});
  out.append(text);
}

template <class T>
std::string scalar(GgufType type, T value) {
  std::string out;
  append(out, static_cast<std::uint32_t>(type));
  append(out, value);
  return out;
}

std::string array_head(GgufType type, std::size_t count) {
  std::string out;
  append(out, static_cast<std::uint32_t>(GgufType::array));
  append(out, static_cast<std::uint32_t>(type));
  append(out, std::uint64_t{count});
  return out;
}

}  // namespace

std::string& GgufMetadata::entry(std::string_view key) {
  for (auto& [name, value] : entries_) {
    if (name == key) return value;
  }
  return entries_.emplace_back(key, std::string()).second;
}

void GgufMetadata::set_u32(std::string_view key, std::uint32_t value) {
  entry(key) = scalar(GgufType::u32, value);
}
void GgufMetadata::set_i32(std::string_view key, std::int32_t value) {
  entry(key) = scalar(GgufType::i32, value);
}
void GgufMetadata::set_u64(std::string_view key, std::uint64_t value) {
  entry(key) = scalar(GgufType::u64, value);
}
void GgufMetadata::set_f32(std::string_view key, float value) { entry(key) = scalar(GgufType::f32, value); }
void GgufMetadata::set_bool(std::string_view key, bool value) {
  entry(key) = scalar(GgufType::boolean, static_cast<std::uint8_t>(value ? 1 : 0));
}

void GgufMetadata::set_string(std::string_view key, std::string_view value) {
  std::string out;
  append(out, static_cast<std::uint32_t>(GgufType::string));
  append_string(out, value);
  entry(key) = std::move(out);
}

void GgufMetadata::set_strings(std::string_view key, std::span<const std::string> values) {
  std::string out = array_head(GgufType::string, values.size());
  for (const std::string& value : values) append_string(out, value);
  entry(key) = std::move(out);
}

void GgufMetadata::set_i32s(std::string_view key, std::span<const std::int32_t> values) {
  std::string out = array_head(GgufType::i32, values.size());
  for (const std::int32_t value : values) append(out, value);
  entry(key) = std::move(out);
}

void GgufMetadata::set_f32s(std::string_view key, std::span<const float> values) {
  std::string out = array_head(GgufType::f32, values.size());
  for (const float value : values) append(out, value);
  entry(key) = std::move(out);
}

void GgufMetadata::set_raw(std::string_view key, std::span<const std::byte> value) {
  entry(key).assign(reinterpret_cast<const char*>(value.data()), value.size());
}

void GgufMetadata::erase(std::string_view key) {
  std::erase_if(entries_, [key](const auto& entry) { return entry.first == key; });
}

bool GgufMetadata::contains(std::string_view key) const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [key](const auto& entry) { return entry.first == key; });
}

std::string GgufMetadata::bytes() const {
  std::string out;
  for (const auto& [key, value] : entries_) {
    append_string(out, key);
    out += value;
  }
  return out;
}

GgufWriter::GgufWriter(std::filesystem::path path, const GgufMetadata& metadata,
                       std::vector<GgufTensor> tensors)
    : path_(std::move(path)), file_(path_), tensors_(std::move(tensors)) {
  ensure(!metadata.contains("general.alignment"), "{}: the alignment is the writer's", path_.string());
  std::string header = "GGUF";
  append(header, std::uint32_t{3});
  append(header, std::uint64_t{tensors_.size()});
  append(header, std::uint64_t{metadata.size()});
  header += metadata.bytes();
  std::uint64_t offset = 0;
  for (GgufTensor& tensor : tensors_) {
    const GgmlType* type = ggml_type(tensor.type);
    ensure(type != nullptr && tensor.name.size() < 64 && !tensor.shape.empty() && tensor.shape.size() <= 4 &&
               tensor.shape[0] % type->block == 0,
           "{}: tensor '{}' cannot stand in a GGUF file", path_.string(), tensor.name);
    tensor.bytes = static_cast<std::uint64_t>(tensor.elements()) / type->block * type->bytes;
    append_string(header, tensor.name);
    append(header, static_cast<std::uint32_t>(tensor.shape.size()));
    for (const std::int64_t dim : tensor.shape) append(header, dim);
    append(header, tensor.type);
    append(header, offset);
    offset += (tensor.bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  file_.write(header);
  if (!tensors_.empty()) pad();
  skip_finished();
}

void GgufWriter::pad() {
  static constexpr char kZeros[kAlignment] = {};
  file_.write(kZeros, (kAlignment - file_.size() % kAlignment) % kAlignment);
}

void GgufWriter::skip_finished() {
  while (current_ < tensors_.size() && written_ == tensors_[current_].bytes) {
    pad();
    ++current_;
    written_ = 0;
  }
}

void GgufWriter::write(const void* data, std::size_t bytes) {
  ensure(current_ < tensors_.size() && bytes <= tensors_[current_].bytes - written_,
         "{}: more data than its tensors declare", path_.string());
  file_.write(data, bytes);
  written_ += bytes;
  skip_finished();
}

void GgufWriter::commit() {
  ensure(current_ == tensors_.size(), "{}: data is missing from tensor {} on", path_.string(), current_);
  file_.commit();
}

}  // namespace sinew
