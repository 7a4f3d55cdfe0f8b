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

// The network: sizes, parameters, memory by format, KV cache, FLOPs.
void add_model_facts(ReportBuilder& report, const ModelConfig& config);
// Bytes by format of what is stored: "BF16 12.3 GiB, F32 1.0 MiB".
void add_stored_bytes(ReportBuilder& report, const std::vector<TensorRow>& rows);

}  // namespace sinew
