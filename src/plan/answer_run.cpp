// A planned layout as a configuration of the trainer.
#include <cmath>
#include <optional>

#include "base/error.hpp"
#include "config/layout.hpp"
#include "plan/answer.hpp"

namespace sinew::plan {
namespace {

// The trainer's words for a layout: state is spread over `shard` and copied over `data`.
sinew::Layout trainer_layout(const Setup& s) {
  const Layout& l = s.layout;
  sinew::Layout t;
  const int shard = l.zero == 0 ? 1 : l.shard_group > 0 ? std::min(l.shard_group, l.data) : l.data;
  t.shard = shard;
  t.data = l.data / shard;
  t.zero = std::max(1, l.zero);
  t.tensor = l.tensor;
  t.context = l.context;
  t.pipeline = l.pipeline;
  t.schedule = l.pipeline > 1 ? schedule_name(l.schedule) : "1f1b";
  t.chunks = l.schedule == ScheduleKind::interleaved && l.pipeline > 1 ? l.chunks : 1;
  t.micro_batches = s.micro_batches();
  t.expert = l.expert;
  if (l.node_limit > 0) t.node_limit = l.node_limit, t.ranks_per_node = s.chip.per_node;
  if (l.expert > 1 && s.software.dispatch_bytes < 2) t.dispatch = "fp8";
  return t;
}

// "" or what of the layout the trainer has not.
std::string trainer_problem(const Setup& s, const ModelConfig& model) {
  const Layout& l = s.layout;
  if (l.offload) return "it keeps the optimizer's state in host memory";
  if (l.expert_tensor > 1) return "it cuts single experts";
  try {
    (void)check_layout(trainer_layout(s),
                       {.processes = s.count,
                        .batch = s.job.global_batch,
                        .micro_batch = static_cast<std::int64_t>(l.micro_batch) * l.data,
                        .sequence = s.job.sequence},
                       model);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

std::string toml(const Candidate& c, const RunTotals& totals, const std::string& model) {
  const Setup& s = c.setup;
  const sinew::Layout t = trainer_layout(s);
  const double every =
      totals.steps > 0 ? std::max(1.0, std::floor(totals.goodput.interval / c.step.seconds)) : 100;
  std::string out = fmt::format(
      "# Made by sinew plan for {} x {}: {:.3f} s a step predicted.\n# layout: {}\n[model]\nconfig = "
      "\"{}\"\n\n"
      "[data]\npath = \"data\"\nsequence = {}\n\n",
      s.count, s.chip.name, c.step.seconds, layout_text(s.layout), model, s.job.sequence);
  const std::string recompute = recompute_name(s.layout.recompute);
  out += fmt::format(
      "[train]\nsteps = {:.0f}\nbatch = {}\nmicro_batch = {}\ndtype = \"{}\"\nrecompute = \"{}\"\n\n"
      "[checkpoint]\nevery = {:.0f}\n\n",
      std::max(1.0, totals.steps), s.job.global_batch,
      static_cast<std::int64_t>(s.layout.micro_batch) * s.layout.data,
      s.job.precision == Precision::fp32 ? "fp32" : "bf16",
      recompute == "full" || recompute == "none" ? recompute : "selective", every);
  if (s.job.optimizer == OptimizerKind::muon) out += "[optimizer]\nkind = \"muon\"\n\n";
  out += fmt::format(
      "[layout]\ndata = {}\nshard = {}\nzero = {}\ntensor = {}\ncontext = {}\npipeline = {}\nschedule = "
      "\"{}\"\n"
      "chunks = {}\nmicro_batches = {}\nexpert = {}\ndispatch = \"{}\"\n",
      t.data, t.shard, t.zero, t.tensor, t.context, t.pipeline, t.schedule, t.chunks, t.micro_batches,
      t.expert, t.dispatch);
  if (t.node_limit > 0)
    out += fmt::format("ranks_per_node = {}\nnode_limit = {}\n", t.ranks_per_node, t.node_limit);
  return out;
}

}  // namespace

std::string answer_run_toml(const Answer& a, const std::string& model) {
  for (const std::string& own : planner_models())
    require(model != own,
            "plan --emit: {} is the planner's own sketch; give a preset, a config.json or a model directory",
            own);
  const ModelConfig config = load_model_config(model);
  require(a.job.sequence <= config.max_position_embeddings,
          "plan --emit: sequence {} is longer than the {} positions of {}", a.job.sequence,
          config.max_position_embeddings, model);
  std::string problem;
  for (const Candidate& c : a.search.best) {
    const std::string one = trainer_problem(c.setup, config);
    if (one.empty()) return toml(c, a.totals, model);
    if (problem.empty()) problem = one;
  }
  fail("plan --emit: sinew train runs none of these {} layouts ({}); show more with --top",
       a.search.best.size(), problem);
}

}  // namespace sinew::plan
