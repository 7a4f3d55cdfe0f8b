#include "plan/search.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/text.hpp"
#include "base/threads.hpp"

namespace sinew::plan {
namespace {

// What the cost of a layer depends on; everything else of a layout is a leaf below it.
struct Core {
  Layout layout;
  Precision precision;
  double bound = 0;  // s a step: the work alone, spread over all accelerators
};

struct Leaf {
  int pipeline, chunks;
  ScheduleKind schedule;
  int zero;
  bool offload;
};

std::vector<int> divisors(std::int64_t n, std::int64_t most) {
  std::vector<int> list;
  for (std::int64_t d = 1; d <= std::min(n, most); ++d)
    if (n % d == 0) list.push_back(static_cast<int>(d));
  return list;
}

std::vector<int> powers(int most) {
  std::vector<int> list;
  for (int p = 1; p <= most; p *= 2) list.push_back(p);
  return list;
}

std::vector<Recompute> recompute_choices(const Network& n) {
  std::vector<Recompute> list(6);
  list[1].norm = true;
  list[2].norm = list[2].activation = true;
  list[3].activation = true;
  list[4].norm = list[4].activation = list[4].mlp = true;
  list[5].full = true;
  if (n.mla) {
    list.push_back({.mla_up = true});
    list.push_back({.mla_up = true, .norm = true});
    list.push_back({.mla_up = true, .norm = true, .activation = true});
  }
  return list;
}

// The whole space of a base setup, with the defaults filled in.
struct Space {
  std::vector<int> tensor, context, expert, expert_tensor, pipeline, chunks, micro_batch, zero, node_limits;
  std::vector<ScheduleKind> schedules;
  std::vector<Recompute> recompute;
  std::vector<Precision> precisions;
  std::vector<bool> offload;
};

// All but GPipe with flushes, which is 1F1B with more idle time.
std::vector<ScheduleKind> schedules_worth_trying() {
  auto kinds = schedule_kinds();
  std::erase(kinds, ScheduleKind::gpipe_flush);
  return kinds;
}

Space fill(const Setup& base, const SearchSpace& given) {
  const Network& n = base.network;
  Space s;
  const auto choose = [](const auto& wanted, auto fallback) { return wanted.empty() ? fallback : wanted; };
  const int domain = std::max(1, std::min(base.chip.scaleup_domain, 64));
  s.tensor = choose(given.tensor, powers(std::max(8, std::min(domain, 64))));
  s.context = choose(given.context,
                     powers(static_cast<int>(std::clamp<std::int64_t>(base.job.sequence / 2048, 1, 64))));
  s.expert = choose(given.expert, n.experts > 0 ? divisors(n.experts, 1024) : std::vector<int>{1});
  s.expert_tensor =
      choose(given.expert_tensor, n.experts > 0 ? std::vector<int>{1, 2, 4, 8} : std::vector<int>{1});
  s.pipeline = choose(given.pipeline, divisors(base.count, std::min<std::int64_t>(n.layers, 256)));
  s.chunks = choose(given.chunks, std::vector<int>{2, 3, 4, 6, 8});
  s.micro_batch = choose(given.micro_batch, powers(16));
  s.zero = choose(given.zero, std::vector<int>{0, 1, 2, 3});
  s.schedules = choose(given.schedules, schedules_worth_trying());
  s.recompute = choose(given.recompute, recompute_choices(n));
  s.precisions = choose(given.precisions, std::vector<Precision>{base.job.precision});
  s.node_limits = choose(given.node_limits, std::vector<int>{base.layout.node_limit});
  s.offload = given.offload ? std::vector<bool>{false, true} : std::vector<bool>{false};
  return s;
}

// A setup of the core, whose leaf place() then changes: copying a setup for each leaf would take most of the
// time.
Setup of_core(const Setup& base, const Core& core) {
  Setup s = base;
  s.job.precision = core.precision;
  s.layout = core.layout;
  return s;
}

void place(Setup& s, const Leaf& leaf) {
  Layout& l = s.layout;
  l.pipeline = leaf.pipeline;
  l.chunks = leaf.chunks;
  l.schedule = leaf.schedule;
  l.zero = leaf.zero;
  l.offload = leaf.offload;
  l.data = s.count / (l.tensor * l.context * leaf.pipeline);
}

constexpr Leaf plain_leaf{1, 1, ScheduleKind::one_f_one_b, 1, false};

template <class Visit>
void each_core(const Setup& base, const Space& space, const Visit& visit) {
  for (const Precision precision : space.precisions)
    for (const int tensor : space.tensor)
      for (const bool sequence : {false, true}) {
        if (tensor == 1 && sequence) continue;
        for (const int context : space.context) {
          if (base.count % (static_cast<std::int64_t>(tensor) * context) != 0 ||
              base.job.sequence % context != 0)
            continue;
          for (const int expert : space.expert)
            for (const int expert_tensor : space.expert_tensor) {
              if (expert_tensor > tensor) continue;
              for (const int micro_batch : space.micro_batch)
                for (const int limit : space.node_limits)
                  for (const Recompute& recompute : space.recompute) {
                    Core core{base.layout, precision, 0};
                    core.layout.tensor = tensor;
                    core.layout.sequence_parallel = sequence;
                    core.layout.context = context;
                    core.layout.expert = expert;
                    core.layout.expert_tensor = expert_tensor;
                    core.layout.micro_batch = micro_batch;
                    core.layout.node_limit = limit;
                    core.layout.recompute = recompute;
                    visit(core);
                  }
            }
        }
      }
}

// The valid leaves of a core, each placed into `s`.
template <class Visit>
void each_leaf(Setup& s, const Space& space, const Visit& visit) {
  static const std::vector<int> one = {1};
  for (const int pipeline : space.pipeline) {
    place(s, {pipeline, 1, ScheduleKind::one_f_one_b, 1, false});
    if (!layout_problem(s).empty()) continue;
    for (const ScheduleKind schedule : space.schedules) {
      const bool chunked = schedule == ScheduleKind::interleaved;
      if (pipeline == 1 && schedule != ScheduleKind::one_f_one_b) continue;
      if (schedule == ScheduleKind::dualpipe_v && 2 * pipeline > s.network.layers) continue;
      for (const int chunks : chunked ? space.chunks : one) {
        if (chunked && static_cast<std::int64_t>(pipeline) * chunks > s.network.layers) continue;
        for (const int zero : space.zero)
          for (const bool offload : space.offload) {
            place(s, {pipeline, chunks, schedule, zero, offload});
            visit();
          }
      }
    }
  }
}

// A total order, so that the result does not depend on who finds a layout first.
auto order(const Candidate& c, Objective objective) {
  const Layout& l = c.setup.layout;
  const double first = objective == Objective::time ? c.step.seconds : c.step.memory.total();
  const double second = objective == Objective::time ? c.step.memory.total() : c.step.seconds;
  return std::tuple(first, second, static_cast<int>(c.setup.job.precision), l.pipeline, l.chunks,
                    static_cast<int>(l.schedule), l.tensor, l.context, l.expert, l.expert_tensor,
                    l.micro_batch, l.zero, l.offload, l.sequence_parallel, l.node_limit,
                    recompute_name(l.recompute));
}

class Kept {
 public:
  Kept(int count, Objective objective) : count_(static_cast<std::size_t>(count)), objective_(objective) {}

  // No layout whose first criterion is above this is wanted.
  double limit() const { return limit_.load(std::memory_order_relaxed); }

  void offer(Candidate candidate) {
    const std::lock_guard lock(mutex_);
    const auto before = [&](const Candidate& a, const Candidate& b) {
      return order(a, objective_) < order(b, objective_);
    };
    best_.insert(std::upper_bound(best_.begin(), best_.end(), candidate, before), std::move(candidate));
    if (best_.size() > count_) best_.pop_back();
    if (best_.size() == count_)
      limit_ = objective_ == Objective::time ? best_.back().step.seconds : best_.back().step.memory.total();
  }
  std::vector<Candidate> take() { return std::move(best_); }

 private:
  std::size_t count_;
  Objective objective_;
  std::vector<Candidate> best_;
  std::mutex mutex_;
  std::atomic<double> limit_{1e300};
};

struct Counters {
  std::atomic<std::uint64_t> considered{0}, simulated{0};
};

// What leaves that differ only in sharding (below zero 3) and offload have in common: the schedule's
// simulation.
struct Shared {
  int pipeline = 0, chunks = 0;
  ScheduleKind schedule = ScheduleKind::gpipe;
  double activations = -1;  // bytes at the schedule's peak
  double extra = -1;        // s that the simulation is above the floor

  void begin(const Layout& l) {
    if (l.pipeline == pipeline && l.chunks == chunks && l.schedule == schedule) return;
    *this = {l.pipeline, l.chunks, l.schedule, -1, -1};
  }
};

// One leaf: cheap bounds first, then memory, then the simulation.
void try_leaf(const Setup& s, const Kit& kit, const Constants& k, double memory, Objective objective,
              Kept& kept, Shared& shared, Counters& counters) {
  shared.begin(s.layout);
  MemoryUse use = memory_floor(kit, s);
  if (shared.activations >= 0) use.activations = shared.activations;
  if (use.total() > memory || (objective == Objective::memory && use.total() > kept.limit())) return;
  const bool plain = s.layout.zero < 3;
  double floor = 0;
  if (objective == Objective::time) {
    floor = step_floor(kit, s, k);
    if (floor + (plain && shared.extra > 0 ? shared.extra * (1 - 1e-9) : 0) > kept.limit()) return;
  }
  if (shared.activations < 0) {
    use = predict_memory(kit, s, k);
    shared.activations = use.activations;
    if (use.total() > memory || (objective == Objective::memory && use.total() > kept.limit())) return;
  }
  counters.simulated.fetch_add(1, std::memory_order_relaxed);
  StepPrediction step = predict_step(kit, s, k);
  if (plain && objective == Objective::time) shared.extra = step.seconds * (1 - 1e-9) - floor;
  if (objective == Objective::time && step.seconds > kept.limit()) return;
  step.memory = use;
  step.fits = true;
  kept.offer({s, step});
}

}  // namespace

SearchResult search_layouts(const Setup& base, const SearchSpace& given, const Constants& k, int keep,
                            Objective objective, double memory_limit) {
  const double start = clock_seconds();
  const Space space = fill(base, given);
  const double memory = memory_limit > 0 ? memory_limit : base.chip.memory_bytes;
  std::vector<Core> cores;
  each_core(base, space, [&](const Core& core) { cores.push_back(core); });
  require(!cores.empty(), "plan: no layout divides {} accelerators", base.count);
  const double nodes = std::max(1.0, static_cast<double>(base.count) / std::max(1, base.chip.per_node));
  const double slower = 1 + k[Constant::straggler] * std::log2(nodes);
  parallel_for(cores.size(), 64, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      Core& core = cores[i];
      Setup s = of_core(base, core);
      place(s, plain_leaf);
      const double share = static_cast<double>(core.layout.tensor) * core.layout.context / base.count;
      core.bound = make_kit(s, k).work * static_cast<double>(base.job.global_batch) /
                   core.layout.micro_batch * share * slower;
    }
  });
  // The most promising first: their times prune the rest.
  std::vector<std::uint32_t> by_bound(cores.size());
  for (std::size_t i = 0; i < cores.size(); ++i) by_bound[i] = static_cast<std::uint32_t>(i);
  std::stable_sort(by_bound.begin(), by_bound.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return cores[a].bound < cores[b].bound; });
  Kept kept(keep, objective);
  Counters counters;
  parallel_for(cores.size(), 1, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      const Core& core = cores[by_bound[i]];
      const bool hopeless = objective == Objective::time && core.bound > kept.limit();
      std::uint64_t leaves = 0;
      Setup s = of_core(base, core);
      Kit kit;
      if (!hopeless) {
        place(s, plain_leaf);
        kit = make_kit(s, k);
      }
      Shared shared;
      each_leaf(s, space, [&] {
        ++leaves;
        if (!hopeless) try_leaf(s, kit, k, memory, objective, kept, shared, counters);
      });
      counters.considered.fetch_add(leaves, std::memory_order_relaxed);
    }
  });
  SearchResult result;
  result.best = kept.take();
  result.considered = counters.considered;
  result.simulated = counters.simulated;
  result.seconds = clock_seconds() - start;
  return result;
}

SearchResult search_by_brute_force(const Setup& base, const SearchSpace& given, const Constants& k, int keep,
                                   Objective objective) {
  const Space space = fill(base, given);
  SearchResult result;
  std::vector<Candidate> all;
  each_core(base, space, [&](const Core& core) {
    Setup s = of_core(base, core);
    each_leaf(s, space, [&] {
      ++result.considered;
      Candidate c{s, {}};
      c.step = predict_step(c.setup, k);
      c.step.memory = predict_memory(c.setup, k);
      c.step.fits = c.step.memory.total() <= base.chip.memory_bytes;
      if (c.step.fits) all.push_back(std::move(c));
    });
  });
  std::sort(all.begin(), all.end(), [&](const Candidate& a, const Candidate& b) {
    return order(a, objective) < order(b, objective);
  });
  if (all.size() > static_cast<std::size_t>(keep)) all.resize(static_cast<std::size_t>(keep));
  result.best = std::move(all);
  return result;
}

std::vector<Candidate> memory_front(const Setup& base, const SearchSpace& space, const Constants& k) {
  std::vector<Candidate> front;
  double limit = base.chip.memory_bytes;
  for (int i = 0; i < 8; ++i) {
    const SearchResult found = search_layouts(base, space, k, 1, Objective::time, limit);
    if (found.best.empty()) break;
    front.push_back(found.best[0]);
    limit = found.best[0].step.memory.total() * 0.9;
  }
  return front;
}

}  // namespace sinew::plan
