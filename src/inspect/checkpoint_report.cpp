// Training checkpoints and run folders: manifest, files, checksums.
#include <algorithm>

#include "base/error.hpp"
#include "base/text.hpp"
#include "inspect/readers.hpp"
#include "storage/checkpoint.hpp"

namespace sinew {
namespace {

std::vector<TensorRow> rows_of(const CheckpointReader& checkpoint) {
  std::vector<TensorRow> rows;
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    const auto elements = static_cast<std::uint64_t>(element_count(tensor.shape));
    rows.push_back({tensor.name, tensor.shape, std::string(dtype_name(tensor.dtype)),
                    elements * dtype_size(tensor.dtype)});
  }
  return rows;
}

void add_state(ReportBuilder& report, const TrainingState& state) {
  report.line("  step        {} ({} updates, {} skipped, {} rollbacks)", state.step, state.updates,
              state.skipped, state.rollbacks);
  report.line("  data        {} samples, {} tokens, seed {}", with_commas(state.samples),
              with_commas(state.tokens), state.seed);
  report.line("  run         {} in {}, layout {}", state.optimizer, state.dtype, state.layout);
  report.json["state"] = {{"step", state.step},
                          {"updates", state.updates},
                          {"samples", state.samples},
                          {"tokens", state.tokens},
                          {"seed", state.seed},
                          {"optimizer", state.optimizer},
                          {"dtype", state.dtype},
                          {"layout", state.layout},
                          {"skipped", state.skipped},
                          {"rollbacks", state.rollbacks},
                          {"tokenizer_checksum", state.tokenizer_checksum}};
}

// The folder step-N lie in: a run's, or its checkpoints/.
std::filesystem::path checkpoint_root(const std::filesystem::path& path) {
  return list_checkpoints(path).empty() ? path / "checkpoints" : path;
}

}  // namespace

Report inspect_checkpoint(const std::filesystem::path& path, const InspectOptions& options) {
  const CheckpointReader checkpoint(path);
  ReportBuilder report(path, "training checkpoint, all checksums hold");
  add_state(report, checkpoint.state());
  if (checkpoint.has("config.json")) {
    const auto config = parse_model_config(checkpoint.text("config.json"), (path / "config.json").string());
    for (const TensorSpec& spec : tensor_specs(config)) {
      const CheckpointTensor* tensor = checkpoint.find("weight/" + spec.name);
      require(tensor != nullptr, "{}: tensor weight/{} is missing", path.string(), spec.name);
      require(tensor->shape == spec.shape, "{}: tensor weight/{} has shape {}, but config.json makes it {}",
              path.string(), spec.name, shape_text(tensor->shape), shape_text(spec.shape));
    }
    add_model_facts(report, config);
  }
  const auto rows = rows_of(checkpoint);
  add_stored_bytes(report, rows);
  add_tensor_table(report, rows, options.all_tensors);
  return report.finish();
}

bool holds_checkpoints(const std::filesystem::path& directory) {
  return !list_checkpoints(directory).empty() || !list_checkpoints(directory / "checkpoints").empty();
}

// Every checkpoint of a run is read; one that is damaged makes the whole unsound.
Report inspect_run(const std::filesystem::path& path) {
  const auto root = checkpoint_root(path);
  const auto steps = list_checkpoints(root);
  ReportBuilder report(path, fmt::format("training run with {} checkpoint{}, all checksums hold",
                                         steps.size(), steps.size() == 1 ? "" : "s"));
  for (const auto step : steps) {
    const CheckpointReader checkpoint(checkpoint_path(root, step));
    const TrainingState& state = checkpoint.state();
    report.line("  {:<14} {:>15} tokens, {} in {}", checkpoint.path().filename().string(),
                with_commas(state.tokens), state.optimizer, state.dtype);
    report.json["checkpoints"].push_back(
        {{"path", checkpoint.path().string()}, {"step", state.step}, {"tokens", state.tokens}});
  }
  return report.finish();
}

}  // namespace sinew
