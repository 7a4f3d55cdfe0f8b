// sinew logits: logits, loss and gradient norms of given tokens, to compare with other implementations.
#include <ATen/Parallel.h>

#include <memory>

#include "base/threads.hpp"
#include "cli/commands.hpp"
#include "model/logits_report.hpp"
#include "ops/device.hpp"

namespace sinew::cli {
namespace {

struct Options {
  std::string model, ids, out, dtype = "fp32", device = "cpu";
  LogitsReportOptions report;
};

void run(const Options& o) {
  at::set_num_threads(default_threads());
  const auto device = find_device(o.device);
  const auto rows = read_token_rows(o.ids);
  const auto model = load_model(o.model, find_number_type(o.dtype), device);
  write_logits_report(*model, rows, o.report, device, o.out);
}

}  // namespace

void add_logits(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("logits", "Logits, loss and gradient norms of given tokens, as JSON");
  command->add_option("MODEL", options->model, "A Hugging Face model directory")->required();
  command->add_option("--ids", options->ids, "JSON: [batch][T] token ids, or an object with \"input_ids\"")
      ->required();
  command->add_option("--out", options->out, "The JSON file to write")->required();
  command->add_flag("--loss", options->report.loss, "Also the mean cross-entropy against the next tokens");
  command->add_flag("--grad-norms", options->report.grad_norms,
                    "Also the loss and every tensor's gradient norm");
  command->add_option("--dtype", options->dtype, "fp32, bf16 or fp64")->capture_default_str();
  command->add_option("--device", options->device, "cpu, cuda, cuda:N or auto")->capture_default_str();
  command->footer(
      "OUT holds {\"logits\": [batch][T][V], \"loss\": x, \"grad_norms\": {tensor: x}, \"grad_total_norm\": "
      "x}.\n"
      "Examples:\n"
      "  sinew logits MODEL --ids ids.json --out logits.json\n"
      "  sinew logits MODEL --ids ids.json --loss --grad-norms --out all.json");
  command->callback([options] { run(*options); });
}

}  // namespace sinew::cli
