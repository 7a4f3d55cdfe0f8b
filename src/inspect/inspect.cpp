#include "inspect/inspect.hpp"

#include <algorithm>
#include <cstring>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/text.hpp"
#include "inspect/readers.hpp"
#include "text/dataset.hpp"

namespace sinew {
namespace {

constexpr std::string_view kKinds =
    "a config.json or preset, a model directory, safetensors, GGUF, a tokenizer, a data set, a checkpoint or "
    "metrics.jsonl";

fs::path folder_of(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

Report inspect_directory(const fs::path& path, const InspectOptions& options) {
  if (fs::exists(path / "manifest.json")) return inspect_checkpoint(path, options);
  if (fs::exists(path / "config.json")) return inspect_model_directory(path, options);
  if (is_data_set(path)) return inspect_data_set(path);
  if (holds_checkpoints(path)) return inspect_run(path);
  for (const char* name : {"model.safetensors.index.json", "model.safetensors"})
    if (fs::exists(path / name)) return inspect(path / name, options);
  if (holds_tokenizer(path)) return inspect_tokenizer(path);
  fail("{}: nothing in this folder that Sinew reads ({})", path.string(), kKinds);
}

bool starts_like_safetensors(std::span<const std::byte> bytes) {
  return bytes.size() >= 9 && bytes[7] == std::byte{0} && bytes[8] == std::byte{'{'};
}

// The top-level key that says what a JSON file is, found without reading deep.
Report inspect_json(const fs::path& path, const InspectOptions& options) {
  const std::string text = read_file(path, std::uint64_t{1} << 28);
  std::vector<std::string> keys;
  const auto callback = [&](int depth, Json::parse_event_t event, Json& value) {
    require(depth <= 64, "{}: nested too deeply", path.string());
    if (depth == 1 && event == Json::parse_event_t::key) keys.push_back(value.get<std::string>());
    return depth <= 1;
  };
  const Json json = Json::parse(text, callback, false);
  require(!json.is_discarded(), "{}: not valid JSON", path.string());
  const auto has = [&](std::string_view key) {
    return std::find(keys.begin(), keys.end(), key) != keys.end();
  };
  if (path.filename() == "manifest.json") return inspect_checkpoint(folder_of(path), options);
  if (path.filename() == kDataSetFile || path.filename() == kUnfinishedFile)
    return inspect_data_set(folder_of(path));
  if (has("weight_map")) return inspect_weights_index(path, options);
  if (has("model_type") || path.filename() == "config.json")
    return inspect_config(path, parse_model_config(text, path.string()), options);
  if (has("model") || path.filename() == "tokenizer.json") return inspect_tokenizer(path);
  fail("{}: not a JSON file that Sinew reads ({})", path.string(), kKinds);
}

Report inspect_file(const fs::path& path, const InspectOptions& options) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  require(!bytes.empty(), "{}: empty file", path.string());
  if (bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0) return inspect_gguf(path, options);
  const auto extension = path.extension();
  if (extension == ".gguf") return inspect_gguf(path, options);
  if (extension == ".safetensors" || starts_like_safetensors(bytes))
    return inspect_safetensors(path, options);
  if (extension == ".jsonl") return inspect_metrics(path);
  if (extension == ".model") return inspect_tokenizer(path);
  if (extension == ".json" || bytes[0] == std::byte{'{'}) return inspect_json(path, options);
  fail("{}: not a file that Sinew reads ({})", path.string(), kKinds);
}

}  // namespace

Report inspect(const fs::path& path, const InspectOptions& options) {
  std::error_code error;
  const auto status = fs::status(path, error);
  if (fs::is_directory(status)) return inspect_directory(path, options);
  if (fs::is_regular_file(status)) return inspect_file(path, options);
  require(!fs::exists(status), "{}: neither a file nor a folder", path.string());
  require(!error || error == std::errc::no_such_file_or_directory, "{}: {}", path.string(), error.message());
  return inspect_config(path, load_model_config(path), options);
}

}  // namespace sinew
