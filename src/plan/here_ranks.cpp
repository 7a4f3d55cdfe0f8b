#include "plan/here_ranks.hpp"

#include <algorithm>

namespace sinew::plan {
namespace {

double link_seconds(const StepLinks& links, const std::string& group, const char* operation, double bytes) {
  const auto found = links.find({group, operation});
  return found == links.end() ? 0 : found->second.seconds(bytes);
}

void add(StageCost& cost, const PartSeconds& part, bool again = false) {
  cost.forward += part.forward;
  cost.backward_input += part.backward - part.weight + (again ? part.forward : 0);
  cost.backward_weight += part.weight;
}

// Gradients over their copies, once a step: as Sharding::reduce_gradients() and publish_weights() do.
double state_seconds(const RanksRun& run, const Place& place, const StepLinks& links, bool shares_embedding) {
  const sinew::Layout& l = run.layout;
  const double width = run.work.bf16 ? 2 : 4;
  double seconds = 0;
  for (const StateRun& r : held_network(run.model, l, run.work.sequence, place).runs) {
    const auto piece = static_cast<double>(r.piece()), others = static_cast<double>(r.members - 1);
    if (r.members > 1 && l.zero < 2)
      seconds += link_seconds(links, shard_group(r), "reduce_scatter", others * piece * 4);
    if (r.members > 1 && l.zero < 3)
      seconds += link_seconds(links, shard_group(r), "all_gather", others * piece * width);
    const auto summed = [&](const char* group, std::int64_t n, std::int64_t rank) {
      if (n > 1)
        seconds += link_seconds(links, group, "all_reduce",
                                static_cast<double>(all_reduce_bytes(r.piece(), n, rank, 4)));
    };
    const StateCopies copies = copies_of(r, l, place);
    summed(copies.group, copies.members, copies.rank);
    if (r.name == "embedding" && shares_embedding) summed("embedding", 2, 0);
  }
  return seconds;
}

// What a rank of the pipeline gathers and scatters with its micro-batches.
struct Travel {
  double gathers = 0, scatters = 0;  // s of a step
};
Travel travel_of(const RanksRun& run, const Place& place, const StepLinks& links) {
  Travel t;
  const sinew::Layout& l = run.layout;
  if (l.zero < 2 || l.shard == 1) return t;
  const HeldNetwork held = held_network(run.model, l, run.work.sequence, place);
  const UnitPasses passes = unit_passes(run.model, l, held, run.work, place);
  const double width = run.work.bf16 ? 2 : 4;
  for (const StateRun& r : held.runs) {
    if (r.members == 1) continue;
    const double bytes = static_cast<double>((r.members - 1) * r.piece());
    if (l.zero >= 3)
      t.gathers += static_cast<double>(passes.gathers[r.unit]) *
                   link_seconds(links, shard_group(r), "all_gather", bytes * width);
    t.scatters += static_cast<double>(passes.scatters[r.unit]) *
                  link_seconds(links, shard_group(r), "reduce_scatter", bytes * 4);
  }
  return t;
}

StageCost stage_cost(const RanksRun& run, const StepParts& parts, const StagePart& part) {
  StageCost cost{0, 0, 0, 1, 1};
  const auto block = [&](std::int64_t layer) {
    add(cost, parts.attention, run.work.recompute);
    add(cost, parts.norms, run.work.recompute);
    add(cost, run.model.ffn_kind(layer) == FfnKind::moe ? parts.moe : parts.dense, run.work.recompute);
  };
  if (part.embedding) add(cost, parts.embedding);
  for (std::int64_t layer = part.first; layer < part.end; ++layer) block(layer);
  if (!part.head) return cost;
  add(cost, parts.head);
  for (std::int64_t d = 0; d < run.model.num_nextn_predict_layers; ++d) {
    block(run.model.num_hidden_layers + d);
    add(cost, parts.head);
    add(cost, parts.embedding);
    add(cost, parts.mtp_join);
  }
  return cost;
}

double shared_speed(int ranks, int active, int cores) {
  if (ranks <= cores || active == 0) return 1;
  // While all worked each had cores / ranks of a core; none has more than a whole one.
  return std::min(static_cast<double>(ranks) / cores, static_cast<double>(ranks) / active);
}

// Executes the lists of all ranks at once, from event to event.
class SharedCores {
 public:
  SharedCores(const Schedule& s, const std::vector<StageCost>& stages, double send, int cores)
      : s_(s), stages_(stages), send_(send), cores_(cores) {
    const auto slots = static_cast<std::size_t>(s.stages()) * static_cast<std::size_t>(s.micro_batches);
    forward_.assign(slots, kNever);
    backward_.assign(slots, kNever);
    next_.assign(static_cast<std::size_t>(s.ranks), 0);
    left_.assign(static_cast<std::size_t>(s.ranks), -1);
  }

  double run() {
    for (;;) {
      double until = kNever;
      int active = 0;
      for (int r = 0; r < s_.ranks; ++r) {
        const double ready = begin(r);
        if (left_[at(r)] >= 0)
          ++active;
        else
          until = std::min(until, ready);
      }
      const double speed = shared_speed(s_.ranks, active, cores_);
      for (int r = 0; r < s_.ranks; ++r)
        if (left_[at(r)] >= 0) until = std::min(until, now_ + left_[at(r)] / speed);
      if (until == kNever) return now_;
      for (int r = 0; r < s_.ranks; ++r)
        if (left_[at(r)] >= 0) advance(r, (until - now_) * speed, until);
      now_ = until;
    }
  }

 private:
  static constexpr double kNever = 1e300;
  static std::size_t at(int rank) { return static_cast<std::size_t>(rank); }
  std::size_t slot(int stage, int m) const {
    return static_cast<std::size_t>(stage) * static_cast<std::size_t>(s_.micro_batches) +
           static_cast<std::size_t>(m);
  }
  const Action* action(int r) const {
    const auto& list = s_.actions[at(r)];
    return next_[at(r)] < list.size() ? &list[next_[at(r)]] : nullptr;
  }

  // When the rank's next action can begin; begins it where that is now.
  double begin(int r) {
    const Action* const a = action(r);
    if (left_[at(r)] >= 0 || a == nullptr) return kNever;
    const int stage = s_.stage_of(r, a->chunk);
    const auto from = [&](const std::vector<double>& ends, int other) {
      const double end = ends[slot(other, a->micro_batch)];
      return end == kNever || s_.rank_of(other) == r ? end : end + send_;
    };
    double ready = now_;
    if (a->pass == Pass::forward && stage > 0) ready = from(forward_, stage - 1);
    if ((a->pass == Pass::backward || a->pass == Pass::backward_input) && stage + 1 < s_.stages())
      ready = from(backward_, stage + 1);
    if (ready > now_) return ready;
    left_[at(r)] = time_of(stages_[at(stage)], a->pass);
    return now_;
  }

  void advance(int r, double work, double time) {
    double& left = left_[at(r)];
    left -= work;
    if (left > 1e-12) return;
    left = -1;
    const Action& a = *action(r);
    const int stage = s_.stage_of(r, a.chunk);
    if (a.pass == Pass::forward) forward_[slot(stage, a.micro_batch)] = time;
    if (a.pass == Pass::backward || a.pass == Pass::backward_input)
      backward_[slot(stage, a.micro_batch)] = time;
    ++next_[at(r)];
  }

  const Schedule& s_;
  const std::vector<StageCost>& stages_;
  double send_, now_ = 0;
  int cores_;
  std::vector<double> forward_, backward_;  // ends, by stage and micro-batch
  std::vector<std::size_t> next_;
  std::vector<double> left_;  // of the action under way, in seconds while all work; -1: none
};

}  // namespace

double shared_makespan(const Schedule& schedule, const std::vector<StageCost>& stages, double send,
                       int cores) {
  return SharedCores(schedule, stages, send, cores).run();
}

std::vector<StageCost> ranks_stages(const RanksRun& run, const StepParts& parts, const StepLinks& links) {
  const sinew::Layout& l = run.layout;
  std::vector<StageCost> costs;
  for (const StagePart& part : balanced_stages(run.model, l.stages(), run.work.sequence))
    costs.push_back(stage_cost(run, parts, part));
  const Schedule schedule = trainer_schedule(l, 1);
  for (int rank = 0; rank < schedule.ranks; ++rank) {
    const Travel t = travel_of(run, {.pipeline = rank}, links);
    const double passes = static_cast<double>(run.work.micro_batches * schedule.chunks);
    for (int chunk = 0; chunk < schedule.chunks; ++chunk) {
      StageCost& cost = costs[static_cast<std::size_t>(schedule.stage_of(rank, chunk))];
      cost.forward += t.gathers / 2 / passes;
      cost.backward_input += (t.gathers / 2 + t.scatters) / passes;
    }
  }
  return costs;
}

RanksPrediction predict_ranks(const RanksRun& run, const StepParts& parts, const StepLinks& links) {
  const sinew::Layout& l = run.layout;
  RanksPrediction p;
  const auto stages = ranks_stages(run, parts, links);
  const Schedule schedule = trainer_schedule(l, run.work.micro_batches);
  const MicroBatch batch{run.work.rows, run.work.sequence, run.work.bf16 ? 2 : 4};
  const bool joint = run.work.balance == StepWork::Balance::joint;
  const double send = link_seconds(links, "pipeline", "send",
                                   static_cast<double>(stage_flow_bytes(run.model, l, batch, joint)));
  p.pipeline = shared_makespan(schedule, stages, send, run.cores);
  double work = 0;
  for (const StageCost& c : stages)
    work += (c.forward + c.backward_input + c.backward_weight) * static_cast<double>(run.work.micro_batches);
  p.bubble = std::max(0.0, 1 - work / (p.pipeline * static_cast<double>(l.pipeline)));
  const bool twice =
      l.pipeline > 1 && (run.model.tie_word_embeddings || run.model.num_nextn_predict_layers > 0);
  for (std::int64_t rank = 0; rank < l.pipeline; ++rank)
    p.state = std::max(p.state, state_seconds(run, {.pipeline = rank}, links, twice));
  p.update = parts.update;
  if (l.size() > 1) {
    const int reductions = 2 + (run.model.moe.n_routed_experts > 0 ? 1 : 0) + (run.work.stop_signal ? 1 : 0);
    p.sums = reductions * link_seconds(links, "world", "all_reduce", 0);
  }
  for (std::int64_t rank = 0; rank < l.size(); ++rank) {
    const Place place = place_of(l, rank);
    for (const auto& [key, bytes] :
         step_traffic(run.model, l, run.work, place, even_rows(run.model, l, run.work, place)))
      p.sent += static_cast<double>(bytes) / static_cast<double>(l.size());
  }
  p.seconds = p.pipeline + p.state + p.update + p.sums;
  return p;
}

}  // namespace sinew::plan
