#include "plan/compare.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "plan/answer_json.hpp"

namespace sinew::plan {
namespace {

constexpr const char* chips_of_eras[] = {"H800", "H100", "B200", "Ascend 910B"};

Comparison row(const char* accelerator, int count, const char* model, double tokens, std::int64_t batch) {
  Comparison c{cluster_of(accelerator, count), model, {}};
  c.job.tokens = tokens;
  c.job.global_batch = batch;
  return c;
}

std::string head_line() {
  return fmt::format("{:<34} {:>7} {:<18} {:>8} {:>7} {:>6} {:>8} {:>10} {:>9} {:>8} {:>8}\n", "accelerator",
                     "count", "model", "step s", "MFU", "eff.", "days", "acc-hours", "USD", "GWh",
                     "failures");
}

std::string line_of(const Comparison& c, const Answer& a) {
  const RunTotals& t = a.totals;
  const StepPrediction& best = a.search.best[0].step;
  return fmt::format(
      "{:<34} {:>7} {:<18} {:>8.2f} {:>6.1f}% {:>5.1f}% {:>8.1f} {:>10} {:>9} {:>8.1f} {:>8.0f}\n",
      c.cluster.chip.name, c.cluster.count, a.network.name, best.seconds, 100 * best.mfu,
      100 * t.goodput.share, t.days, human_count(t.accelerator_hours), dollars(t.dollars),
      t.megawatt_hours / 1000, t.steps > 0 ? t.goodput.failures : 0);
}

std::string layouts_of(const Comparison& c, const Answer& a) {
  std::string out = fmt::format("\n{} x {}, {}:\n", c.cluster.count, c.cluster.chip.name, a.network.name);
  for (const Candidate& one : a.search.best)
    out += fmt::format("  {:>8.2f} s  {:>6.1f} GB  {}\n", one.step.seconds, one.step.memory.total() / 1e9,
                       layout_text(one.setup.layout));
  return out;
}

}  // namespace

std::vector<std::string> comparisons() { return {"eras", "moe-10t-ascend"}; }

std::vector<Comparison> comparison_preset(const std::string& name) {
  std::vector<Comparison> rows;
  if (name == "eras") {
    for (const char* chip : chips_of_eras) rows.push_back(row(chip, 10240, "deepseek-v2", 8.1e12, 9600));
    for (const char* chip : chips_of_eras) rows.push_back(row(chip, 98304, "moe-1.7t", 30e12, 24576));
  } else if (name == "moe-10t-ascend") {
    for (const char* chip : {"Ascend 910C", "Ascend 910B"})
      rows.push_back(row(chip, 98304, "moe-10t", 20e12, 24576));
  } else {
    const auto known = comparisons();
    fail(
        "comparison '{}': unknown ({}){}; or name models and machines: --model A --model B --accelerator "
        "H100 "
        "--count 1024",
        name, join(known, ", "), did_you_mean(name, known));
  }
  return rows;
}

std::string compare(const std::vector<Comparison>& rows, bool as_json) {
  require(!rows.empty(), "compare: nothing to compare");
  ordered_json doc = ordered_json::array();
  std::string out = head_line(), layouts;
  for (const Comparison& c : rows) {
    ordered_json one = {{"accelerator", c.cluster.chip.name},
                        {"count", c.cluster.count},
                        {"model", c.model},
                        {"tokens", c.job.tokens}};
    const Network network = find_network(c.model);
    try {
      SearchSpace space;
      space.offload = false;
      const Answer a = answer(c.cluster, network, c.job, space, {.keep = 5});
      out += line_of(c, a);
      layouts += layouts_of(c, a);
      for (const Candidate& best : a.search.best) one["best"].push_back(step_json(best));
      one["run"] = totals_json(a.totals);
    } catch (const UserError& error) {
      out += fmt::format("{:<34} {:>7} {:<18} {}\n", c.cluster.chip.name, c.cluster.count, network.name,
                         error.what());
      one["error"] = error.what();
    }
    doc.push_back(one);
  }
  return as_json ? doc.dump(1) + "\n" : out + layouts;
}

}  // namespace sinew::plan
