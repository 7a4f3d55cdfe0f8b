#include "plan/trainer_state.hpp"

#include <algorithm>
#include <map>
#include <string>

#include "base/error.hpp"
#include "config/stages.hpp"
#include "config/tensor_names.hpp"
#include "config/traffic_formulas.hpp"
#include "schedule/schedule.hpp"

namespace sinew::plan {
namespace {

// What a process holds, in runs of one unit and one way of lying: 0 whole, 1 cut by tensor, 2 an expert's.
struct Held {
  std::map<std::pair<std::string, int>, std::int64_t> flats;
  std::int64_t parameters = 0, buffers = 0;
};

Held held_at(const ModelConfig& model, const sinew::Layout& l, std::int64_t sequence, const Place& place) {
  const auto stages = balanced_stages(model, l.stages(), sequence);
  std::vector<StagePart> mine;
  const auto schedule = make_schedule(parse_schedule_kind(l.schedule), static_cast<int>(l.pipeline), 1,
                                      static_cast<int>(l.chunks_per_rank()));
  for (int chunk = 0; chunk < schedule.chunks; ++chunk)
    mine.push_back(
        stages[static_cast<std::size_t>(schedule.stage_of(static_cast<int>(place.pipeline), chunk))]);
  Held held;
  const std::int64_t experts_each = std::max<std::int64_t>(1, model.moe.n_routed_experts / l.expert);
  for (const TensorSpec& spec : tensor_specs(model)) {
    if (std::none_of(mine.begin(), mine.end(),
                     [&](const StagePart& part) { return stage_holds(model, part, spec); }))
      continue;
    std::vector<std::int64_t> shape = spec.shape;
    int spread = 0;
    if (const auto expert = expert_of(spec.name)) {
      if (*expert / experts_each != place.expert) continue;
      spread = 2;
    } else if (const auto cut = tensor_cut(spec.name); cut && l.tensor > 1) {
      shape[*cut] = part_begin(shape[*cut], l.tensor, place.tensor + 1) -
                    part_begin(shape[*cut], l.tensor, place.tensor);
      spread = 1;
    }
    std::int64_t elements = 1;
    for (const std::int64_t d : shape) elements *= d;
    (spec.buffer ? held.buffers : held.parameters) += elements;
    if (!spec.buffer) held.flats[{unit_name(spec.name), spread}] += elements;
  }
  return held;
}

// Processes that share a run, and the elements of each one's piece.
struct Pieces {
  std::int64_t members, piece;
};
Pieces pieces_of(const sinew::Layout& l, int spread, std::int64_t elements) {
  const std::int64_t members = spread == 2 ? l.expert_shard() : l.shard;
  return {members, (elements + members - 1) / members};
}

}  // namespace

TrainerState trainer_state(const ModelConfig& model, const sinew::Layout& l, std::int64_t sequence, bool bf16,
                           const Place& place) {
  const Held held = held_at(model, l, sequence, place);
  TrainerState state;
  state.parameters = held.parameters;
  state.buffers = held.buffers;
  const std::int64_t weight = bf16 ? 2 : 4, optimizer = bf16 ? 12 : 8;
  for (const auto& [key, elements] : held.flats) {
    const auto [members, piece] = pieces_of(l, key.second, elements);
    const std::int64_t begin = std::min(elements, piece * (place.shard % members));
    state.weights += weight * (l.zero >= 3 ? piece : piece * members);
    state.gradients += 4 * (l.zero >= 2 ? piece : piece * members);
    state.optimizer += optimizer * (std::min(elements, begin + piece) - begin);
  }
  return state;
}

StateTraffic state_traffic(const ModelConfig& model, const sinew::Layout& l, std::int64_t micro_batches,
                           bool bf16, const Place& place) {
  require(l.tensor == 1 && l.context == 1 && l.pipeline == 1,
          "state_traffic: tensor, context and pipeline must be 1");
  StateTraffic t;
  const std::int64_t weight = bf16 ? 2 : 4, m = micro_batches;
  for (const auto& [key, elements] : held_at(model, l, 1, place).flats) {
    const bool expert = key.second == 2;
    const auto [members, piece] = pieces_of(l, key.second, elements);
    const std::int64_t copies = expert ? l.expert_replicas() / members : l.data;
    // The embedding is gathered once more for each depth of multi-token prediction.
    const std::int64_t passes = 2 + (key.first == "embedding" ? model.num_nextn_predict_layers : 0);
    (expert ? t.expert_gather : t.gather) +=
        all_gather_bytes(piece, members, weight) * (l.zero >= 3 ? passes * m : 1);
    (expert ? t.expert_scatter : t.scatter) +=
        reduce_scatter_bytes(piece, members, 4) * (l.zero >= 2 ? m : 1);
    (expert ? t.expert_replicas : t.replicas) += all_reduce_bytes(piece, copies, place.data % copies, 4);
  }
  return t;
}

std::int64_t expert_traffic(const ModelConfig& model, const sinew::Layout& l, std::int64_t out,
                            std::int64_t in, bool bf16) {
  const std::int64_t h = model.hidden_size, exact = h * (bf16 ? 2 : 4);
  const std::int64_t narrow =
      l.dispatch == "fp8" ? h + 4 * ((h + 127) / 128) : exact;  // to experts, and back's gradient
  const std::int64_t wide = l.dispatch == "fp8" ? 2 * h : exact;
  const std::int64_t counts = (l.expert - 1) * 8 * (model.moe.n_routed_experts / l.expert);
  return counts + out * (narrow + 4) + in * (wide + 4) + in * wide + out * narrow;
}

}  // namespace sinew::plan
