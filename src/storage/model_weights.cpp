// The weights of a Hugging Face model directory: one file, or shards named by an index.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "storage/safetensors.hpp"

namespace sinew {
namespace {

constexpr std::uint64_t kMaxIndex = 100'000'000;

// A shard may lie in a folder below the model's directory, never outside it.
void check_shard_name(const std::string& name, const std::string& origin) {
  const std::filesystem::path path(name);
  bool inside = !name.empty() && path.is_relative() && name.find('\0') == std::string::npos;
  for (const auto& part : path) inside = inside && part != "..";
  require(inside, "{}: file name '{}' leaves the model's directory", origin, name);
}

// The index's weight_map: tensor name -> file name.
std::map<std::string, std::string> read_index(const std::filesystem::path& path) {
  const std::string text = read_file(path, kMaxIndex);
  int depth = 0;
  const auto bounded = [&](int, nlohmann::json::parse_event_t event, nlohmann::json&) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start || event == Event::array_start) ++depth;
    if (event == Event::object_end || event == Event::array_end) --depth;
    require(depth <= 32, "{}: nested too deeply", path.string());
    return true;
  };
  const auto index = nlohmann::json::parse(text, bounded, false);
  require(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object(),
          "{}: not an index: no weight_map object", path.string());
  std::map<std::string, std::string> where;
  for (const auto& [name, file] : index["weight_map"].items()) {
    require(file.is_string(), "{}: the file of '{}' is not a string", path.string(), name);
    check_shard_name(file.get<std::string>(), path.string());
    where.emplace(name, file.get<std::string>());
  }
  return where;
}

}  // namespace

ModelWeights::ModelWeights(const std::filesystem::path& directory) {
  const std::filesystem::path whole = directory / "model.safetensors",
                              index = directory / "model.safetensors.index.json";
  if (std::filesystem::exists(whole)) {
    files_.emplace_back(whole);
    for (const TensorInfo& tensor : files_[0].tensors()) where_.emplace(tensor.name, 0);
    return;
  }
  require(std::filesystem::exists(index),
          "{}: no model.safetensors and no model.safetensors.index.json there", directory.string());
  std::map<std::string, std::size_t> opened;
  for (const auto& [name, file] : read_index(index)) {
    auto found = opened.find(file);
    if (found == opened.end()) {
      found = opened.emplace(file, files_.size()).first;
      files_.emplace_back(directory / file);
    }
    require(files_[found->second].find(name) != nullptr,
            "{}: tensor '{}' is not in {}, where the index puts it", index.string(), name, file);
    where_.emplace(name, found->second);
  }
}

std::vector<TensorInfo> ModelWeights::tensors() const {
  std::vector<TensorInfo> all;
  all.reserve(where_.size());
  for (const auto& [name, file] : where_) all.push_back(*files_[file].find(name));
  return all;
}

const TensorInfo* ModelWeights::find(std::string_view name) const {
  const auto found = where_.find(name);
  return found == where_.end() ? nullptr : files_[found->second].find(name);
}

std::span<const std::byte> ModelWeights::data(std::string_view name) const {
  const auto found = where_.find(name);
  require(found != where_.end(), "no tensor '{}' in the model's files", name);
  const Safetensors& file = files_[found->second];
  return file.data(*file.find(name));
}

}  // namespace sinew
