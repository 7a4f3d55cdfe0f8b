#include "storage/gguf.hpp"

#include <array>
#include <bit>
#include <cstring>
#include <set>
#include <unordered_set>

#include "base/error.hpp"

namespace sinew {
namespace {

constexpr std::uint32_t kMaxDimensions = 4;
constexpr std::uint64_t kMaxFile = std::uint64_t{1} << 62;
constexpr std::size_t kMaxTensorName = 63;  // ggml keeps names in 64 bytes

// Bytes of a scalar; 0 for strings and arrays.
std::size_t scalar_bytes(GgufType type) {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::boolean:
      return 1;
    case GgufType::u16:
    case GgufType::i16:
      return 2;
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::f32:
      return 4;
    case GgufType::u64:
    case GgufType::i64:
    case GgufType::f64:
      return 8;
    default:
      return 0;
  }
}

// Reads forward; every read is checked against the end of the file.
class Cursor {
 public:
  Cursor(std::span<const std::byte> file, const std::string& origin) : file_(file), origin_(origin) {}

  template <class T>
  T read() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string_view read_string() {
    const auto bytes = take(read<std::uint64_t>());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  std::span<const std::byte> take(std::uint64_t count) {
    require(count <= remaining(), "{}: truncated or damaged: {} bytes wanted at byte {}, {} left", origin_,
            count, at_, remaining());
    at_ += count;
    return file_.subspan(at_ - count, count);
  }
  std::uint64_t remaining() const { return file_.size() - at_; }
  std::uint64_t position() const { return at_; }

 private:
  std::span<const std::byte> file_;
  const std::string& origin_;
  std::uint64_t at_ = 0;
};

GgufType read_type(Cursor& in, const std::string& key, const std::string& origin) {
  const auto number = in.read<std::uint32_t>();
  require(number <= static_cast<std::uint32_t>(GgufType::f64), "{}: key '{}' has unknown type {}", origin,
          key, number);
  return static_cast<GgufType>(number);
}

template <class T>
void read_numbers(std::span<const std::byte> bytes, auto& out) {
  out.reserve(bytes.size() / sizeof(T));
  for (std::size_t i = 0; i < bytes.size(); i += sizeof(T)) {
    T value;
    std::memcpy(&value, bytes.data() + i, sizeof(T));
    out.push_back(value);
  }
}

void read_numbers(GgufType type, std::span<const std::byte> bytes, GgufArray& out) {
  switch (type) {
    case GgufType::u8:
      return read_numbers<std::uint8_t>(bytes, out.unsigneds);
    case GgufType::u16:
      return read_numbers<std::uint16_t>(bytes, out.unsigneds);
    case GgufType::u32:
      return read_numbers<std::uint32_t>(bytes, out.unsigneds);
    case GgufType::u64:
      return read_numbers<std::uint64_t>(bytes, out.unsigneds);
    case GgufType::i8:
      return read_numbers<std::int8_t>(bytes, out.signeds);
    case GgufType::i16:
      return read_numbers<std::int16_t>(bytes, out.signeds);
    case GgufType::i32:
      return read_numbers<std::int32_t>(bytes, out.signeds);
    case GgufType::i64:
      return read_numbers<std::int64_t>(bytes, out.signeds);
    case GgufType::f32:
      return read_numbers<float>(bytes, out.floats);
    case GgufType::f64:
      return read_numbers<double>(bytes, out.floats);
    case GgufType::boolean:
      for (const std::byte byte : bytes) out.unsigneds.push_back(byte != std::byte{0} ? 1 : 0);
      return;
    default:
      return;
  }
}

GgufArray read_array(Cursor& in, const std::string& key, const std::string& origin) {
  GgufArray array;
  array.type = read_type(in, key, origin);
  require(array.type != GgufType::array, "{}: key '{}' is an array of arrays, which no reader takes", origin,
          key);
  const auto count = in.read<std::uint64_t>();
  const std::size_t least = array.type == GgufType::string ? 8 : scalar_bytes(array.type);
  require(count <= in.remaining() / least,
          "{}: key '{}' has {} elements, more than the rest of the file holds", origin, key, count);
  if (array.type == GgufType::string) {
    array.strings.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) array.strings.push_back(in.read_string());
  } else {
    read_numbers(array.type, in.take(count * least), array);
  }
  return array;
}

GgufValue read_value(Cursor& in, const std::string& key, const std::string& origin) {
  const GgufType type = read_type(in, key, origin);
  if (type == GgufType::string) return std::string(in.read_string());
  if (type == GgufType::array) return read_array(in, key, origin);
  GgufArray one;
  read_numbers(type, in.take(scalar_bytes(type)), one);
  if (type == GgufType::boolean) return one.unsigneds[0] != 0;
  if (!one.unsigneds.empty()) return one.unsigneds[0];
  if (!one.signeds.empty()) return one.signeds[0];
  return one.floats[0];
}

void read_metadata(Cursor& in, std::uint64_t count, GgufHeader& header, std::span<const std::byte> file,
                   const std::string& origin) {
  std::unordered_set<std::string_view> keys;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::string_view view = in.read_string();
    std::string key(view);
    require(!key.empty(), "{}: metadata entry {} has an empty key", origin, i);
    require(keys.insert(view).second, "{}: key '{}' appears twice", origin, key);
    const std::uint64_t begin = in.position();
    GgufValue value = read_value(in, key, origin);
    header.raw.push_back(file.subspan(begin, in.position() - begin));
    header.metadata.emplace_back(std::move(key), std::move(value));
  }
}

const GgufValue* find_value(const GgufHeader& header, std::string_view key) {
  for (const auto& [name, value] : header.metadata) {
    if (name == key) return &value;
  }
  return nullptr;
}

std::uint64_t read_alignment(const GgufHeader& header, const std::string& origin) {
  for (std::size_t i = 0; i < header.metadata.size(); ++i) {
    if (header.metadata[i].first != "general.alignment") continue;
    std::uint32_t type = 0;
    std::memcpy(&type, header.raw[i].data(), 4);
    require(type == static_cast<std::uint32_t>(GgufType::u32), "{}: general.alignment must be of type u32",
            origin);
    const auto alignment = std::get<std::uint64_t>(header.metadata[i].second);
    require(std::has_single_bit(alignment), "{}: general.alignment {} is not a power of 2", origin,
            alignment);
    return alignment;
  }
  return 32;
}

void read_shape(Cursor& in, GgufTensor& tensor, const std::string& origin) {
  const auto dimensions = in.read<std::uint32_t>();
  require(dimensions <= kMaxDimensions, "{}: tensor '{}' has {} dimensions (at most {})", origin, tensor.name,
          dimensions, kMaxDimensions);
  std::int64_t elements = 1;
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    const auto size = in.read<std::int64_t>();
    require(size >= 0, "{}: tensor '{}' has a negative size", origin, tensor.name);
    require(!__builtin_mul_overflow(elements, size, &elements),
            "{}: tensor '{}': its shape overflows 63 bits", origin, tensor.name);
    tensor.shape.push_back(size);
  }
}

void read_tensor(Cursor& in, GgufTensor& tensor, const std::string& origin) {
  tensor.name = in.read_string();
  require(tensor.name.size() <= kMaxTensorName, "{}: tensor name '{}...' is longer than {} bytes", origin,
          tensor.name.substr(0, kMaxTensorName), kMaxTensorName);
  read_shape(in, tensor, origin);
  tensor.type = in.read<std::uint32_t>();
  const GgmlType* type = ggml_type(tensor.type);
  require(type != nullptr, "{}: tensor '{}' has unsupported type {}", origin, tensor.name, tensor.type);
  const std::int64_t row = tensor.shape.empty() ? 1 : tensor.shape[0];
  require(row % type->block == 0, "{}: tensor '{}': rows of {} elements are no whole blocks of {} ({})",
          origin, tensor.name, row, type->block, type->name);
  const auto blocks = static_cast<std::uint64_t>(tensor.elements()) / type->block;
  require(!__builtin_mul_overflow(blocks, std::uint64_t{type->bytes}, &tensor.bytes),
          "{}: tensor '{}': its size overflows 64 bits", origin, tensor.name);
  tensor.offset = in.read<std::uint64_t>();  // in the data section, until place_tensors
}

// Checks that the tensors tile the data section and makes their offsets count from the start of the file.
void place_tensors(GgufHeader& header, std::uint64_t header_end, std::uint64_t file_size,
                   const std::string& origin) {
  if (header.tensors.empty()) return;
  const std::uint64_t alignment = read_alignment(header, origin);
  const std::uint64_t data = (header_end + alignment - 1) / alignment * alignment;
  require(data <= file_size, "{}: truncated: the header ends at byte {}, the file at {}", origin, header_end,
          file_size);
  header.metadata_only = data == file_size;
  std::uint64_t expected = 0;
  for (GgufTensor& tensor : header.tensors) {
    require(tensor.offset == expected, "{}: tensor '{}' has offset {}, expected {}", origin, tensor.name,
            tensor.offset, expected);
    require(tensor.bytes <= kMaxFile && data + expected <= kMaxFile,
            "{}: tensor '{}': the data would not fit any file", origin, tensor.name);
    require(header.metadata_only || data + expected + tensor.bytes <= file_size,
            "{}: truncated: tensor '{}' ends at byte {}, the file at {}", origin, tensor.name,
            data + expected + tensor.bytes, file_size);
    tensor.offset = data + expected;
    expected = (expected + tensor.bytes + alignment - 1) / alignment * alignment;
  }
  if (expected == 0) header.metadata_only = false;  // tensors without elements need no data
}

// "model-00001-of-00003.gguf" -> the name of part `number`, counted from 1; empty when `path` is no such
// name.
std::filesystem::path split_name(const std::filesystem::path& path, std::int64_t number, std::int64_t count) {
  const std::string name = path.filename().string();
  const std::string tail = fmt::format("-of-{:05}.gguf", count);
  if (!name.ends_with(tail) || name.size() < tail.size() + 6) return {};
  const std::string stem = name.substr(0, name.size() - tail.size() - 6);
  return path.parent_path() / fmt::format("{}-{:05}{}", stem, number, tail);
}

}  // namespace

std::int64_t GgufTensor::elements() const {
  std::int64_t count = 1;
  for (const std::int64_t dim : shape) count *= dim;
  return count;
}

GgufHeader parse_gguf(std::span<const std::byte> file, const std::string& origin) {
  Cursor in(file, origin);
  require(file.size() >= 4 && std::memcmp(file.data(), "GGUF", 4) == 0, "{}: not a GGUF file", origin);
  in.take(4);
  const auto version = in.read<std::uint32_t>();
  require(version == 2 || version == 3, "{}: GGUF version {} is not supported (only 2 and 3)", origin,
          version);
  const auto tensors = in.read<std::uint64_t>(), entries = in.read<std::uint64_t>();
  require(entries <= in.remaining() / 13 && tensors <= in.remaining() / 24,
          "{}: damaged header: {} metadata entries and {} tensors do not fit the file", origin, entries,
          tensors);
  GgufHeader header;
  read_metadata(in, entries, header, file, origin);
  read_alignment(header, origin);
  std::set<std::string_view> names;
  header.tensors.resize(tensors);
  for (GgufTensor& tensor : header.tensors) {
    read_tensor(in, tensor, origin);
    require(names.insert(tensor.name).second, "{}: tensor '{}' appears twice", origin, tensor.name);
  }
  place_tensors(header, in.position(), file.size(), origin);
  return header;
}

Gguf::Gguf(const std::filesystem::path& path) {
  files_.emplace_back(path);
  header_ = parse_gguf(files_[0].bytes(), path.string());
  index_tensors();
  if (const GgufValue* count = find("split.count"); count != nullptr && get_int("split.count") > 1)
    open_splits();
}

void Gguf::index_tensors() {
  for (std::size_t i = index_.size(); i < header_.tensors.size(); ++i) {
    const GgufTensor& tensor = header_.tensors[i];
    require(index_.emplace(tensor.name, i).second, "{}: tensor '{}' is in an earlier part too",
            files_[tensor.file].path().string(), tensor.name);
  }
}

void Gguf::open_splits() {
  const std::filesystem::path first = path();
  const std::int64_t count = get_int("split.count");
  require(count <= 99999 && get_int("split.no") == 0, "{}: part {} of {}; give the first part instead",
          first.string(), get_int("split.no") + 1, count);
  require(!split_name(first, 1, count).empty(),
          "{}: the first of {} parts must be named NAME-00001-of-{:05}.gguf", first.string(), count, count);
  for (std::int64_t number = 2; number <= count; ++number) {
    const std::filesystem::path part = split_name(first, number, count);
    files_.emplace_back(part);
    GgufHeader header = parse_gguf(files_.back().bytes(), part.string());
    const GgufValue* no = find_value(header, "split.no");
    const auto* value = no == nullptr ? nullptr : std::get_if<std::uint64_t>(no);
    require(value != nullptr && static_cast<std::int64_t>(*value) == number - 1,
            "{}: is not part {} of the model", part.string(), number);
    require(!header.metadata_only, "{}: truncated: no tensor data", part.string());
    for (GgufTensor& tensor : header.tensors) {
      tensor.file = static_cast<std::uint32_t>(number - 1);
      header_.tensors.push_back(std::move(tensor));
    }
    index_tensors();
  }
}

const GgufValue* Gguf::find(std::string_view key) const { return find_value(header_, key); }

namespace {

[[noreturn]] void wrong_kind(const std::filesystem::path& path, std::string_view key, bool missing,
                             std::string_view kind) {
  if (missing) fail("{}: no metadata key '{}'", path.string(), key);
  fail("{}: metadata key '{}' is not {}", path.string(), key, kind);
}

}  // namespace

std::string Gguf::get_string(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value != nullptr) {
    if (const auto* text = std::get_if<std::string>(value)) return *text;
  }
  wrong_kind(path(), key, value == nullptr, "a string");
}

std::int64_t Gguf::get_int(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value != nullptr) {
    if (const auto* number = std::get_if<std::int64_t>(value)) return *number;
    const auto* number = std::get_if<std::uint64_t>(value);
    if (number != nullptr && std::in_range<std::int64_t>(*number)) return static_cast<std::int64_t>(*number);
  }
  wrong_kind(path(), key, value == nullptr, "an integer of 63 bits");
}

double Gguf::get_float(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value != nullptr) {
    if (const auto* number = std::get_if<double>(value)) return *number;
    if (const auto* number = std::get_if<std::int64_t>(value)) return static_cast<double>(*number);
    if (const auto* number = std::get_if<std::uint64_t>(value)) return static_cast<double>(*number);
  }
  wrong_kind(path(), key, value == nullptr, "a number");
}

bool Gguf::get_bool(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value != nullptr) {
    if (const auto* flag = std::get_if<bool>(value)) return *flag;
  }
  wrong_kind(path(), key, value == nullptr, "a boolean");
}

const GgufArray& Gguf::get_array(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value != nullptr) {
    if (const auto* array = std::get_if<GgufArray>(value)) return *array;
  }
  wrong_kind(path(), key, value == nullptr, "an array");
}

const GgufTensor* Gguf::find_tensor(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &header_.tensors[found->second];
}

std::span<const std::byte> Gguf::data(const GgufTensor& tensor) const {
  require(!header_.metadata_only, "{}: holds metadata only, no tensor data", path().string());
  return files_[tensor.file].bytes().subspan(tensor.offset, tensor.bytes);
}

}  // namespace sinew
