#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "plan/answer.hpp"

namespace sinew::plan {
namespace {

using nlohmann::ordered_json;

std::string dollars(double d) {
  return d >= 1e6 ? fmt::format("${:.2f}M", d / 1e6) : fmt::format("${:.0f}", d);
}
std::string gb(double bytes) { return fmt::format("{:.1f}", bytes / 1e9); }

std::string totals_text(const Answer& a) {
  const RunTotals& t = a.totals;
  std::string out;
  if (t.steps > 0) {
    out += fmt::format("{} tokens: {} steps, {:.1f} days, {} accelerator-hours, {}, {:.0f} MWh\n",
                       human_count(a.job.tokens), with_commas(static_cast<std::uint64_t>(t.steps)), t.days,
                       human_count(t.accelerator_hours), dollars(t.dollars), t.megawatt_hours);
  }
  const Goodput& g = t.goodput;
  out += fmt::format(
      "failures: one every {:.2f} h{}; effective time {:.1f} % with a checkpoint every {} ({} each)\n",
      g.mtbf_hours, t.steps > 0 ? fmt::format(", {:.0f} in all", g.failures) : "", 100 * g.share,
      human_seconds(g.interval), human_bytes(t.checkpoint_bytes));
  out += fmt::format(
      "  lost to restarts {:.1f} %, to work done again {:.1f} %, to checkpoints {:.1f} %; recovery from "
      "memory {} {:.1f} %; {} spare nodes\n",
      100 * g.restart_loss, 100 * g.rework_loss, 100 * g.checkpoint_loss,
      a.cluster.failures.in_memory ? "saves" : "would save", 100 * t.memory_recovery_gain, t.spares);
  return out;
}

ordered_json step_json(const Candidate& c) {
  const StepPrediction& p = c.step;
  const MemoryUse& m = p.memory;
  ordered_json time;
  for (int i = 0; i < term_count; ++i)
    time[term_name(static_cast<Term>(i))] = p.time.work.seconds[static_cast<std::size_t>(i)];
  time["bubble"] = p.time.bubble;
  time["data"] = p.time.data;
  time["optimizer"] = p.time.optimizer;
  time["other"] = p.time.other;
  return {{"layout", layout_text(c.setup.layout)},
          {"precision", precision_name(c.setup.job.precision)},
          {"step_time_s", p.seconds},
          {"tokens_per_s", p.tokens_per_second},
          {"mfu", p.mfu},
          {"bubble_share", p.bubble_share},
          {"time_s", time},
          {"memory_bytes",
           {{"weights", m.weights},
            {"gradients", m.gradients},
            {"optimizer", m.optimizer},
            {"activations", m.activations},
            {"buffers", m.buffers},
            {"runtime", m.runtime},
            {"total", m.total()}}}};
}

ordered_json totals_json(const RunTotals& t) {
  return {{"steps", t.steps},
          {"days", t.days},
          {"accelerator_hours", t.accelerator_hours},
          {"dollars", t.dollars},
          {"mwh", t.megawatt_hours},
          {"goodput", t.goodput.share},
          {"failures", t.goodput.failures},
          {"mtbf_hours", t.goodput.mtbf_hours},
          {"checkpoint_interval_s", t.goodput.interval},
          {"checkpoint_bytes", t.checkpoint_bytes},
          {"spare_nodes", t.spares},
          {"memory_recovery_gain", t.memory_recovery_gain}};
}

}  // namespace

std::string answer_text(const Answer& a) {
  const NetworkCounts n = count(a.network);
  std::string out =
      fmt::format("{}: {} parameters, {} active, on {} x {} ({})\n", a.network.name, human_count(n.total),
                  human_count(n.active), with_commas(static_cast<std::uint64_t>(a.cluster.count)),
                  a.cluster.chip.name, precision_name(a.job.precision));
  out += fmt::format(
      "batch {} x {} tokens; {} layouts considered, {} simulated in {:.2f} s ({:.1f} million a second)\n\n",
      a.job.global_batch, a.job.sequence, with_commas(a.search.considered), with_commas(a.search.simulated),
      a.search.seconds, static_cast<double>(a.search.considered) / std::max(1e-9, a.search.seconds) / 1e6);
  out += fmt::format("{:>9} {:>11} {:>6} {:>7} {:>8}  layout\n", "step s", "tokens/s", "MFU", "bubble",
                     "mem GB");
  for (const Candidate& c : a.search.best)
    out += fmt::format("{:>9.3f} {:>11} {:>5.1f}% {:>6.1f}% {:>8}  {}\n", c.step.seconds,
                       human_count(c.step.tokens_per_second), 100 * c.step.mfu, 100 * c.step.bubble_share,
                       gb(c.step.memory.total()), layout_text(c.setup.layout));
  const Candidate& best = a.search.best[0];
  const StepPrediction& p = best.step;
  out += "\nwhere the time goes: ";
  const auto share = [&](const char* name, double seconds) {
    if (seconds > 0.004 * p.seconds) out += fmt::format("{} {:.1f} %  ", name, 100 * seconds / p.seconds);
  };
  for (int i = 0; i < term_count; ++i)
    share(term_name(static_cast<Term>(i)), p.time.work.seconds[static_cast<std::size_t>(i)]);
  share("bubble", p.time.bubble);
  share("data", p.time.data);
  share("optimizer", p.time.optimizer);
  share("other", p.time.other);
  const MemoryUse& m = p.memory;
  out += fmt::format(
      "\nmemory (GB of {}): weights {}  gradients {}  optimizer {}  activations {}  buffers {}  runtime "
      "{}\n\n",
      gb(a.cluster.chip.memory_bytes), gb(m.weights), gb(m.gradients), gb(m.optimizer), gb(m.activations),
      gb(m.buffers), gb(m.runtime));
  return out + totals_text(a);
}

std::string answer_json(const Answer& a) {
  const NetworkCounts n = count(a.network);
  ordered_json doc;
  doc["model"] = {{"name", a.network.name}, {"parameters", n.total}, {"active", n.active}};
  doc["cluster"] = {{"accelerator", a.cluster.chip.name},
                    {"count", a.cluster.count},
                    {"price_per_hour", a.cluster.price_hour},
                    {"watts_per_accelerator", a.cluster.watts}};
  doc["job"] = {{"tokens", a.job.tokens},
                {"sequence", a.job.sequence},
                {"global_batch", a.job.global_batch},
                {"precision", precision_name(a.job.precision)}};
  doc["search"] = {
      {"considered", a.search.considered}, {"simulated", a.search.simulated}, {"seconds", a.search.seconds}};
  for (const Candidate& c : a.search.best) doc["best"].push_back(step_json(c));
  doc["run"] = totals_json(a.totals);
  for (const Candidate& c : a.front) doc["front"].push_back(step_json(c));
  for (const ScalePoint& s : a.scaling) {
    ordered_json one = step_json(s.best);
    one["count"] = s.count;
    one["bend"] = s.bend;
    one["run"] = totals_json(s.totals);
    doc["scaling"].push_back(one);
  }
  for (const SensitivityRow& s : a.sensitivity)
    doc["sensitivity"].push_back({{"change", s.change},
                                  {"step_time_s", s.seconds},
                                  {"days", s.days},
                                  {"dollars", s.dollars},
                                  {"goodput", s.goodput}});
  return doc.dump(1) + "\n";
}

std::string islands_text(const IslandAnswer& a, const Islands& islands) {
  std::string out;
  for (std::size_t i = 0; i < a.parts.size(); ++i) {
    const Candidate& best = a.parts[i].search.best[0];
    out += fmt::format("island {}: {} x {}, {:.0f} % of the batch, {:.3f} s a step, {}\n", i + 1,
                       islands.parts[i].count, islands.parts[i].chip.name, 100 * a.batch_share[i],
                       best.step.seconds, layout_text(best.setup.layout));
  }
  out += fmt::format("averaging every {} steps over {:.0f} Gbit/s: {:.3f} s a step\n{:.3f} s a step in all",
                     islands.outer_steps, islands.link * 8 / 1e9, a.exchange, a.seconds);
  if (a.days > 0) out += fmt::format("; {:.1f} days, {}", a.days, dollars(a.dollars));
  return out + "\n";
}

namespace {

struct Era {
  const char* accelerator;
  int count;
  const char* model;
  double tokens;
  Precision precision;
  std::int64_t batch;
};

std::vector<Era> era_rows(const std::string& preset) {
  std::vector<Era> rows;
  if (preset == "eras") {
    for (const char* chip : {"H800", "H100", "B200", "Ascend 910B"})
      rows.push_back({chip, 10240, "deepseek-v2", 8.1e12, Precision::bf16, 9600});
    for (const char* chip : {"H800", "H100", "B200", "Ascend 910B"})
      rows.push_back({chip, 98304, "moe-1.7t", 30e12, Precision::bf16, 24576});
  } else if (preset == "moe-10t-ascend") {
    rows.push_back({"Ascend 910C", 98304, "moe-10t", 20e12, Precision::bf16, 24576});
    rows.push_back({"Ascend 910B", 98304, "moe-10t", 20e12, Precision::bf16, 24576});
  } else {
    const auto known = comparisons();
    fail("comparison '{}': unknown ({}){}", preset, join(known, ", "), did_you_mean(preset, known));
  }
  return rows;
}

}  // namespace

std::vector<std::string> comparisons() { return {"eras", "moe-10t-ascend"}; }

std::string compare(const std::string& preset, bool as_json) {
  ordered_json doc = ordered_json::array();
  std::string out =
      fmt::format("{:<34} {:>7} {:<12} {:>8} {:>7} {:>6} {:>8} {:>10} {:>9} {:>8} {:>8}\n", "accelerator",
                  "count", "model", "step s", "MFU", "eff.", "days", "acc-hours", "USD", "GWh", "failures");
  std::string layouts;
  for (const Era& row : era_rows(preset)) {
    const Cluster cluster = cluster_of(row.accelerator, row.count);
    Job job;
    job.tokens = row.tokens;
    job.global_batch = row.batch;
    job.precision = row.precision;
    const Network network = find_network(row.model);
    ordered_json one = {{"accelerator", cluster.chip.name},
                        {"count", row.count},
                        {"model", row.model},
                        {"tokens", row.tokens}};
    try {
      SearchSpace space;
      space.offload = false;
      const Answer a = answer(cluster, network, job, space, {.keep = 5});
      const RunTotals& t = a.totals;
      out += fmt::format(
          "{:<34} {:>7} {:<12} {:>8.2f} {:>6.1f}% {:>5.1f}% {:>8.1f} {:>10} {:>9} {:>8.1f} {:>8.0f}\n",
          cluster.chip.name, row.count, row.model, a.search.best[0].step.seconds,
          100 * a.search.best[0].step.mfu, 100 * t.goodput.share, t.days, human_count(t.accelerator_hours),
          dollars(t.dollars), t.megawatt_hours / 1000, t.goodput.failures);
      layouts += fmt::format("\n{} x {}, {}:\n", row.count, cluster.chip.name, row.model);
      for (const Candidate& c : a.search.best)
        layouts += fmt::format("  {:>8.2f} s  {:>6} GB  {}\n", c.step.seconds, gb(c.step.memory.total()),
                               layout_text(c.setup.layout));
      for (const Candidate& c : a.search.best) one["best"].push_back(step_json(c));
      one["run"] = totals_json(t);
    } catch (const UserError& error) {
      out += fmt::format("{:<34} {:>7} {:<12} {}\n", cluster.chip.name, row.count, row.model, error.what());
      one["error"] = error.what();
    }
    doc.push_back(one);
  }
  return as_json ? doc.dump(1) + "\n" : out + layouts;
}

}  // namespace sinew::plan
