// sinew schedule: pipeline schedules, drawn and compared.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/files.hpp"
#include "cli/commands.hpp"
#include "schedule/simulate.hpp"

namespace sinew::cli {
namespace {

struct Options {
  std::string kind = "all", svg;
  int ranks = 4, micro_batches = 8, chunks = 2;
  double forward = 1, backward_input = 1, backward_weight = 1, send = 0;
  bool show = false, json = false;
};

void run(const Options& o) {
  require(o.forward >= 0 && o.backward_input >= 0 && o.backward_weight >= 0 && o.send >= 0 &&
              o.forward + o.backward_input + o.backward_weight > 0,
          "schedule: times must not be negative, nor all zero");
  const std::vector<ScheduleKind> kinds =
      o.kind == "all" ? schedule_kinds() : std::vector{parse_schedule_kind(o.kind)};
  require(o.svg.empty() || kinds.size() == 1, "schedule: --svg draws one schedule; name it with --kind");
  nlohmann::json rows = nlohmann::json::array();
  if (!o.json)
    fmt::print("{:<12} {:>6} {:>10} {:>8} {:>18}\n", "schedule", "chunks", "time", "idle",
               "peak activations");
  for (const ScheduleKind kind : kinds) {
    const Schedule schedule = make_schedule(kind, o.ranks, o.micro_batches, o.chunks);
    // Costs are those of the whole share of a rank: a chunk has its part of them.
    const double part = 1.0 / schedule.chunks;
    const Simulation sim =
        simulate(schedule,
                 {{o.forward * part, o.backward_input * part, o.backward_weight * part, part, part}}, o.send);
    double peak = 0;
    for (const double p : sim.peak_activation) peak = std::max(peak, p);
    if (o.json) {
      rows.push_back({{"schedule", schedule_name(kind)},
                      {"ranks", schedule.ranks},
                      {"chunks", schedule.chunks},
                      {"micro_batches", schedule.micro_batches},
                      {"makespan", sim.makespan},
                      {"bubble_share", sim.bubble_share},
                      {"peak_activation", sim.peak_activation}});
    } else {
      fmt::print("{:<12} {:>6} {:>10.6g} {:>7.1f}% {:>18.6g}\n", schedule_name(kind), schedule.chunks,
                 sim.makespan, 100 * sim.bubble_share, peak);
      if (o.show) fmt::print("{}", draw_text(schedule, sim));
    }
    if (!o.svg.empty())
      write_file_atomic(o.svg, draw_svg(schedule, sim,
                                        fmt::format("{}: {} ranks, {} micro-batches", schedule_name(kind),
                                                    schedule.ranks, schedule.micro_batches)));
  }
  if (o.json) fmt::print("{}\n", rows.dump(2));
  if (!o.json && kinds.size() > 1)
    fmt::print(
        "At equal micro-batches gpipe and 1f1b idle alike; gpipe-flush is GPipe within the memory of "
        "1f1b.\n");
}

}  // namespace

void add_schedule(Command app) {
  auto options = std::make_shared<Options>();
  Command command = app.add_subcommand("schedule", "Draw and compare pipeline schedules");
  command.footer(
      "Examples:\n"
      "  sinew schedule --ranks 8 --micro-batches 32\n"
      "  sinew schedule --kind zero-bubble --show\n"
      "  sinew schedule --kind dualpipe-v --ranks 8 --micro-batches 20 --svg dualpipe.svg\n"
      "gpipe-flush is GPipe with no more activations than 1f1b: it empties the pipeline after as many\n"
      "micro-batches as there are ranks. At equal micro-batches gpipe and 1f1b idle alike; at equal memory "
      "1f1b\nidles less.\n"
      "Times are for all the layers of a rank; activations count the layers of a rank for one micro-batch.");
  command
      .add_option("--kind", options->kind,
                  "gpipe, gpipe-flush, 1f1b, interleaved, zero-bubble, dualpipe-v or all")
      .capture_default_str();
  command.add_option("--ranks", options->ranks, "Pipeline ranks").capture_default_str();
  command.add_option("--micro-batches", options->micro_batches, "Micro-batches in a step")
      .capture_default_str();
  command.add_option("--chunks", options->chunks, "Chunks a rank (interleaved)").capture_default_str();
  command.add_option("--forward", options->forward, "Time of a forward pass").capture_default_str();
  command.add_option("--backward-input", options->backward_input, "Time of the input gradient")
      .capture_default_str();
  command.add_option("--backward-weight", options->backward_weight, "Time of the weight gradient")
      .capture_default_str();
  command.add_option("--send", options->send, "Time between ranks").capture_default_str();
  command.add_flag("--show", options->show, "Draw the timeline as text (lower case: odd chunks)");
  command.add_option("--svg", options->svg, "Draw the timeline into this SVG file");
  command.add_flag("--json", options->json, "Print JSON");
  command.callback([options] { run(*options); });
}

}  // namespace sinew::cli
