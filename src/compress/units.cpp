#include "compress/units.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "base/index.hpp"
#include "quant/gguf_names.hpp"
#include "quant/recipe.hpp"

namespace sinew::compress {
namespace {

using engine::SwigluWeights;

class Builder {
 public:
  Builder(const ModelSource& source, const TensorPlaces& places, const Model& model, const Layer& layer)
      : source_(source), places_(places), halves_(model.rope_layout == RopeLayout::half), layer_(layer) {}

  LayerUnits build() {
    if (layer_.latent)
      latent();
    else
      grouped();
    if (layer_.dense)
      network(*layer_.dense, Part::dense, -1, [](Layer& l) -> SwigluWeights& { return *l.dense; });
    if (layer_.moe) {
      for (std::size_t e = 0; e < layer_.moe->experts.size(); ++e)
        network(layer_.moe->experts[e], Part::expert, static_cast<index_t>(e),
                [e](Layer& l) -> SwigluWeights& { return l.moe->experts[e]; });
      if (layer_.moe->shared)
        network(*layer_.moe->shared, Part::shared, -1,
                [](Layer& l) -> SwigluWeights& { return *l.moe->shared; });
    }
    return std::move(out_);
  }

 private:
  using Slot = std::function<WeightMatrix&(Layer&)>;

  std::size_t input(const std::string& name, index_t cols, Part part, int pool = -1) {
    out_.inputs.push_back({name, cols, part, pool});
    return out_.inputs.size() - 1;
  }

  void add(const std::string& name, const std::string& place_name, index_t part, index_t parts,
           std::size_t input, Part kind, index_t expert, index_t turned, Slot slot) {
    const TensorPlaces::Place* const place = places_.find(place_name);
    if (place == nullptr) return;
    const SourceTensor& tensor = source_.tensors[place->tensor];
    if (!quantizable(tensor)) return;
    const index_t rows = place->rows / parts;
    out_.units.push_back({name, place->tensor, place->first_row + part * rows, rows, tensor.rows.cols, input,
                          kind, expert, place->turned && halves_ ? turned : 0, std::move(slot)});
  }

  void plain(const WeightMatrix& w, std::size_t input, Slot slot, index_t turned = 0) {
    add(w.name, w.name, 0, 1, input, Part::attention, -1, turned, std::move(slot));
  }

  void latent() {
    const engine::LatentAttention& a = *layer_.latent;
    const auto heads = static_cast<index_t>(a.key_absorb.size());
    const std::size_t x = input(a.q_a.present() ? a.q_a.name : a.q.name, a.kv_a.cols, Part::attention);
    std::size_t q = x;
    if (a.q_a.present()) {
      plain(a.q_a, x, [](Layer& l) -> WeightMatrix& { return l.latent->q_a; });
      q = input(a.q.name, a.q.cols, Part::attention);
    }
    plain(a.q, q, [](Layer& l) -> WeightMatrix& { return l.latent->q; });
    plain(a.kv_a, x, [](Layer& l) -> WeightMatrix& { return l.latent->kv_a; });
    const std::string kv_b = a.key_absorb[0].name.substr(0, a.key_absorb[0].name.find('#'));
    for (index_t h = 0; h < heads; ++h) {
      const std::string name = fmt::format("{}.key_b.{}", kv_b, h);
      add(name, kv_b + "#key", h, heads, input(name, a.key_absorb[size(h)].cols, Part::attention),
          Part::attention, -1, 0, [h](Layer& l) -> WeightMatrix& { return l.latent->key_absorb[size(h)]; });
    }
    for (index_t h = 0; h < heads; ++h) {
      const std::string name = fmt::format("{}.value_b.{}", kv_b, h);
      add(name, kv_b + "#value", h, heads, input(name, a.value_up[size(h)].cols, Part::attention),
          Part::attention, -1, 0, [h](Layer& l) -> WeightMatrix& { return l.latent->value_up[size(h)]; });
    }
    plain(layer_.o, input(layer_.o.name, layer_.o.cols, Part::attention),
          [](Layer& l) -> WeightMatrix& { return l.o; });
  }

  void grouped() {
    const engine::GroupedAttention& a = *layer_.grouped;
    const index_t head = source_.config.head_dim;
    const std::size_t x = input(a.q.name, a.q.cols, Part::attention);
    plain(
        a.q, x, [](Layer& l) -> WeightMatrix& { return l.grouped->q; }, head);
    plain(
        a.k, x, [](Layer& l) -> WeightMatrix& { return l.grouped->k; }, head);
    plain(a.v, x, [](Layer& l) -> WeightMatrix& { return l.grouped->v; });
    plain(layer_.o, input(layer_.o.name, layer_.o.cols, Part::attention),
          [](Layer& l) -> WeightMatrix& { return l.o; });
  }

  template <class Network>
  void network(const SwigluWeights& w, Part part, index_t expert, Network get) {
    const int pool = part == Part::expert ? 0 : -1;
    const std::size_t x = input(w.gate.name, w.gate.cols, part, pool);
    const std::size_t act = input(w.down.name, w.down.cols, part, pool < 0 ? pool : pool + 1);
    add(w.gate.name, w.gate.name, 0, 1, x, part, expert, 0,
        [get](Layer& l) -> WeightMatrix& { return get(l).gate; });
    add(w.up.name, w.up.name, 0, 1, x, part, expert, 0,
        [get](Layer& l) -> WeightMatrix& { return get(l).up; });
    add(w.down.name, w.down.name, 0, 1, act, part, expert, 0,
        [get](Layer& l) -> WeightMatrix& { return get(l).down; });
  }

  const ModelSource& source_;
  const TensorPlaces& places_;
  const bool halves_;
  const Layer& layer_;
  LayerUnits out_;
};

}  // namespace

TensorPlaces::TensorPlaces(const ModelSource& source) {
  std::map<std::string, std::size_t> numbers;
  for (std::size_t i = 0; i < source.tensors.size(); ++i) numbers.emplace(source.tensors[i].name, i);
  for (const bool split : {false, true})
    for (const GgufSpec& spec : gguf_specs(source.config, {.split_experts = split, .mtp = true})) {
      const auto at = numbers.find(spec.name);
      if (at == numbers.end()) continue;
      const char* const suffix = spec.layout == GgufLayout::key_b     ? "#key"
                                 : spec.layout == GgufLayout::value_b ? "#value"
                                                                      : "";
      const index_t rows = source.tensors[at->second].rows.rows / static_cast<index_t>(spec.sources.size());
      for (std::size_t part = 0; part < spec.sources.size(); ++part)
        places_.emplace(spec.sources[part].name + suffix, Place{at->second, static_cast<index_t>(part) * rows,
                                                                rows, spec.layout == GgufLayout::rope_pairs});
    }
}

const TensorPlaces::Place* TensorPlaces::find(const std::string& name) const {
  const auto at = places_.find(name);
  return at != places_.end() ? &at->second : nullptr;
}

LayerUnits layer_units(const ModelSource& source, const TensorPlaces& places, const Model& model,
                       index_t layer) {
  return Builder(source, places, model, model.layers[size(layer)]).build();
}

void set_unit(const Unit& unit, BlockFormat format, const std::byte* data, Layer& layer) {
  WeightMatrix& slot = unit.slot(layer);
  WeightMatrix w{.name = slot.name, .rows = unit.rows, .cols = unit.cols, .format = format, .data = data};
  w.row_bytes = block_bytes(format, size(unit.cols));
  if (unit.turned == 0) {
    slot = std::move(w);
    return;
  }
  // Back to the order of the public checkpoint: row i of a half stands at 2 i of the pairs, i of the other at
  // 2 i + 1.
  const index_t half = unit.turned / 2;
  const auto bytes = std::make_shared<std::vector<std::byte>>(w.bytes());
  for (index_t row = 0; row < unit.rows; ++row) {
    const index_t in = row % unit.turned, from = row - in + (in < half ? 2 * in : 2 * (in - half) + 1);
    std::copy_n(data + size(from) * w.row_bytes, w.row_bytes, bytes->data() + size(row) * w.row_bytes);
  }
  w.data = bytes->data();
  w.owner = bytes;
  slot = std::move(w);
}

}  // namespace sinew::compress
