#include "schedule/simulate.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace sinew {
namespace {

constexpr double not_yet = -1;

// Executes the lists. `cost(stage, pass)` is an action's time. Returns false when no rank can go on.
template <class Cost, class Done>
bool execute(const Schedule& s, double send, const Cost& cost, const Done& done) {
  const int stages = s.stages();
  // End of forward and of the input gradient, [stage * micro_batches + micro_batch].
  std::vector<double> forward(static_cast<std::size_t>(stages) * s.micro_batches, not_yet),
      backward = forward;
  std::vector<std::size_t> next(s.ranks, 0);
  std::vector<double> clock(s.ranks, 0);
  std::vector<int> work(s.ranks);
  std::vector<char> queued(s.ranks, 1);
  for (int r = 0; r < s.ranks; ++r) work[r] = s.ranks - 1 - r;
  const auto slot = [&](int stage, int m) { return static_cast<std::size_t>(stage) * s.micro_batches + m; };
  const auto arrival = [&](const std::vector<double>& ends, int from, int rank, int m) {
    const double end = ends[slot(from, m)];
    return end == not_yet || s.rank_of(from) == rank ? end : end + send;
  };
  while (!work.empty()) {
    const int rank = work.back();
    work.pop_back();
    queued[rank] = 0;
    const auto wake = [&](int stage) {
      const int other = s.rank_of(stage);
      if (other != rank && !queued[other]) queued[other] = 1, work.push_back(other);
    };
    for (; next[rank] < s.actions[rank].size(); ++next[rank]) {
      const Action& a = s.actions[rank][next[rank]];
      const int stage = s.stage_of(rank, a.chunk);
      double ready = 0;
      if (a.pass == Pass::forward) {
        if (stage > 0) ready = arrival(forward, stage - 1, rank, a.micro_batch);
      } else if (a.pass == Pass::backward_weight) {
        ready = backward[slot(stage, a.micro_batch)];
      } else {
        ready = stage + 1 < stages ? arrival(backward, stage + 1, rank, a.micro_batch)
                                   : forward[slot(stage, a.micro_batch)];
        if (forward[slot(stage, a.micro_batch)] == not_yet) ready = not_yet;
      }
      if (ready == not_yet) break;
      const double start = std::max(clock[rank], ready);
      clock[rank] = start + cost(stage, a.pass);
      done(rank, next[rank], start, clock[rank]);
      if (a.pass == Pass::forward) {
        forward[slot(stage, a.micro_batch)] = clock[rank];
        if (stage + 1 < stages) wake(stage + 1);
      } else if (a.pass != Pass::backward_weight) {
        backward[slot(stage, a.micro_batch)] = clock[rank];
        if (stage > 0) wake(stage - 1);
      }
    }
  }
  for (int r = 0; r < s.ranks; ++r)
    if (next[r] < s.actions[r].size()) return false;
  return true;
}

std::vector<StageCost> for_every_stage(const Schedule& schedule, std::vector<StageCost> stages) {
  if (stages.size() == 1) stages.resize(schedule.stages(), StageCost(stages[0]));
  require(static_cast<int>(stages.size()) == schedule.stages(), "schedule: {} stage costs for {} stages",
          stages.size(), schedule.stages());
  return stages;
}

}  // namespace

std::vector<double> peak_activations(const Schedule& s, const std::vector<StageCost>& given) {
  const auto stages = for_every_stage(s, given);
  std::vector<double> peaks;
  for (int rank = 0; rank < s.ranks; ++rank) {
    double held = 0, peak = 0;
    for (const Action& a : s.actions[rank]) {
      const StageCost& c = stages[s.stage_of(rank, a.chunk)];
      if (a.pass == Pass::forward) peak = std::max(peak, held += c.activation);
      if (a.pass == Pass::backward) held -= c.activation;
      if (a.pass == Pass::backward_input) held -= c.activation - c.kept;
      if (a.pass == Pass::backward_weight) held -= c.kept;
    }
    peaks.push_back(peak);
  }
  return peaks;
}

double time_of(const StageCost& c, Pass pass) {
  switch (pass) {
    case Pass::forward:
      return c.forward;
    case Pass::backward:
      return c.backward_input + c.backward_weight;
    case Pass::backward_input:
      return c.backward_input;
    default:
      return c.backward_weight;
  }
}

Simulation simulate(const Schedule& schedule, const std::vector<StageCost>& given, double send) {
  const auto stages = for_every_stage(schedule, given);
  Simulation result;
  result.busy.assign(schedule.ranks, 0);
  for (const auto& list : schedule.actions) result.timeline.emplace_back(list.size());
  const auto cost = [&](int stage, Pass pass) { return time_of(stages[stage], pass); };
  const bool finished = execute(schedule, send, cost, [&](int rank, std::size_t i, double start, double end) {
    result.timeline[rank][i] = {start, end};
    result.busy[rank] += end - start;
    result.makespan = std::max(result.makespan, end);
  });
  require(finished, "schedule: it hangs: {}", schedule_problem(schedule));
  double busy = 0;
  for (const double b : result.busy) busy += b;
  if (result.makespan > 0) result.bubble_share = 1 - busy / (result.makespan * schedule.ranks);
  result.peak_activation = peak_activations(schedule, stages);
  return result;
}

std::string schedule_problem(const Schedule& s) {
  if (static_cast<int>(s.actions.size()) != s.ranks)
    return fmt::format("{} lists for {} ranks", s.actions.size(), s.ranks);
  for (int rank = 0; rank < s.ranks; ++rank) {
    // 0 nothing, 1 forward, 2 input gradient, 3 all done
    std::vector<int> state(static_cast<std::size_t>(s.micro_batches) * s.chunks, 0);
    for (const Action& a : s.actions[rank]) {
      if (a.micro_batch < 0 || a.micro_batch >= s.micro_batches || a.chunk < 0 || a.chunk >= s.chunks)
        return fmt::format("rank {}: micro-batch {} or chunk {} does not exist", rank, a.micro_batch,
                           a.chunk);
      int& now = state[static_cast<std::size_t>(a.chunk) * s.micro_batches + a.micro_batch];
      const int needs = a.pass == Pass::forward ? 0 : a.pass == Pass::backward_weight ? 2 : 1;
      if (now != needs)
        return fmt::format("rank {}: micro-batch {} of chunk {} has a pass out of order or twice", rank,
                           a.micro_batch, a.chunk);
      now = a.pass == Pass::backward ? 3 : needs + 1;
    }
    for (std::size_t i = 0; i < state.size(); ++i)
      if (state[i] != 3)
        return fmt::format("rank {}: micro-batch {} of chunk {} is not finished", rank, i % s.micro_batches,
                           i / s.micro_batches);
  }
  const bool finished = execute(
      s, 0, [](int, Pass) { return 1.0; }, [](int, std::size_t, double, double) {});
  return finished ? "" : "ranks wait for each other for ever";
}

}  // namespace sinew
