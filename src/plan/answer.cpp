#include "plan/answer.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "base/text.hpp"

namespace sinew::plan {
namespace {

// The space around a layout: its neighbours in every degree. For curves, where the best of a slightly
// different machine is near the best of this one.
SearchSpace around(const Layout& l, const Network& n) {
  const auto near = [](int v) {
    std::vector<int> list;
    for (const int candidate : {v / 2, v, v * 2})
      if (candidate >= 1 && std::find(list.begin(), list.end(), candidate) == list.end())
        list.push_back(candidate);
    return list;
  };
  SearchSpace s;
  s.tensor = near(l.tensor);
  s.context = {l.context};
  s.expert = n.experts > 0 ? near(l.expert) : std::vector<int>{1};
  std::erase_if(s.expert, [&](int e) { return n.experts > 0 && n.experts % e != 0; });
  s.expert_tensor = {l.expert_tensor};
  for (const int p : near(l.pipeline)) s.pipeline.push_back(p);
  s.micro_batch = near(l.micro_batch);
  s.zero = {l.zero, 1};
  s.recompute = {l.recompute, Recompute{}, Recompute{.full = true}};
  s.offload = false;
  return s;
}

double time_lost(const StepPrediction& p, const char** cause) {
  const std::pair<const char*, double> terms[] = {{"pipeline bubble", p.time.bubble},
                                                  {"data-parallel traffic", p.time.data},
                                                  {"tensor-parallel traffic", p.time.work[Term::tensor]},
                                                  {"expert all-to-all", p.time.work[Term::expert]},
                                                  {"context ring", p.time.work[Term::context]},
                                                  {"stragglers", p.time.other}};
  const auto* worst = std::max_element(std::begin(terms), std::end(terms),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
  *cause = worst->first;
  return worst->second;
}

Cluster resized(const Cluster& cluster, int count) {
  Cluster c = cluster;
  c.count = count;
  return c;
}

void add_curves(Answer& a, const SearchSpace& space) {
  const Constants& k = fitted_constants();
  const Candidate& best = a.search.best[0];
  const Setup base = setup_for(a.cluster, a.network, a.job);
  SearchSpace local = around(best.setup.layout, a.network);
  a.front = memory_front(base, local, k);
  for (const double factor : {0.25, 0.5, 1.0, 2.0, 4.0}) {
    const double wanted = a.cluster.count * factor;
    if (wanted < 1 || wanted > 1e7) continue;
    const Cluster c = resized(a.cluster, static_cast<int>(wanted));
    SearchSpace wide = local;
    wide.pipeline.clear();
    wide.zero = {best.setup.layout.zero, 1, 3};
    const SearchResult found = search_layouts(setup_for(c, a.network, a.job), wide, k, 1);
    if (found.best.empty()) continue;
    const char* cause = "";
    time_lost(found.best[0].step, &cause);
    a.scaling.push_back({c.count, found.best[0],
                         run_totals(c, found.best[0].setup, found.best[0].step, a.job.tokens), cause});
  }
  const auto row = [&](const char* change, Cluster c) {
    Setup s = setup_for(c, a.network, a.job);
    const SearchResult found = search_layouts(s, local, k, 1);
    if (found.best.empty()) return;
    const RunTotals t = run_totals(c, found.best[0].setup, found.best[0].step, a.job.tokens);
    a.sensitivity.push_back({change, found.best[0].step.seconds, t.days, t.dollars, t.goodput.share});
  };
  row("as planned", a.cluster);
  Cluster c = a.cluster;
  c.chip.network /= 2;
  c.chip.scaleup /= 2;
  row("links half as fast", c);
  c = a.cluster;
  c.price_hour *= 2;
  row("price doubled", c);
  c = a.cluster;
  for (ComponentRate& r : c.failures.components) r.per_million_hours *= 3;
  row("failure rate tripled", c);
  c = a.cluster;
  c.chip.memory_bytes *= 0.75;
  row("a quarter less memory", c);
  c = a.cluster;
  c.chip.memory_bandwidth /= 2;
  row("memory half as fast", c);
  (void)space;
}

}  // namespace

RunTotals run_totals(const Cluster& cluster, const Setup& setup, const StepPrediction& step, double tokens) {
  RunTotals t;
  const double per_step = static_cast<double>(setup.job.global_batch * setup.job.sequence);
  t.steps = tokens > 0 ? std::ceil(tokens / per_step) : 0;
  const double work = t.steps > 0 ? t.steps * step.seconds : 30.0 * 24 * 3600;
  const NetworkCounts parameters = count(setup.network);
  t.checkpoint_bytes = (parameters.total + parameters.mtp) * 14;  // bf16 weights, fp32 master and two moments
  FailureModel failures = cluster.failures;
  const double storage =
      cluster.storage_bandwidth > 0 ? cluster.storage_bandwidth : std::min(2e12, 1e9 * cluster.count);
  // Checkpoints are copied to host memory while training stops and written out behind it; loading waits.
  failures.checkpoint = std::max(failures.checkpoint * 0.2,
                                 t.checkpoint_bytes / cluster.count / std::max(1.0, setup.chip.host_link));
  failures.load = std::max(failures.load, t.checkpoint_bytes / storage);
  failures.interval = std::max(failures.interval, 0.0);
  t.goodput = goodput_formula(failures, cluster.count, work);
  FailureModel memory = failures;
  memory.in_memory = !failures.in_memory;
  t.memory_recovery_gain = failures.in_memory
                               ? t.goodput.share - goodput_formula(memory, cluster.count, work).share
                               : goodput_formula(memory, cluster.count, work).share - t.goodput.share;
  t.spares = spares_needed(failures, cluster.count);
  if (t.steps > 0) {
    const double hours = work / t.goodput.share / 3600;
    t.days = hours / 24;
    t.accelerator_hours = hours * cluster.count;
    t.dollars = t.accelerator_hours * cluster.price_hour;
    t.megawatt_hours = t.accelerator_hours * cluster.watts / 1e6;
  }
  return t;
}

Answer answer(const Cluster& cluster, const Network& network, const Job& job, const SearchSpace& space,
              const AnswerOptions& o) {
  const Constants& k = fitted_constants();
  require(job.global_batch >= 1 && job.sequence >= 1, "plan: batch and sequence must be 1 or more");
  require(cluster.chip.bf16 > 0 && cluster.chip.memory_bandwidth > 0 && cluster.chip.memory_bytes > 0,
          "plan: {} has no arithmetic, no memory or no memory bandwidth", cluster.chip.name);
  Answer a{cluster, network, job, {}, {}, {}, {}, {}};
  const Setup base = setup_for(cluster, network, job);
  a.search = search_layouts(base, space, k, o.keep, o.objective);
  if (a.search.best.empty()) {
    require(a.search.considered > 0,
            "plan: no layout divides a batch of {} sequences over {} accelerators; choose a batch with more "
            "factors of two",
            job.global_batch, cluster.count);
    const SearchResult least = search_layouts(base, space, k, 1, Objective::memory, 1e18);
    const MemoryUse& m = least.best[0].step.memory;
    fail(
        "plan: {} does not fit: the leanest layout needs {} of the {} of an accelerator ({} optimizer, {} "
        "weights, {} activations); use more accelerators",
        network.name, human_bytes(m.total()), human_bytes(cluster.chip.memory_bytes),
        human_bytes(m.optimizer), human_bytes(m.weights), human_bytes(m.activations));
  }
  a.job.precision = a.search.best[0].setup.job.precision;  // where several were to choose from
  a.totals = run_totals(cluster, a.search.best[0].setup, a.search.best[0].step, job.tokens);
  if (o.curves) add_curves(a, space);
  return a;
}

Answer cheapest_answer(const Cluster& cluster, const Network& network, const Job& job,
                       const SearchSpace& space, const AnswerOptions& o) {
  AnswerOptions plain = o;
  plain.curves = false;
  Cluster best = cluster;
  double least = answer(cluster, network, job, space, plain).totals.dollars;
  for (int part = 2; part <= 16 && cluster.count / part >= 1; part *= 2) {
    try {
      const double dollars =
          answer(resized(cluster, cluster.count / part), network, job, space, plain).totals.dollars;
      if (dollars < least) least = dollars, best = resized(cluster, cluster.count / part);
    } catch (const UserError&) {
      break;  // fewer do not fit
    }
  }
  return answer(best, network, job, space, o);
}

IslandAnswer answer_islands(const Islands& islands, const Network& network, const Job& job,
                            const SearchSpace& space) {
  IslandAnswer r;
  // Batch by speed: plan each with the whole batch first, then with its share (in units of 1/64 of the
  // batch).
  std::vector<double> speed;
  for (const Cluster& c : islands.parts)
    speed.push_back(answer(c, network, job, space, {.keep = 1}).search.best[0].step.tokens_per_second);
  double all = 0;
  for (const double v : speed) all += v;
  for (std::size_t i = 0; i < islands.parts.size(); ++i) {
    Job mine = job;
    const double share = speed[i] / all;
    const std::int64_t unit = std::max<std::int64_t>(1, job.global_batch / 64);
    mine.global_batch = std::max<std::int64_t>(
        unit, std::llround(share * static_cast<double>(job.global_batch) / static_cast<double>(unit)) * unit);
    r.parts.push_back(answer(islands.parts[i], network, mine, space, {.keep = 3}));
    r.batch_share.push_back(static_cast<double>(mine.global_batch) / static_cast<double>(job.global_batch));
    r.seconds = std::max(r.seconds, r.parts.back().search.best[0].step.seconds);
  }
  const NetworkCounts parameters = count(network);
  const double islands_count = static_cast<double>(islands.parts.size());
  // An all-reduce of the bf16 weights (or their change) over the islands, spread over the steps between.
  const double bytes = 2 * 2 * parameters.total * (islands_count - 1) / islands_count;
  r.exchange = islands_count > 1 ? bytes / islands.link / islands.outer_steps : 0;
  r.seconds += r.exchange;
  if (job.tokens > 0) {
    const double steps = job.tokens / static_cast<double>(job.global_batch * job.sequence);
    double rate = 0;
    for (std::size_t i = 0; i < islands.parts.size(); ++i)
      rate += islands.parts[i].price_hour * islands.parts[i].count;
    double share = 1;
    for (const Answer& part : r.parts) share = std::min(share, part.totals.goodput.share);
    r.days = steps * r.seconds / share / 86400;
    r.dollars = r.days * 24 * rate;
  }
  return r;
}

std::vector<std::string> planner_models() { return {"moe-1.7t", "moe-10t"}; }

Network find_network(const std::string& name) {
  Network n;
  n.name = name;
  if (name == "moe-1.7t") {  // 1.7T parameters, 0.25T used by a token
    n.layers = 88, n.hidden = 12288, n.vocab = 160000;
    n.heads = 96, n.kv_heads = 8, n.head_dim = n.value_dim = 128;
    n.ffn = 49152, n.experts = 128, n.top_k = 16, n.expert_ffn = 4096;
    return n;
  }
  if (name == "moe-10t") {  // 10T parameters, 2,048 experts
    n.layers = 80, n.hidden = 10240, n.vocab = 160000;
    n.heads = 80, n.kv_heads = 8, n.head_dim = n.value_dim = 128;
    n.ffn = 40960, n.experts = 2048, n.top_k = 16, n.expert_ffn = 2048, n.shared_ffn = 2048;
    n.groups = 16, n.groups_per_token = 4;
    return n;
  }
  return network_from(load_model_config(name), std::filesystem::path(name).filename().string());
}

}  // namespace sinew::plan
