#include "storage/safetensors.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/error.hpp"

namespace sinew {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "safetensors and GGUF data are little-endian");

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeader = 100'000'000;  // as the reference reader
constexpr int kMaxDepth = 127;                     // nested arrays and objects, as the reference reader

// One tensor while its fields arrive. Offsets are from the start of the data section.
struct PendingTensor {
  std::string name;
  std::string dtype;
  std::vector<std::uint64_t> shape, offsets;
  std::set<std::string, std::less<>> fields;
};

// Events of nlohmann's parser, which does not recurse. Depth 1 holds tensor names and __metadata__, depth 2
// their fields, depth 3 the numbers of shape and data_offsets; what unknown fields hold is skipped.
class HeaderSax final : public nlohmann::json_sax<json> {
 public:
  std::vector<PendingTensor> tensors;
  std::map<std::string, std::string> metadata;
  std::string error;

  bool null() override {
    if (depth_ == 1 && place_ == Place::metadata) return true;
    return scalar("null");
  }
  bool boolean(bool) override { return scalar("a boolean"); }
  bool number_integer(number_integer_t) override { return scalar("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return scalar("a number that is no size"); }
  bool binary(binary_t&) override { return reject("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (depth_ != 3 || skipping() || (field_ != "shape" && field_ != "data_offsets"))
      return scalar("a number");
    (field_ == "shape" ? tensors.back().shape : tensors.back().offsets).push_back(value);
    return true;
  }

  bool string(string_t& value) override {
    if (skipping()) return true;
    if (depth_ == 2 && place_ == Place::metadata) {
      metadata[field_] = value;
      return true;
    }
    if (depth_ == 2 && field_ == "dtype") {
      tensors.back().dtype = value;
      return true;
    }
    return scalar("a string");
  }

  bool start_object(std::size_t) override {
    if (!deeper()) return false;
    if (skipping() || depth_ <= 2) return true;
    return begin_skip("an object");
  }
  bool end_object() override { return up(); }

  bool start_array(std::size_t) override {
    if (!deeper()) return false;
    if (skipping()) return true;
    if (depth_ == 3 && place_ == Place::tensor && (field_ == "shape" || field_ == "data_offsets"))
      return true;
    return begin_skip("an array");
  }
  bool end_array() override { return up(); }

  bool key(string_t& name) override {
    if (skipping()) return true;
    return depth_ == 1 ? top_key(name) : field_key(name);
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return reject(fmt::format("the header is not valid JSON near byte {}", kLengthBytes + position));
  }

 private:
  enum class Place { tensor, metadata };
  Place place_ = Place::tensor;
  int depth_ = 0;
  int skip_depth_ = 0;  // not 0: inside an unknown field that began at this depth
  std::string field_;
  std::set<std::string, std::less<>> names_;

  bool skipping() const { return skip_depth_ != 0; }
  bool reject(std::string why) {
    if (error.empty()) error = std::move(why);
    return false;
  }
  bool unexpected(std::string_view what) {
    if (depth_ == 0) return reject(fmt::format("the header is {}, not an object", what));
    if (place_ == Place::metadata)
      return reject(fmt::format("__metadata__ holds {}; only strings may stand there", what));
    if (depth_ == 1)
      return reject(fmt::format("tensor '{}' is {}, not an object", tensors.back().name, what));
    return reject(fmt::format("tensor '{}': {} holds {}", tensors.back().name, field_, what));
  }
  bool known_field() const { return field_ == "dtype" || field_ == "shape" || field_ == "data_offsets"; }
  bool scalar(std::string_view what) {
    if (skipping()) return true;
    if (depth_ >= 2 && place_ == Place::tensor && !known_field()) return true;
    return unexpected(what);
  }
  bool deeper() {
    return ++depth_ <= kMaxDepth || reject(fmt::format("the header nests deeper than {} levels", kMaxDepth));
  }
  bool up() {
    if (skip_depth_ == depth_) skip_depth_ = 0;
    --depth_;
    return true;
  }
  // An array or object has just begun where none belongs: skip it inside an unknown field.
  bool begin_skip(std::string_view what) {
    if (depth_ >= 3 && place_ == Place::tensor && !known_field()) {
      skip_depth_ = depth_;
      return true;
    }
    --depth_;
    return unexpected(what);
  }
  bool top_key(const std::string& name) {
    if (!names_.insert(name).second) return reject(fmt::format("'{}' appears twice", name));
    place_ = name == "__metadata__" ? Place::metadata : Place::tensor;
    if (place_ == Place::tensor) tensors.push_back({name, {}, {}, {}, {}});
    return true;
  }
  bool field_key(const std::string& name) {
    field_ = name;
    if (place_ == Place::metadata) {
      return !metadata.contains(name) || reject(fmt::format("__metadata__: '{}' appears twice", name));
    }
    PendingTensor& tensor = tensors.back();
    if (!known_field()) return true;
    return tensor.fields.insert(name).second ||
           reject(fmt::format("tensor '{}': {} appears twice", tensor.name, name));
  }
};

bool multiply(std::uint64_t a, std::uint64_t b, std::uint64_t* product) {
  return !__builtin_mul_overflow(a, b, product);
}

// Checks one tensor against the format; `start` is where it must begin.
TensorInfo finish_tensor(PendingTensor& pending, std::uint64_t start, const std::string& origin) {
  const std::string& name = pending.name;
  const std::uint64_t begin = pending.offsets[0], end = pending.offsets[1];
  require(begin == start && end >= begin,
          "{}: tensor '{}': data_offsets [{}, {}] leave a hole or overlap (expected to begin at {})", origin,
          name, begin, end, start);
  TensorInfo info{.name = name, .dtype = DType::F32, .shape = {}, .offset = begin, .bytes = end - begin};
  try {
    info.dtype = parse_dtype(pending.dtype);
  } catch (const UserError& error) {
    fail("{}: tensor '{}': {}", origin, name, error.what());
  }
  std::uint64_t bits = 1;
  bool fits = true;
  for (const std::uint64_t dim : pending.shape) {
    fits =
        fits && multiply(bits, dim, &bits) && dim <= std::uint64_t{std::numeric_limits<std::int64_t>::max()};
    info.shape.push_back(static_cast<std::int64_t>(dim));
  }
  require(fits && multiply(bits, dtype_bits(info.dtype), &bits),
          "{}: tensor '{}': its shape overflows 64 bits", origin, name);
  require(bits % 8 == 0 && bits / 8 == info.bytes,
          "{}: tensor '{}': shape and dtype need {} bits, data_offsets span {} bytes", origin, name, bits,
          info.bytes);
  return info;
}

std::vector<PendingTensor> parse_header_json(std::string_view text,
                                             std::map<std::string, std::string>* metadata,
                                             const std::string& origin) {
  // The parser skips a byte-order mark and takes a NUL for the end; neither is JSON.
  require(!text.starts_with("\xEF\xBB\xBF"), "{}: the header begins with a byte-order mark", origin);
  require(text.find('\0') == std::string_view::npos, "{}: the header holds a NUL byte", origin);
  HeaderSax sax;
  const bool ok = json::sax_parse(text.begin(), text.end(), &sax);
  require(ok && sax.error.empty(), "{}: {}", origin,
          sax.error.empty() ? "the header is not valid JSON" : sax.error);
  for (const PendingTensor& tensor : sax.tensors) {
    for (const char* field : {"dtype", "shape", "data_offsets"}) {
      require(tensor.fields.contains(field), "{}: tensor '{}' has no {}", origin, tensor.name, field);
    }
    require(tensor.offsets.size() == 2, "{}: tensor '{}': data_offsets has {} numbers, not 2", origin,
            tensor.name, tensor.offsets.size());
  }
  *metadata = std::move(sax.metadata);
  return std::move(sax.tensors);
}

std::string header_json(const std::vector<TensorInfo>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  for (const TensorInfo& tensor : tensors) {
    const std::uint64_t bytes = static_cast<std::uint64_t>(tensor.elements()) * dtype_bits(tensor.dtype) / 8;
    header[tensor.name] = {{"dtype", dtype_name(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // the data section begins at a multiple of 8
  return text;
}

}  // namespace

std::int64_t TensorInfo::elements() const {
  std::int64_t count = 1;
  for (const std::int64_t dim : shape) count *= dim;
  return count;
}

SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& origin) {
  require(file.size() >= kLengthBytes, "{}: not a safetensors file: {} bytes, shorter than the header length",
          origin, file.size());
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), kLengthBytes);
  require(length <= kMaxHeader, "{}: not a safetensors file: a header of {} bytes (at most {})", origin,
          length, kMaxHeader);
  require(length <= file.size() - kLengthBytes, "{}: truncated: the header has {} bytes, the file {}", origin,
          length, file.size());
  SafetensorsHeader header;
  header.data_offset = kLengthBytes + length;
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes, length);
  std::vector<PendingTensor> pending = parse_header_json(text, &header.metadata, origin);
  std::stable_sort(pending.begin(), pending.end(),
                   [](const PendingTensor& a, const PendingTensor& b) { return a.offsets < b.offsets; });
  std::uint64_t end = 0;
  header.tensors.reserve(pending.size());
  for (PendingTensor& tensor : pending) {
    header.tensors.push_back(finish_tensor(tensor, end, origin));
    end += header.tensors.back().bytes;
  }
  const std::uint64_t held = file.size() - header.data_offset;
  require(end == held, "{}: {}: its tensors take {} bytes of data, the file holds {}", origin,
          end > held ? "truncated" : "extra data at the end", end, held);
  return header;
}

Safetensors::Safetensors(const std::filesystem::path& path)
    : file_(path), header_(parse_safetensors(file_.bytes(), path.string())) {
  for (std::size_t i = 0; i < header_.tensors.size(); ++i) index_.emplace(header_.tensors[i].name, i);
}

const TensorInfo* Safetensors::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &header_.tensors[found->second];
}

std::span<const std::byte> Safetensors::data(const TensorInfo& tensor) const {
  return file_.bytes().subspan(header_.data_offset + tensor.offset, tensor.bytes);
}

SafetensorsWriter::SafetensorsWriter(std::filesystem::path path, const std::vector<TensorInfo>& tensors,
                                     const std::map<std::string, std::string>& metadata)
    : path_(std::move(path)), file_(path_) {
  std::set<std::string_view> names;
  for (const TensorInfo& tensor : tensors) {
    ensure(names.insert(tensor.name).second && tensor.name != "__metadata__",
           "{}: tensor '{}' declared twice", path_.string(), tensor.name);
    expected_ += static_cast<std::uint64_t>(tensor.elements()) * dtype_size(tensor.dtype);
  }
  const std::string header = header_json(tensors, metadata);
  ensure(header.size() <= kMaxHeader, "{}: a header of {} bytes", path_.string(), header.size());
  const std::uint64_t length = header.size();
  file_.write(&length, kLengthBytes);
  file_.write(header);
  expected_ += file_.size();
}

void SafetensorsWriter::write(const void* data, std::size_t bytes) {
  ensure(bytes <= expected_ - file_.size(), "{}: more data than its tensors declare", path_.string());
  file_.write(data, bytes);
}

void SafetensorsWriter::commit() {
  ensure(file_.size() == expected_, "{}: {} bytes of data are missing", path_.string(),
         expected_ - file_.size());
  file_.commit();
}

}  // namespace sinew
