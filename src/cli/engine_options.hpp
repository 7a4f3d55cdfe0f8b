// Flags of the commands that run the engine.
#pragma once

#include "cli/command_line.hpp"

#include <memory>
#include <string>

#include "engine/sampling.hpp"
#include "engine/session.hpp"

namespace sinew::cli {

struct EngineOptions {
  std::string kv = "auto";
  std::string memory;        // empty: all there is
  std::int64_t context = 0;  // 0: what the work needs
  int threads = 0;
  bool pack_file = true;  // keep repacked weights beside the model
};
void add_engine_options(Command command, EngineOptions& options);

// Loads the model and makes room for `tokens` tokens (or --context).
std::unique_ptr<engine::Session> open_session(const std::string& model, const EngineOptions& options,
                                              std::int64_t tokens);

// On standard error: how the experts that stay on disk were found.
void print_expert_counts(const engine::Session& session);

// "auto": f32 for weights in F32, else bf16.
engine::KvType find_kv_type(const std::string& name, const engine::Model& model);

void add_sampling_options(Command command, engine::Sampling& sampling);

}  // namespace sinew::cli
