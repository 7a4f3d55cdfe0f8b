// Safetensors files and Hugging Face model directories.
#include <algorithm>
#include <map>
#include <set>

#include "base/error.hpp"
#include "base/text.hpp"
#include "inspect/readers.hpp"
#include "storage/safetensors.hpp"

namespace sinew {
namespace {

TensorRow row_of(const TensorInfo& tensor) {
  return {tensor.name, tensor.shape, std::string(dtype_name(tensor.dtype)), tensor.bytes};
}

std::vector<TensorRow> rows_of(const ModelWeights& weights) {
  std::vector<TensorRow> rows;
  for (const TensorInfo& tensor : weights.tensors()) rows.push_back(row_of(tensor));
  return rows;
}

// Whether a tensor that the config does not ask for is one that public checkpoints may hold: buffers of old
// transformers, the second name of a shared tensor, block scales of FP8.
bool harmless(const std::string& name, const ModelConfig& config, const ModelWeights& weights) {
  constexpr std::string_view kScale = "_scale_inv";
  if (name.ends_with(".rotary_emb.inv_freq")) return true;
  if (name == "lm_head.weight") return config.tie_word_embeddings;
  if (name.ends_with(kScale)) return weights.find(name.substr(0, name.size() - kScale.size())) != nullptr;
  const bool shared = name.ends_with(".embed_tokens.weight") || name.ends_with(".shared_head.head.weight");
  return shared && config.num_nextn_predict_layers > 0;
}

bool in_mtp_layer(const std::string& name, const ModelConfig& config) {
  for (std::int64_t k = 0; k < config.num_nextn_predict_layers; ++k)
    if (name.starts_with(fmt::format("model.layers.{}.", config.num_hidden_layers + k))) return true;
  return false;
}

// Every tensor of the config, in its shape, and nothing else. MTP layers may be left out as a whole.
void check_weights(ReportBuilder& report, const std::filesystem::path& path, const ModelConfig& config,
                   const ModelWeights& weights) {
  std::set<std::string> wanted;
  std::string first_missing_mtp;
  bool any_mtp = false;
  for (const TensorSpec& spec : tensor_specs(config)) {
    wanted.insert(spec.name);
    const TensorInfo* tensor = weights.find(spec.name);
    const bool mtp = in_mtp_layer(spec.name, config);
    if (tensor == nullptr && mtp) {
      if (first_missing_mtp.empty()) first_missing_mtp = spec.name;
      continue;
    }
    require(tensor != nullptr, "{}: tensor {} is missing", path.string(), spec.name);
    require(tensor->shape == spec.shape, "{}: tensor {} has shape {}, but config.json makes it {}",
            path.string(), spec.name, shape_text(tensor->shape), shape_text(spec.shape));
    any_mtp = any_mtp || mtp;
  }
  require(first_missing_mtp.empty() || !any_mtp, "{}: tensor {} is missing", path.string(),
          first_missing_mtp);
  if (!first_missing_mtp.empty())
    report.note("the files hold no multi-token-prediction layers; the config has some");
  for (const TensorInfo& tensor : weights.tensors())
    require(wanted.contains(tensor.name) || harmless(tensor.name, config, weights),
            "{}: tensor {} has no place in config.json's {} model", path.string(), tensor.name,
            config.model_type);
}

bool has_weights(const std::filesystem::path& path) {
  return std::filesystem::exists(path / "model.safetensors") ||
         std::filesystem::exists(path / "model.safetensors.index.json");
}

}  // namespace

void add_stored_bytes(ReportBuilder& report, const std::vector<TensorRow>& rows) {
  std::map<std::string, std::pair<std::uint64_t, std::uint64_t>> formats;  // bytes, elements
  std::uint64_t bytes = 0, elements = 0;
  for (const TensorRow& row : rows) {
    const auto count = static_cast<std::uint64_t>(element_count(row.shape));
    formats[row.format].first += row.bytes;
    formats[row.format].second += count;
    bytes += row.bytes;
    elements += count;
  }
  report.heading(
      fmt::format("Stored: {} in {} elements, {:.3f} bits each", human_bytes(static_cast<double>(bytes)),
                  with_commas(elements),
                  elements > 0 ? 8 * static_cast<double>(bytes) / static_cast<double>(elements) : 0));
  Json stored{{"bytes", bytes}, {"elements", elements}, {"formats", Json::object()}};
  for (const auto& [format, size] : formats) {
    report.line("  {:<8} {:>11}  {:>18} elements", format, human_bytes(static_cast<double>(size.first)),
                with_commas(size.second));
    stored["formats"][format] = {{"bytes", size.first}, {"elements", size.second}};
  }
  report.json["stored"] = std::move(stored);
}

Report inspect_safetensors(const std::filesystem::path& path, const InspectOptions& options) {
  const Safetensors file(path);
  ReportBuilder report(path, "safetensors file");
  report.json["metadata"] = file.metadata();
  for (const auto& [key, value] : file.metadata())
    report.line("  {} = {}", key, value.size() > 100 ? value.substr(0, 100) + "..." : value);
  std::vector<TensorRow> rows;
  for (const TensorInfo& tensor : file.tensors()) rows.push_back(row_of(tensor));
  add_stored_bytes(report, rows);
  add_tensor_table(report, rows, options.all_tensors);
  return report.finish();
}

Report inspect_weights_index(const std::filesystem::path& path, const InspectOptions& options) {
  const auto directory = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  const ModelWeights weights(directory);
  ReportBuilder report(path, fmt::format("safetensors index of {} files", weights.files().size()));
  const auto rows = rows_of(weights);
  add_stored_bytes(report, rows);
  add_tensor_table(report, rows, options.all_tensors);
  return report.finish();
}

Report inspect_model_directory(const std::filesystem::path& path, const InspectOptions& options) {
  const ModelConfig config = load_model_config(path);
  if (!has_weights(path)) {
    ReportBuilder report(path, "model directory without weights");
    add_model_facts(report, config);
    if (holds_tokenizer(path)) add_tokenizer_facts(report, path, config.vocab_size);
    report.note(
        "no model.safetensors and no model.safetensors.index.json: only the configuration was checked");
    return report.finish();
  }
  const ModelWeights weights(path);
  ReportBuilder report(path, fmt::format("Hugging Face model in {} file{}", weights.files().size(),
                                         weights.files().size() == 1 ? "" : "s"));
  check_weights(report, path, config, weights);
  add_model_facts(report, config);
  if (holds_tokenizer(path)) add_tokenizer_facts(report, path, config.vocab_size);
  const auto rows = rows_of(weights);
  add_stored_bytes(report, rows);
  add_tensor_table(report, rows, options.all_tensors);
  return report.finish();
}

}  // namespace sinew
