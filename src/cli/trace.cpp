// sinew trace: where the time of a run's steps went, on every rank.
#include "inspect/trace.hpp"

#include <fmt/format.h>

#include <memory>

#include "cli/commands.hpp"

namespace sinew::cli {

void add_trace(Command app) {
  struct Options {
    std::string run, out;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  Command command =
      app.add_subcommand("trace", "Join the traces of a run's ranks into one for Perfetto or Chrome");
  command.footer(
      "`sinew train` keeps a trace of its first log.trace_steps steps in RUN/trace/, one file a rank. This "
      "joins\n"
      "them and says how many seconds each rank computed, waited for others (communication), waited for its\n"
      "neighbours in the pipeline (bubble) and for data, and updated weights (optimizer).\n"
      "Examples:\n"
      "  sinew trace out/run\n"
      "  sinew trace out/run --out trace.json --json");
  command.add_option("run", options->run, "Folder of the run").required().type_name("RUN");
  command.add_option("--out", options->out, "File to write (default RUN/trace.json)").type_name("FILE");
  command.add_flag("--json", options->json, "Print one JSON object");
  command.callback([options] {
    const std::filesystem::path run = options->run;
    const auto report =
        merge_traces(run, options->out.empty() ? run / "trace.json" : std::filesystem::path(options->out));
    fmt::print("{}", options->json ? report.json : report.text);
  });
}

}  // namespace sinew::cli
