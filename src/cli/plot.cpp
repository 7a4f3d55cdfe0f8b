// sinew plot: curves of runs as one SVG.
#include <fmt/format.h>

#include <memory>

#include "base/files.hpp"
#include "cli/commands.hpp"
#include "inspect/curves.hpp"

namespace sinew::cli {

void add_plot(Command app) {
  struct Options {
    PlotOptions plot;
    std::vector<std::string> runs;
    std::string out;
  };
  auto o = std::make_shared<Options>();
  o->plot.metrics = {"loss"};
  Command command = app.add_subcommand("plot", "Draw curves of runs as one SVG picture");
  command.footer(
      "The picture needs no other file and follows the reader's light or dark mode.\n"
      "Examples:\n"
      "  sinew plot out/demo/run --out loss.svg --smooth 0.9\n"
      "  sinew plot runs/moe runs/dense --name MoE --name dense --metric val_loss --out compare.svg\n"
      "  sinew plot run --metric loss --metric grad_norm --x tokens --log-x --out run.svg");
  command.add_option("runs", o->runs, "Run directories, or metrics.jsonl files").required();
  command.add_option("--out", o->out, "SVG file to write").required();
  command.add_option("--metric", o->plot.metrics, "What to draw: loss, val_loss, lr, ..; one chart each")
      .capture_default_str()
      .delimiter(',')
      .allow_extra_args(false);
  command.add_option("--x", o->plot.x, "Over what: step, tokens or another metric").capture_default_str();
  command.add_option("--name", o->plot.names, "Name of a run in the legend, once a run")
      .allow_extra_args(false);
  command.add_option("--title", o->plot.title, "Title of the picture");
  command
      .add_option("--smooth", o->plot.smooth,
                  "Share of the past in a moving average, 0 to below 1 (curves of 20 points or more)")
      .capture_default_str();
  command.add_flag("--log-x", o->plot.log_x, "Logarithmic x axis");
  command.add_flag("--log-y", o->plot.log_y, "Logarithmic y axis");
  command.callback([o] {
    o->plot.runs.assign(o->runs.begin(), o->runs.end());
    write_file_atomic(o->out, plot_svg(o->plot));
    fmt::print("{}\n", o->out);
  });
}

}  // namespace sinew::cli
