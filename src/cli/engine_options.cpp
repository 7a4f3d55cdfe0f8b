#include "cli/engine_options.hpp"

#include <algorithm>
#include <cstdlib>

#include "base/error.hpp"
#include "base/text.hpp"
#include "engine/packing.hpp"
#include "quant/quantize_model.hpp"

namespace sinew::cli {

void add_engine_options(Command command, EngineOptions& options) {
  command
      .add_option("--kv", options.kv,
                  "Cache of keys and values: f32, f16, bf16, q8, q4 (auto: f32 for F32 weights, else bf16)")
      .capture_default_str();
  command.add_option(
      "--memory", options.memory,
      "For the weights, e.g. 6G: what is over it of a mixture of experts stays on disk and is read "
      "as it is needed");
  command.add_option("--context", options.context, "Tokens the cache has room for (0: what is needed)")
      .range(std::int64_t{0}, std::int64_t{1} << 30)
      .capture_default_str();
  command.add_flag("!--no-pack-file", options.pack_file,
                   "Do not keep the repacked weights of a large model beside it (MODEL.sinew-packed)");
  command.add_option("--threads", options.threads, "Threads (default: the cores there are)").range(1, 1024);
}

engine::KvType find_kv_type(const std::string& name, const engine::Model& model) {
  if (name != "auto") return engine::parse_kv_type(name);
  return model.embedding.plain_f32() ? engine::KvType::f32 : engine::KvType::bf16;
}

std::unique_ptr<engine::Session> open_session(const std::string& path, const EngineOptions& options,
                                              std::int64_t tokens) {
  if (options.threads > 0) ::setenv("SINEW_THREADS", std::to_string(options.threads).c_str(), 1);
  const auto model = engine::load_model(path);
  if (!options.memory.empty()) engine::stream_experts(*model, parse_size(options.memory));
  engine::pack_model(*model, {.file = options.pack_file ? engine::PackFile::write : engine::PackFile::none});
  const std::int64_t wanted = options.context > 0 ? options.context : tokens;
  return std::make_unique<engine::Session>(
      model, engine::SessionOptions{
                 .kv = find_kv_type(options.kv, *model),
                 .cache_tokens = std::clamp<std::int64_t>(wanted, 1, model->config.max_position_embeddings)});
}

void print_expert_counts(const engine::Session& session) {
  if (session.model().store == nullptr) return;
  const engine::ExpertStore& store = *session.model().store;
  const engine::ExpertCounts& c = store.counts();
  fmt::print(
      stderr,
      "experts: {:.1f} % of {} uses were in memory, {:.1f} % on the way; {} read by {}, {} ahead; waited "
      "{:.1f} s\n",
      100 * c.hit_rate(), c.hits + c.foreseen + c.misses,
      100 * static_cast<double>(c.foreseen) /
          std::max(1.0, static_cast<double>(c.hits + c.foreseen + c.misses)),
      human_bytes(static_cast<double>(c.bytes_read)), store.way(), c.prefetched, c.wait_seconds);
}

void add_sampling_options(Command command, engine::Sampling& s) {
  const auto number = [&](const char* name, auto& value, const char* help) {
    command.add_option(name, value, help).capture_default_str().group("Sampling");
  };
  number("--temperature", s.temperature, "0 takes the likeliest token");
  number("--top-k", s.top_k, "Only the K likeliest tokens; 0 for all");
  number("--top-p", s.top_p, "Only the likeliest tokens that make up probability P");
  number("--min-p", s.min_p, "Only tokens of at least this share of the greatest probability");
  number("--typical-p", s.typical_p, "Only the most typical tokens that make up this probability");
  number("--repetition-penalty", s.repetition_penalty, "Divides the logits of recent tokens");
  number("--frequency-penalty", s.frequency_penalty, "Taken off a token's logit for each recent occurrence");
  number("--presence-penalty", s.presence_penalty, "Taken off the logits of recent tokens");
  number("--penalty-window", s.penalty_window, "How many tokens are recent; -1 for all");
  number("--dry-multiplier", s.dry_multiplier, "DRY: strength against repeated passages; 0 for none");
  number("--dry-base", s.dry_base, "DRY: growth with each token of the passage");
  number("--dry-allowed-length", s.dry_allowed_length, "DRY: passages this long go free");
  number("--mirostat", s.mirostat, "1 or 2: hold the surprise of the text, instead of truncation");
  number("--mirostat-tau", s.mirostat_tau, "Mirostat: bits of surprise a token");
  number("--mirostat-eta", s.mirostat_eta, "Mirostat: how fast it learns");
  number("--seed", s.seed, "The same seed gives the same text");
}

}  // namespace sinew::cli
