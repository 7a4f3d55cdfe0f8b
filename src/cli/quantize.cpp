// sinew quantize: a model in fewer bits.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>

#include "base/signals.hpp"
#include "base/text.hpp"
#include "cli/commands.hpp"
#include "compress/compress_model.hpp"
#include "quant/quantize_model.hpp"

namespace sinew::cli {
namespace {

struct Flags {
  compress::CompressOptions compress;
  double max_kl = 0;
  std::string method = "gptq";
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

void print_quality(const compress::CompressReport& report) {
  const compress::Comparison& quality = report.quality;
  fmt::print("{}, calibrated on {} tokens; on {} tokens held out:\n",
             report.method == compress::Method::gptq ? "GPTQ" : "Rounding", report.calibration_tokens,
             quality.tokens);
  fmt::print("perplexity {:.4f}, unquantized {:.4f} ({:+.3f} %)\n", quality.perplexity,
             quality.base_perplexity, 100 * (quality.perplexity / quality.base_perplexity - 1));
  fmt::print("KL divergence {:.5f} nats a token{}, same most likely token {:.2f} %\n", quality.kl,
             report.predicted_kl ? fmt::format(" ({:.5f} predicted)", *report.predicted_kl) : "",
             100 * quality.same_top);
  fmt::print("error after each layer, %:");
  for (const double error : quality.layer_errors) fmt::print(" {:.2f}", 100 * error);
  fmt::print("\n");
  if (report.rare.empty()) return;
  fmt::print("{} experts saw fewer than {} tokens and lean on their layer's average:", report.rare.size(),
             static_cast<int>(compress::kPriorTokens));
  for (std::size_t i = 0; i < std::min<std::size_t>(8, report.rare.size()); ++i)
    fmt::print(" {}.{} ({})", report.rare[i].layer, report.rare[i].expert,
               static_cast<int>(report.rare[i].tokens));
  fmt::print("{}\n", report.rare.size() > 8 ? " .." : "");
}

void add_calibration(Command command, Flags& flags) {
  compress::CompressOptions& options = flags.compress;
  const Option text =
      command.add_option("--calibrate", options.text,
                         "Text like what the model will read: calibrate on it, and measure the result");
  const auto with_text = [text](Option option) { option.needs(text); };
  with_text(
      command.add_option("--max-kl", flags.max_kl,
                         "The smallest file whose predictions stay within this KL divergence, nats a token"));
  with_text(command.add_option("--method", flags.method, "gptq, or round (faster)")
                .one_of({"gptq", "round"})
                .capture_default_str());
  with_text(command.add_option("--eval-text", options.eval_text,
                               "Measure on this text (default: the last tenth of --calibrate, held out)"));
  with_text(
      command.add_option("--statistics", options.statistics,
                         "Keep calibration and sensitivities in this file, and use them if it is there"));
  with_text(command.add_option("--tokens", options.tokens, "Tokens to calibrate on").capture_default_str());
  with_text(
      command.add_option("--eval-tokens", options.eval_tokens, "Tokens to measure on").capture_default_str());
  with_text(command.add_option("--sensitivity-tokens", options.sensitivity_tokens,
                               "Tokens for the sensitivity of each tensor (default: by the model's size)"));
  with_text(
      command.add_option("--window", options.window, "Tokens of a window of text").capture_default_str());
}

}  // namespace

void add_quantize(Command app) {
  auto flags = std::make_shared<Flags>();
  QuantizeOptions& options = flags->compress.quantize;
  Command command = app.add_subcommand("quantize", "Write a model in fewer bits, as one GGUF file");
  command.add_option("MODEL", options.source, "A Hugging Face directory or a GGUF file").required();
  command.add_option("OUT", options.out, "The GGUF file to write").required();
  command.add_option("--type", options.type,
                     "One format for all matrices (Q4_K, Q8_0, ..) or a mixture (Q4_K_M)");
  command.add_option("--bits", flags->bits, "Bits per weight: formats are chosen for each tensor");
  command.add_option("--size", flags->size, "Size of the file, e.g. 9G: formats are chosen for each tensor");
  command.add_option("--report", options.report,
                     "Write a report with the error of every tensor: JSON, or a page if it ends in .html");
  command.add_flag("--json", flags->json, "Print that report instead of the summary");
  command.add_flag("--joined-kv-b", options.gguf.joined_kv_b,
                   "deepseek2: one attn_kv_b tensor, for llama.cpp of before April 2025");
  command.add_flag("--split-experts", options.gguf.split_experts,
                   "A tensor and a format for each expert; llama.cpp does not read such files");
  command.add_flag("--mtp", options.gguf.mtp,
                   "Keep the multi-token-prediction layers, which llama.cpp does not take");
  command.add_flag("--force", options.force, "Replace OUT");
  add_calibration(command, *flags);
  command.footer(
      "Examples:\n"
      "  sinew quantize DeepSeek-V2-Lite v2-lite.gguf --type Q4_K_M\n"
      "  sinew quantize DeepSeek-V2-Lite v2-lite.gguf --bits 4.5\n"
      "  sinew quantize DeepSeek-V2-Lite v2-lite.gguf --bits 3.5 --calibrate prose.txt --statistics "
      "v2-lite.cal\n"
      "  sinew quantize DeepSeek-V2-Lite v2-lite.gguf --max-kl 0.01 --calibrate prose.txt --report "
      "report.html\n"
      "  sinew quantize model-f16.gguf small.gguf --size 700M --report report.json");
  command.callback([flags] {
    QuantizeOptions& quantize = flags->compress.quantize;
    if (flags->bits != 0) quantize.bits = flags->bits;
    if (!flags->size.empty()) quantize.size = parse_size(flags->size);
    if (flags->max_kl != 0) flags->compress.max_kl = flags->max_kl;
    catch_stop_signals();
    if (flags->compress.text.empty()) {
      const QuantizeReport report = quantize_model(quantize);
      flags->json ? fmt::print("{}", report.json()) : print_report(report);
      return;
    }
    flags->compress.method = flags->method == "round" ? compress::Method::round : compress::Method::gptq;
    const compress::CompressReport report = compress::compress_model(flags->compress);
    if (flags->json) {
      fmt::print("{}", report.json());
      return;
    }
    print_report(report.weights);
    print_quality(report);
  });
}

}  // namespace sinew::cli
