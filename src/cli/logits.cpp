// sinew logits: logits, loss and gradient norms of given tokens, to compare with other implementations.
#include "cli/logits.hpp"

#include <memory>

#include "base/error.hpp"
#include "cli/commands.hpp"
#include "cli/engine_options.hpp"
#include "engine/logits_report.hpp"
#include "quant/convert.hpp"

namespace sinew::cli {
namespace {

void run(const LogitsOptions& o, const EngineOptions& e, bool on_engine) {
#ifdef SINEW_TRAIN
  if (!on_engine && !(fs::exists(o.model) && detect_format(o.model) == SourceFormat::gguf))
    return logits_with_torch(o);
#else
  (void)on_engine;
#endif
  require(!o.grad_norms, "logits: gradients need the libtorch path and a Hugging Face directory");
  require(o.dtype == "fp32" && o.device == "cpu", "logits: --dtype and --device are for the libtorch path");
  const TokenRows rows = read_token_rows(o.ids);
  auto options = e;
  if (options.kv == "auto") options.kv = "f32";
  const auto session = open_session(o.model, options, static_cast<std::int64_t>(rows[0].size()));
  engine::write_logits_report(*session, rows, o.loss, o.out);
}

}  // namespace

void add_logits(Command app) {
  struct Options {
    LogitsOptions logits;
    EngineOptions engine;
    bool on_engine = false;
  };
  auto options = std::make_shared<Options>();
  LogitsOptions& o = options->logits;
  Command command = app.add_subcommand("logits", "Logits, loss and gradient norms of given tokens, as JSON");
  command.add_option("MODEL", o.model, "A Hugging Face model directory or a GGUF file").required();
  command.add_option("--ids", o.ids, "JSON: [batch][T] token ids, or an object with \"input_ids\"")
      .required();
  command.add_option("--out", o.out, "The JSON file to write").required();
  command.add_flag("--loss", o.loss, "Also the mean cross-entropy against the next tokens");
  command.add_flag("--grad-norms", o.grad_norms,
                   "Also the loss and every tensor's gradient norm (libtorch path)");
  command.add_flag("--engine", options->on_engine,
                   "On the inference engine (GGUF files always are), else on libtorch");
  command.add_option("--dtype", o.dtype, "libtorch path: fp32, bf16 or fp64").capture_default_str();
  command.add_option("--device", o.device, "libtorch path: cpu, cuda, cuda:N or auto").capture_default_str();
  add_engine_options(command, options->engine);
  command.footer(
      "OUT holds {\"logits\": [batch][T][V], \"loss\": x, \"grad_norms\": {tensor: x}, \"grad_total_norm\": "
      "x}.\n"
      "Examples:\n"
      "  sinew logits MODEL --ids ids.json --out logits.json\n"
      "  sinew logits MODEL --ids ids.json --loss --grad-norms --out all.json\n"
      "  sinew logits model-q4.gguf --ids ids.json --loss --kv q8 --out q4.json");
  command.callback([options] { run(options->logits, options->engine, options->on_engine); });
}

}  // namespace sinew::cli
