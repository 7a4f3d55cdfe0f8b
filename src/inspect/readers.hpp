// One function for each kind of file, and what they share. Inside this room only.
#pragma once

#include <filesystem>

#include "config/model_config.hpp"
#include "inspect/inspect.hpp"
#include "inspect/report_builder.hpp"

namespace sinew {

Report inspect_config(const std::filesystem::path& path, const ModelConfig& config,
                      const InspectOptions& options);
Report inspect_model_directory(const std::filesystem::path& path, const InspectOptions& options);
Report inspect_safetensors(const std::filesystem::path& path, const InspectOptions& options);
Report inspect_weights_index(const std::filesystem::path& path, const InspectOptions& options);
Report inspect_gguf(const std::filesystem::path& path, const InspectOptions& options);
Report inspect_metrics(const std::filesystem::path& path);
Report inspect_checkpoint(const std::filesystem::path& path, const InspectOptions& options);
// A run's folder, or the one its step-N lie in.
bool holds_checkpoints(const std::filesystem::path& directory);
Report inspect_run(const std::filesystem::path& path);
Report inspect_data_set(const std::filesystem::path& path);
Report inspect_tokenizer(const std::filesystem::path& path);

// The network: sizes, parameters, memory by format, KV cache, FLOPs.
void add_model_facts(ReportBuilder& report, const ModelConfig& config);
// Kind, size and special tokens of the tokenizer in a file or folder. Where a model has `vocabulary`
// embeddings (0: no model), a tokenizer with more ids than these is an error.
void add_tokenizer_facts(ReportBuilder& report, const std::filesystem::path& path, std::int64_t vocabulary);
// Whether a folder holds a tokenizer file.
bool holds_tokenizer(const std::filesystem::path& directory);
// Bytes by format of what is stored: "BF16 12.3 GiB, F32 1.0 MiB".
void add_stored_bytes(ReportBuilder& report, const std::vector<TensorRow>& rows);

}  // namespace sinew
