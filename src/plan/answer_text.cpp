#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "plan/answer.hpp"
#include "plan/answer_json.hpp"

namespace sinew::plan {
namespace {

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
      a.cluster.failures.in_memory ? (t.memory_recovery_gain < 0 ? "costs" : "saves")
                                   : (t.memory_recovery_gain < 0 ? "would cost" : "would save"),
      100 * std::abs(t.memory_recovery_gain), t.spares);
  return out;
}

// Time against memory, more or fewer accelerators, and what if; each only where it was asked for.
std::string curves_text(const Answer& a) {
  std::string out;
  if (!a.front.empty()) out += "\ntime against memory:\n";
  for (const Candidate& c : a.front)
    out += fmt::format("{:>9.3f} s {:>8} GB  {}\n", c.step.seconds, gb(c.step.memory.total()),
                       layout_text(c.setup.layout));
  if (!a.scaling.empty())
    out += fmt::format("\n{:>12} {:>10} {:>6} {:>6} {:>8} {:>10}  bent by\n", "accelerators", "tokens/s",
                       "MFU", "eff.", "days", "USD");
  for (const ScalePoint& s : a.scaling)
    out += fmt::format("{:>12} {:>10} {:>5.1f}% {:>5.1f}% {:>8.1f} {:>10}  {}\n",
                       with_commas(static_cast<std::uint64_t>(s.count)),
                       human_count(s.best.step.tokens_per_second * s.totals.goodput.share),
                       100 * s.best.step.mfu, 100 * s.totals.goodput.share, s.totals.days,
                       dollars(s.totals.dollars), s.bend);
  if (!a.sensitivity.empty())
    out += fmt::format("\n{:<24} {:>9} {:>6} {:>8} {:>10}\n", "what if", "step s", "eff.", "days", "USD");
  for (const SensitivityRow& s : a.sensitivity)
    out += fmt::format("{:<24} {:>9.3f} {:>5.1f}% {:>8.1f} {:>10}\n", s.change, s.seconds, 100 * s.goodput,
                       s.days, dollars(s.dollars));
  return out;
}

}  // namespace

std::string dollars(double d) {
  return d >= 1e6 ? fmt::format("${:.2f}M", d / 1e6) : fmt::format("${:.0f}", d);
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
  const auto other = [&](const Candidate& c) {
    const Precision p = c.setup.job.precision;
    return p == a.job.precision ? std::string() : " precision=" + precision_name(p);
  };
  for (const Candidate& c : a.search.best)
    out += fmt::format("{:>9.3f} {:>11} {:>5.1f}% {:>6.1f}% {:>8}  {}{}\n", c.step.seconds,
                       human_count(c.step.tokens_per_second), 100 * c.step.mfu, 100 * c.step.bubble_share,
                       gb(c.step.memory.total()), layout_text(c.setup.layout), other(c));
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
  return out + totals_text(a) + curves_text(a);
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

std::string islands_json(const IslandAnswer& a, const Islands& islands) {
  ordered_json doc;
  for (std::size_t i = 0; i < a.parts.size(); ++i) {
    ordered_json one = step_json(a.parts[i].search.best[0]);
    one["accelerator"] = islands.parts[i].chip.name;
    one["count"] = islands.parts[i].count;
    one["batch_share"] = a.batch_share[i];
    doc["islands"].push_back(one);
  }
  doc["link_bytes_per_s"] = islands.link;
  doc["outer_steps"] = islands.outer_steps;
  doc["exchange_s"] = a.exchange;
  doc["step_time_s"] = a.seconds;
  doc["days"] = a.days;
  doc["dollars"] = a.dollars;
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

}  // namespace sinew::plan
