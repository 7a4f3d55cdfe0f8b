// sinew quantize: a model in fewer bits.
#include <fmt/format.h>

#include <map>
#include <memory>

#include "base/signals.hpp"
#include "base/text.hpp"
#include "cli/commands.hpp"
#include "quant/quantize_model.hpp"

namespace sinew::cli {
namespace {

struct Flags {
  QuantizeOptions options;
  double bits = 0;
  std::string size;
  bool json = false;
};

// One line for each format, then the whole.
void print_report(const QuantizeReport& report) {
  struct Sum {
    std::int64_t tensors = 0, elements = 0;
    double bytes = 0, worst = 0;
    std::string worst_name;
  };
  std::map<BlockFormat, Sum> sums;
  for (const TensorReport& tensor : report.tensors) {
    Sum& sum = sums[tensor.format];
    sum.tensors += 1;
    sum.elements += tensor.elements;
    sum.bytes += static_cast<double>(tensor.bytes);
    if (tensor.relative_error >= sum.worst) {
      sum.worst = tensor.relative_error;
      sum.worst_name = tensor.name;
    }
  }
  fmt::print("{:<8} {:>8} {:>10} {:>12} {:>12}  {}\n", "format", "tensors", "weights", "size", "worst error",
             "of");
  for (const auto& [format, sum] : sums)
    fmt::print("{:<8} {:>8} {:>10} {:>12} {:>11.3f}%  {}\n", block_info(format).name, sum.tensors,
               human_count(static_cast<double>(sum.elements)), human_bytes(sum.bytes), 100 * sum.worst,
               sum.worst_name);
  fmt::print("{} in all, {:.3f} bits per weight\n", human_bytes(static_cast<double>(report.file_bytes)),
             report.bits_per_weight);
}

}  // namespace

void add_quantize(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  QuantizeOptions& options = flags->options;
  CLI::App* command = app.add_subcommand("quantize", "Write a model in fewer bits, as one GGUF file");
  command->add_option("MODEL", options.source, "A Hugging Face directory or a GGUF file")->required();
  command->add_option("OUT", options.out, "The GGUF file to write")->required();
  command->add_option("--type", options.type,
                      "One format for all matrices (Q4_K, Q8_0, ..) or a mixture (Q4_K_M)");
  command->add_option("--bits", flags->bits, "Bits per weight: formats are chosen for each tensor");
  command->add_option("--size", flags->size, "Size of the file, e.g. 9G: formats are chosen for each tensor");
  command->add_option("--report", options.report, "Write a JSON report with the error of every tensor");
  command->add_flag("--json", flags->json, "Print that report instead of the summary");
  command->add_flag("--joined-kv-b", options.gguf.joined_kv_b,
                    "deepseek2: one attn_kv_b tensor, for llama.cpp of before April 2025");
  command->add_flag("--mtp", options.gguf.mtp,
                    "Keep the multi-token-prediction layers, which llama.cpp does not take");
  command->add_flag("--force", options.force, "Replace OUT");
  command->footer(
      "Examples:\n"
      "  sinew quantize DeepSeek-V2-Lite v2-lite.gguf --type Q4_K_M\n"
      "  sinew quantize DeepSeek-V2-Lite v2-lite.gguf --bits 4.5\n"
      "  sinew quantize model-f16.gguf small.gguf --size 700M --report report.json");
  command->callback([flags] {
    if (flags->bits != 0) flags->options.bits = flags->bits;
    if (!flags->size.empty()) flags->options.size = parse_size(flags->size);
    catch_stop_signals();
    const QuantizeReport report = quantize_model(flags->options);
    flags->json ? fmt::print("{}", report.json()) : print_report(report);
  });
}

}  // namespace sinew::cli
