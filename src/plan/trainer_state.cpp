#include "plan/trainer_state.hpp"

#include <algorithm>

#include "config/tensor_names.hpp"

namespace sinew::plan {
namespace {

bool held_by(const ModelConfig& model, const std::vector<StagePart>& chunks, const TensorSpec& spec) {
  return std::any_of(chunks.begin(), chunks.end(),
                     [&](const StagePart& part) { return stage_holds(model, part, spec); });
}

// The run of a unit that lies so; new ones at the end.
StateRun& run_of(HeldNetwork& held, std::size_t unit, const std::string& name, Lying lying) {
  for (auto run = held.runs.rbegin(); run != held.runs.rend() && run->unit == unit; ++run)
    if (run->lying == lying) return *run;
  held.runs.push_back({.unit = unit, .name = name, .lying = lying});
  return held.runs.back();
}

void share(StateRun& run, const sinew::Layout& l, const Place& place) {
  const bool expert = run.lying == Lying::expert;
  run.members = expert ? l.expert_shard() : l.shard;
  run.position = expert ? place.replica % run.members : place.shard;
}

}  // namespace

Place place_of(const sinew::Layout& l, std::int64_t world_rank) {
  Place p;
  std::int64_t rest = world_rank;
  const auto take = [&](std::int64_t extent) {
    const std::int64_t position = rest % extent;
    rest /= extent;
    return position;
  };
  p.tensor = take(l.tensor);
  p.context = take(l.context);
  p.shard = take(l.shard);
  p.data = take(l.data);
  p.pipeline = rest;
  const std::int64_t number = world_rank % l.stage_size();
  p.expert = number % l.expert;
  p.replica = number / l.expert;
  return p;
}

Schedule trainer_schedule(const sinew::Layout& l, std::int64_t micro_batches) {
  const auto ranks = static_cast<int>(l.pipeline), count = static_cast<int>(micro_batches);
  if (ranks == 1) return make_schedule(ScheduleKind::one_f_one_b, 1, count);
  return make_schedule(parse_schedule_kind(l.schedule), ranks, count, static_cast<int>(l.chunks_per_rank()));
}

const char* shard_group(const StateRun& run) { return run.lying == Lying::expert ? "expert_shard" : "shard"; }

StateCopies copies_of(const StateRun& run, const sinew::Layout& l, const Place& p) {
  const std::int64_t row = p.data * l.context + p.context, rows = l.data * l.context;
  if (run.lying == Lying::expert)
    return {"expert_data", l.expert_replicas() / run.members, p.replica / run.members};
  if (run.lying == Lying::tensor) return {"data+context", rows, row};
  return {"data+context+tensor", rows * l.tensor, row * l.tensor + p.tensor};
}

std::vector<StagePart> held_chunks(const ModelConfig& model, const sinew::Layout& l, std::int64_t sequence,
                                   std::int64_t pipeline) {
  const auto stages = balanced_stages(model, l.stages(), sequence);
  const Schedule schedule = trainer_schedule(l, 1);
  std::vector<StagePart> chunks;
  for (int chunk = 0; chunk < schedule.chunks; ++chunk)
    chunks.push_back(stages[static_cast<std::size_t>(schedule.stage_of(static_cast<int>(pipeline), chunk))]);
  return chunks;
}

HeldNetwork held_network(const ModelConfig& model, const sinew::Layout& l, std::int64_t sequence,
                         const Place& place) {
  HeldNetwork held;
  held.chunks = held_chunks(model, l, sequence, place.pipeline);
  const std::int64_t experts_each = std::max<std::int64_t>(1, model.moe.n_routed_experts / l.expert);
  std::size_t unit = 0;
  std::string name;
  for (const TensorSpec& spec : tensor_specs(model)) {
    if (!held_by(model, held.chunks, spec)) continue;
    std::vector<std::int64_t> shape = spec.shape;
    Lying lying = Lying::whole;
    std::int64_t joined = 0;
    if (const auto expert = expert_of(spec.name)) {
      if (*expert / experts_each != place.expert) continue;
      lying = Lying::expert;
    } else if (const auto cut = tensor_cut(spec.name); cut && l.tensor > 1) {
      shape[*cut] = part_begin(shape[*cut], l.tensor, place.tensor + 1) -
                    part_begin(shape[*cut], l.tensor, place.tensor);
      lying = Lying::tensor;
      if (shape.size() == 2) joined = (spec.shape[*cut] + l.tensor - 1) / l.tensor * shape[1 - *cut];
    }
    const std::string own = unit_name(spec.name);
    if (!name.empty() && own != name) ++unit;
    name = own;
    std::int64_t elements = 1;
    for (const std::int64_t d : shape) elements *= d;
    (spec.buffer ? held.buffers : held.parameters) += elements;
    if (spec.buffer) continue;
    StateRun& run = run_of(held, unit, name, lying);
    run.elements += elements;
    run.joined += joined;
  }
  for (StateRun& run : held.runs) share(run, l, place);
  return held;
}

TrainerState trainer_state(const ModelConfig& model, const sinew::Layout& l, std::int64_t sequence, bool bf16,
                           const Place& place) {
  const HeldNetwork held = held_network(model, l, sequence, place);
  TrainerState state;
  state.parameters = held.parameters;
  state.buffers = held.buffers;
  const std::int64_t weight = bf16 ? 2 : 4, optimizer = bf16 ? 12 : 8;
  for (const StateRun& run : held.runs) {
    const std::int64_t piece = run.piece(), begin = std::min(run.elements, piece * run.position);
    state.weights += weight * (l.zero >= 3 ? piece : piece * run.members);
    state.gradients += 4 * (l.zero >= 2 ? piece : piece * run.members);
    state.optimizer += optimizer * (std::min(run.elements, begin + piece) - begin);
  }
  return state;
}

}  // namespace sinew::plan
