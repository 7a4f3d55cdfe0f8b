// sinew bench infer: prefill and decoding against this machine's memory and arithmetic.
#include <fmt/format.h>
#include <sys/resource.h>

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/text.hpp"
#include "base/threads.hpp"
#include "cli/commands.hpp"
#include "config/presets.hpp"
#include "engine/infer_bench.hpp"
#include "engine/packing.hpp"
#include "engine/random_model.hpp"
#include "kernels/isa.hpp"
#include "kernels/read_bandwidth.hpp"

namespace sinew::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string preset, model, type = "Q4_K_M", write, kv = "bf16";
  bool random = false, json = false, pack = true, pack_file = true;
  std::vector<std::int64_t> prefill{512}, depths{0, 4096}, batches{1};
  int repeats = 3, steps = 24;
};

ModelConfig preset_config(const std::string& name) {
  std::string folder = name;
  if (name == "v2-lite") folder = "deepseek-v2-lite";
  if (name == "llama-1b") folder = "llama-1.1b";
  if (name == "olmoe") folder = "olmoe-like";
  const auto known = model_presets();
  require(std::find(known.begin(), known.end(), folder) != known.end(), "no preset '{}'{}; known are {}",
          name, did_you_mean(name, known), join(known, ", "));
  return load_model_config(configs_dir() / "models" / folder);
}

// Bytes of this process's memory that no file backs.
double own_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("RssAnon:")) return std::stod(line.substr(8)) * 1024;
  return 0;
}

double peak_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024;
}

std::shared_ptr<engine::Model> make(const Options& o, double& seconds) {
  const double start = clock_seconds();
  std::shared_ptr<engine::Model> model;
  if (!o.model.empty()) {
    model = engine::load_model(o.model);
    if (o.pack)
      engine::pack_model(*model, {.file = o.pack_file ? engine::PackFile::write : engine::PackFile::none});
  } else {
    model = engine::random_model(preset_config(o.preset), o.type, 1);
  }
  seconds = clock_seconds() - start;
  return model;
}

Json times(const MedianRange& t, double tokens) {
  return {{"tokens_per_s", tokens / t.median},
          {"tokens_per_s_best", tokens / t.least},
          {"tokens_per_s_worst", tokens / t.greatest}};
}

void add_share(Json& line, const char* name, const engine::Share& s) {
  line[name] = s.range.median;
  line["share_least"] = s.range.least;
  line["share_greatest"] = s.range.greatest;
  line["limit_beside"] = s.limit;
}

class Report {
 public:
  // The limit of reading is that of these weights where they lie.
  Report(const Options& o, const engine::Model& m)
      : o_(o), reading_(read_bandwidth(engine::decoding_memory(m))), peak_(int8_peak()) {
    if (!o.json)
      fmt::print("{} threads, {}: reads these weights ({}) at {:.1f} GB/s, 8-bit products {:.0f} GOP/s\n",
                 default_threads(), isa_name(active_isa()), human_bytes(static_cast<double>(reading_.bytes)),
                 reading_.bytes_per_second / 1e9, peak_ / 1e9);
  }

  void model(const engine::Model& m, double seconds) const {
    Json line = head("infer_model");
    line["weight_bytes"] = m.weight_bytes;
    line["bytes_per_token"] = m.bytes_per_token();
    line["operations_per_token"] = engine::operations_per_token(m);
    line["made_in_s"] = seconds;
    line["peak_memory_bytes"] = peak_memory();
    line["own_memory_bytes"] = own_memory();
    say(line, [&] {
      return fmt::format(
          "{} of weights, {} read a token, {:.2f} GOP a token; made in {:.2f} s, {} of memory, {} of "
          "it beside mapped files",
          human_bytes(static_cast<double>(m.weight_bytes)),
          human_bytes(static_cast<double>(m.bytes_per_token())), engine::operations_per_token(m) / 1e9,
          seconds, human_bytes(peak_memory()), human_bytes(own_memory()));
    });
  }

  // After all of it: cache and buffers included.
  void memory() const {
    Json line = head("infer_memory");
    line["peak_memory_bytes"] = peak_memory();
    line["own_memory_bytes"] = own_memory();
    say(line, [&] {
      return fmt::format("{} of memory at most, {} of it beside mapped files at the end",
                         human_bytes(peak_memory()), human_bytes(own_memory()));
    });
  }

  const ReadPattern& pattern() const { return reading_.pattern; }

  void prefill(const engine::PrefillFigure& f) const {
    const auto tokens = static_cast<double>(f.tokens);
    const engine::Share& share = f.of_peak;
    const double least = std::max(f.operations / peak_, f.weight_bytes / reading_.bytes_per_second);
    Json line = head("infer_prefill");
    line["tokens"] = f.tokens;
    line.update(times(f.seconds, tokens));
    line["gop_per_s"] = f.operations / f.seconds.median / 1e9;
    add_share(line, "share_of_int8_peak", share);
    line["share_of_limits"] =
        least / f.seconds.median;  // of the slower of arithmetic and reading every weight once
    say(line, [&] {
      return fmt::format(
          "prefill {:>5}           {:>8.1f} tokens/s (best {:.1f}); {:.0f} GOP/s, {} % of the peak beside it "
          "({:.0f}), {:.1f} % of what memory and peak allow",
          f.tokens, tokens / f.seconds.median, tokens / f.seconds.least,
          f.operations / f.seconds.median / 1e9, range_text(share.range, 0.01, 1), share.limit / 1e9,
          100 * least / f.seconds.median);
    });
  }

  void decode(const engine::DecodeFigure& f) const {
    const auto batch = static_cast<double>(f.batch);
    const double bytes = f.weight_bytes + f.cache_bytes;
    Json line = head("infer_decode");
    line["depth"] = f.depth;
    line["batch"] = f.batch;
    line.update(times(f.seconds, batch));
    if (f.batch == 1) {
      line["weight_bytes"] = f.weight_bytes;
      line["cache_bytes"] = f.cache_bytes;
      line["gb_per_s"] = bytes / f.seconds.median / 1e9;
      add_share(line, "share_of_bandwidth", f.of_reading);
    }
    say(line, [&] {
      auto text = fmt::format("decode at {:>5} x {:<3}    {:>8.2f} tokens/s (best {:.2f})", f.depth, f.batch,
                              batch / f.seconds.median, batch / f.seconds.least);
      if (f.batch == 1)
        text += fmt::format("; {:.1f} GB/s, {} % of bare reading beside it ({:.1f})",
                            bytes / f.seconds.median / 1e9, range_text(f.of_reading.range, 0.01, 1),
                            f.of_reading.limit / 1e9);
      return text;
    });
  }

 private:
  Json head(const char* bench) const {
    return {{"bench", bench},
            {"model", o_.model.empty() ? o_.preset : o_.model},
            {"type", o_.model.empty() ? o_.type : "file"},
            {"kv", o_.kv},
            {"threads", default_threads()},
            {"isa", isa_name(active_isa())},
            {"read_bytes", reading_.bytes},
            {"read_bytes_per_s", reading_.bytes_per_second},
            {"int8_ops_per_s", peak_}};
  }
  template <class Text>
  void say(const Json& line, const Text& text) const {
    fmt::print("{}\n", o_.json ? line.dump() : text());
    std::fflush(stdout);
  }

  const Options& o_;
  ReadBandwidth reading_;
  double peak_;
};

void run(const Options& o) {
  require(o.preset.empty() != o.model.empty(), "give one of --preset and --model");
  if (!o.write.empty()) {
    require(!o.preset.empty(), "--write needs --preset");
    engine::write_random_gguf(preset_config(o.preset), o.type, 1, o.write);
    fmt::print("{}: written\n", o.write);
    return;
  }
  require(o.preset.empty() || o.random, "a preset has no weights: add --random");
  double seconds = 0;
  const auto model = make(o, seconds);
  const Report report(o, *model);
  report.model(*model, seconds);
  std::int64_t longest = 0;
  for (const std::int64_t n : o.prefill) longest = std::max(longest, n);
  for (const std::int64_t batch : o.batches)
    longest = std::max(longest, engine::decoding_tokens(o.depths, batch, o.steps));
  engine::Session session(model, {.kv = engine::parse_kv_type(o.kv), .cache_tokens = longest + 64});
  for (const std::int64_t n : o.prefill)
    if (n > 0) report.prefill(engine::bench_prefill(session, n, o.repeats));
  for (const std::int64_t batch : o.batches)
    for (const auto& figure : engine::bench_decode(session, o.depths, batch, o.steps, report.pattern()))
      report.decode(figure);
  report.memory();
}

}  // namespace

void add_bench_infer(Command bench) {
  auto options = std::make_shared<Options>();
  Command command = bench.add_subcommand(
      "infer", "Inference: prefill and decoding against memory bandwidth and 8-bit peak");
  command.footer(
      "Read bandwidth (bare reading of the same weights, the best of several patterns) and the peak of\n"
      "8-bit products are measured in the same process, at its beginning and again after each prefill and\n"
      "each turn of steps: shares are of the latter, the median and in brackets the least and the greatest.\n"
      "Set SINEW_THREADS and SINEW_ISA to choose threads and instructions.\n\n"
      "Examples:\n"
      "  sinew bench infer --preset v2-lite --random\n"
      "  sinew bench infer --preset olmoe --random --depth 0 --prefill 512 --json\n"
      "  sinew bench infer --model model.gguf --batch 1,4\n"
      "  sinew bench infer --preset llama-1b --type Q4_K_M --write llama-1b.gguf");
  command.add_option("--preset", options->preset, "v2-lite, olmoe, llama-1b or a name under configs/models");
  command.add_option("--model", options->model, "A model file or folder instead");
  command.add_flag("--random", options->random, "Random weights, made in memory");
  command.add_option("--type", options->type, "Format or mixture of the random weights (default Q4_K_M)");
  command.add_option("--write", options->write,
                     "Write the random weights to this GGUF file instead of running");
  command.add_option("--kv", options->kv, "Cache: f32, f16, bf16 (default), q8 or q4");
  command.add_option("--prefill", options->prefill, "Tokens of each prefill (default 512; 0: none)")
      .delimiter(',');
  command.add_option("--depth", options->depths, "Tokens before decoding (default 0,4096)")
      .delimiter(',')
      .range(0, 1 << 30);
  command.add_option("--batch", options->batches, "Sequences decoded at once (default 1)")
      .delimiter(',')
      .range(1, 512);
  command.add_option("--repeats", options->repeats, "Measured prefills (default 3)").range(1, 1000);
  command.add_option("--steps", options->steps, "Measured steps of decoding (default 24)").range(1, 10000);
  command.add_flag("!--no-pack", options->pack, "Read the file's blocks as they are");
  command.add_flag("!--no-pack-file", options->pack_file,
                   "Do not keep the repacked weights of a large file beside it");
  command.add_flag("--json", options->json, "One JSON line a measurement");
  command.callback([options] { run(*options); });
}

}  // namespace sinew::cli
