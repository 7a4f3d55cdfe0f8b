#include "parallel/sharding.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <map>
#include <utility>

#include "base/error.hpp"
#include "ops/sequence_parallel.hpp"
#include "ops/weight_work.hpp"
#include "parallel/storage_of.hpp"

namespace sinew {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// One flat run of a unit's weights of one spread.
struct Sharding::Flat {
  std::size_t unit = 0;
  Spread spread = Spread::whole;
  bool embedding = false;
  std::vector<std::size_t> parameters;
  std::vector<std::int64_t> offsets;  // of each in the run
  std::int64_t elements = 0, piece = 0;
  std::shared_ptr<Communicator> shard;
  std::vector<std::shared_ptr<Communicator>> replicas;  // summed over one after another
  bool counts = true;

  Tensor weights, own;             // [piece * n], [piece], in the model's type
  Tensor gradients, own_gradient;  // the same, fp32
  bool weights_go = false, gradients_go = false;
  WorkPtr gathering, reducing;
  Tensor reduced;  // [piece] fp32, what `reducing` writes
  bool open = false;
  int later = 0;  // passes through the unit whose weight gradients are still to come (ops/weight_work.hpp)

  std::int64_t members() const { return shard->size(); }
  std::int64_t padded() const { return piece * members(); }
  std::int64_t begin() const { return piece * shard->rank(); }
};

namespace {

// Nodes without arithmetic that tell the sharding when the gradient passes.
struct Here : torch::CustomClassHolder {
  Sharding* sharding = nullptr;
  std::size_t unit = 0;
  bool opens = false;
};

struct Passage : torch::autograd::Function<Passage> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const c10::intrusive_ptr<Here>& here) {
    ctx->saved_data["here"] = c10::IValue::make_capsule(here);
    return x.view_as(x);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto here = c10::static_intrusive_pointer_cast<Here>(ctx->saved_data["here"].toCapsule());
    here->opens ? here->sharding->open(here->unit) : here->sharding->close(here->unit);
    return {grads[0], Tensor()};
  }
};

Tensor passage(Sharding* sharding, std::size_t unit, bool opens, const Tensor& x) {
  if (!at::GradMode::is_enabled() || !x.is_floating_point()) return x;
  auto here = c10::make_intrusive<Here>();
  here->sharding = sharding;
  here->unit = unit;
  here->opens = opens;
  return Passage::apply(x, here);
}

// Operations under way, so few that what they receive into stays small.
class TwoAtATime {
 public:
  void add(WorkPtr work) {
    if (before_) before_->wait();
    before_ = std::exchange(last_, std::move(work));
  }
  void finish() {
    for (auto* work : {&before_, &last_})
      if (const auto due = std::exchange(*work, nullptr)) due->wait();
  }

 private:
  WorkPtr before_, last_;
};

}  // namespace

Sharding::Sharding(std::shared_ptr<Mesh> mesh, std::vector<int> embedding_ranks)
    : mesh_(std::move(mesh)),
      embedding_ranks_(std::move(embedding_ranks)),
      zero_(static_cast<int>(mesh_->layout().zero)) {}

Sharding::~Sharding() = default;

void Sharding::choose_groups(Flat& flat) const {
  auto& m = *mesh_;
  const bool first = m.position(Axis::data) == 0 && m.position(Axis::context) == 0;
  switch (flat.spread) {
    case Spread::expert:
      flat.shard = m.expert_shard();
      flat.replicas = {m.expert_data()};
      flat.counts = m.expert_data()->rank() == 0;
      break;
    case Spread::tensor:
      flat.shard = m.group(Axis::shard);
      flat.replicas = {m.group({Axis::data, Axis::context})};
      flat.counts = first;
      break;
    case Spread::whole:
      flat.shard = m.group(Axis::shard);
      flat.replicas = {m.group({Axis::data, Axis::context, Axis::tensor})};
      flat.counts = first && m.position(Axis::tensor) == 0;
      break;
  }
  if (flat.embedding && embedding_ranks_.size() > 1) {
    flat.replicas.push_back(m.embedding(embedding_ranks_));
    flat.counts = flat.counts && flat.replicas.back()->rank() == 0;
  }
  std::erase_if(flat.replicas, [](const auto& group) { return group->size() == 1; });
}

void Sharding::lay_out(at::ScalarType dtype, at::Device device) {
  std::map<std::pair<std::size_t, Spread>, Flat*> found;
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const auto& part = parts_[i];
    if (part.whole.buffer) continue;
    auto& flat = found[{part.unit, part.spread}];
    if (flat == nullptr) {
      flats_.push_back(std::make_unique<Flat>());
      flat = flats_.back().get();
      flat->unit = part.unit;
      flat->spread = part.spread;
    }
    flat->embedding = flat->embedding || part.whole.name == "model.embed_tokens.weight";
    flat->parameters.push_back(i);
    flat->offsets.push_back(flat->elements);
    std::int64_t count = 1;
    for (const auto n : part.shape) count *= n;
    flat->elements += count;
  }
  const auto narrow = at::TensorOptions(dtype).device(device), wide = narrow.dtype(at::kFloat);
  for (auto& flat : flats_) {
    choose_groups(*flat);
    const auto n = flat->members();
    flat->piece = (flat->elements + n - 1) / n;
    flat->weights_go = zero_ == 3 && n > 1;
    flat->gradients_go = zero_ >= 2 && n > 1;
    hooked_ = hooked_ || flat->weights_go || flat->gradients_go;
    flat->weights = at::empty({flat->padded()}, narrow);
    flat->gradients = at::zeros({flat->padded()}, wide);
    if (flat->weights_go) take_memory(flat->weights);
    flat->own = flat->weights_go ? at::zeros({flat->piece}, narrow)
                                 : flat->weights.narrow(0, flat->begin(), flat->piece);
    if (flat->gradients_go) take_memory(flat->gradients);
    flat->own_gradient = flat->gradients_go ? at::zeros({flat->piece}, wide)
                                            : flat->gradients.narrow(0, flat->begin(), flat->piece);
    if (!flat->weights_go && flat->padded() > flat->elements)
      flat->weights.narrow(0, flat->elements, flat->padded() - flat->elements).zero_();
  }
  std::stable_sort(flats_.begin(), flats_.end(),
                   [](const auto& a, const auto& b) { return a->unit < b->unit; });
}

std::vector<Tensor> Sharding::allocate(const std::vector<PartSpec>& parts, at::ScalarType dtype,
                                       at::Device device) {
  ensure(parts_.empty(), "one model for a sharding");
  parts_ = parts;
  lay_out(dtype, device);
  std::vector<Tensor> tensors(parts_.size());
  for (std::size_t i = 0; i < parts_.size(); ++i)
    if (parts_[i].whole.buffer)
      tensors[i] = at::zeros(parts_[i].shape,
                             at::TensorOptions(parts_[i].whole.fp32 ? at::kFloat : dtype).device(device));
  for (const auto& flat : flats_) {
    for (std::size_t i = 0; i < flat->parameters.size(); ++i) {
      const auto& shape = parts_[flat->parameters[i]].shape;
      std::int64_t count = 1;
      for (const auto n : shape) count *= n;
      // variable_data(): a version of its own, or gathering again would look like a change to autograd.
      tensors[flat->parameters[i]] =
          flat->weights.narrow(0, flat->offsets[i], count).view(shape).variable_data();
    }
  }
  make_pieces();
  return tensors;
}

void Sharding::make_pieces() {
  for (const auto& flat : flats_) {
    for (std::size_t i = 0; i < flat->parameters.size(); ++i) {
      const auto next = i + 1 < flat->offsets.size() ? flat->offsets[i + 1] : flat->elements;
      const auto begin = std::max(flat->offsets[i], flat->begin());
      const auto end = std::min(next, flat->begin() + flat->piece);
      if (begin >= end) continue;
      pieces_.push_back({.parameter = flat->parameters[i],
                         .begin = begin - flat->offsets[i],
                         .end = end - flat->offsets[i],
                         .weight = flat->own.narrow(0, begin - flat->begin(), end - begin),
                         .gradient = flat->own_gradient.narrow(0, begin - flat->begin(), end - begin),
                         .counts = flat->counts});
    }
  }
}

void Sharding::adopt(const std::vector<Tensor>& leaves) {
  for (const auto& flat : flats_) {
    for (std::size_t i = 0; i < flat->parameters.size(); ++i) {
      auto leaf = leaves[flat->parameters[i]];
      leaf.mutable_grad() = flat->gradients.narrow(0, flat->offsets[i], leaf.numel()).view(leaf.sizes());
    }
  }
}

bool Sharding::writes_buffers() const { return mesh_->stage()->rank() == 0; }

template <class F>
void Sharding::each_flat(std::size_t unit, F f) {
  for (const auto& flat : flats_)
    if (flat->unit == unit) f(*flat);
}

void Sharding::begin_writing(std::size_t unit) {
  each_flat(unit, [](Flat& flat) { give_memory(flat.weights); });
}

void Sharding::end_writing(std::size_t unit) {
  const at::NoGradGuard no_grad;
  each_flat(unit, [](Flat& flat) {
    if (!flat.weights_go) return;
    const auto count = std::min(flat.piece, std::max<std::int64_t>(0, flat.elements - flat.begin()));
    if (count > 0) flat.own.narrow(0, 0, count).copy_(flat.weights.narrow(0, flat.begin(), count));
    take_memory(flat.weights);
  });
}

void Sharding::start_gather(Flat& flat) {
  if (!flat.weights_go || has_memory(flat.weights)) return;
  give_memory(flat.weights);
  flat.gathering = flat.shard->all_gather_async(flat.weights, flat.own);
}

void Sharding::ensure_weights(std::size_t unit) {
  each_flat(unit, [this](Flat& flat) {
    start_gather(flat);
    if (const auto work = std::exchange(flat.gathering, nullptr)) work->wait();
  });
}

void Sharding::prefetch(std::size_t unit) {
  each_flat(unit, [this](Flat& flat) { start_gather(flat); });
}

void Sharding::drop_weights(std::size_t unit) {
  each_flat(unit, [](Flat& flat) {
    if (!flat.weights_go || !has_memory(flat.weights)) return;
    if (const auto work = std::exchange(flat.gathering, nullptr)) work->wait();
    take_memory(flat.weights);
  });
}

Tensor Sharding::enter(std::size_t unit, const Tensor& x) {
  if (!hooked_) return x;
  ensure_weights(unit);
  prefetch(unit + 1);
  return passage(this, unit, false, x);
}

Tensor Sharding::leave(std::size_t unit, const Tensor& y) {
  if (!hooked_) return y;
  drop_weights(unit);
  return passage(this, unit, true, y);
}

void Sharding::open(std::size_t unit) {
  ensure_weights(unit);
  if (unit > 0) prefetch(unit - 1);
  each_flat(unit, [](Flat& flat) {
    flat.open = true;
    if (!flat.gradients_go || has_memory(flat.gradients)) return;
    give_memory(flat.gradients);
    const at::NoGradGuard no_grad;
    flat.gradients.zero_();
  });
}

void Sharding::close(std::size_t unit) {
  drop_weights(unit);
  if (auto* const work = WeightWork::current()) {
    each_flat(unit, [](Flat& flat) { ++flat.later; });
    work->add([this, unit] {
      each_flat(unit, [](Flat& flat) { --flat.later; });
      close_gradients(unit);
    });
    return;
  }
  close_gradients(unit);
}

void Sharding::close_gradients(std::size_t unit) {
  bool first = true;
  each_flat(unit, [&](Flat& flat) {
    if (flat.later > 0 || !std::exchange(flat.open, false) || !flat.gradients_go) return;
    if (std::exchange(first, false)) finish_reductions();  // of the unit before: one is in flight at a time
    start_reduction(flat);
  });
}

void Sharding::start_reduction(Flat& flat) {
  flat.reduced = at::empty({flat.piece}, flat.own_gradient.options());
  flat.reducing = flat.shard->reduce_scatter_async(flat.reduced, flat.gradients);
  reducing_.push_back(&flat);
}

void Sharding::finish_reductions() {
  const at::NoGradGuard no_grad;
  for (Flat* flat : reducing_) {
    flat->reducing->wait();
    flat->reducing = nullptr;
    flat->own_gradient.add_(flat->reduced);
    flat->reduced = at::Tensor();
    take_memory(flat->gradients);
  }
  reducing_.clear();
}

void Sharding::end_backward() {
  if (!hooked_) return;
  // The same on all processes of a unit, so the collectives of these meet.
  for (const auto& flat : flats_)
    if (flat->open) close_gradients(flat->unit);
  for (const auto& flat : flats_) drop_weights(flat->unit);  // gathered ahead for nobody
  finish_reductions();
}

void Sharding::reduce_gradients() {
  end_backward();
  TwoAtATime works;
  for (const auto& flat : flats_)
    if (!flat->gradients_go && flat->members() > 1)
      works.add(flat->shard->reduce_scatter_async(flat->own_gradient, flat->gradients));
  works.finish();
  std::size_t rounds = 0;
  for (const auto& flat : flats_) rounds = std::max(rounds, flat->replicas.size());
  for (std::size_t round = 0; round < rounds; ++round) {
    for (const auto& flat : flats_)
      if (round < flat->replicas.size())
        works.add(flat->replicas[round]->all_reduce_async(flat->own_gradient));
    works.finish();
  }
}

void Sharding::zero_gradients() {
  const at::NoGradGuard no_grad;
  for (const auto& flat : flats_) (flat->gradients_go ? flat->own_gradient : flat->gradients).zero_();
}

void Sharding::each_whole(const std::vector<Tensor>& values, const std::function<bool(std::size_t)>& wanted,
                          const std::function<void(std::size_t, const Tensor&)>& f) {
  ensure(values.size() == pieces_.size(), "{} values for {} pieces", values.size(), pieces_.size());
  std::size_t first = 0;  // pieces lie run by run, in the order of its parameters
  for (const auto& flat : flats_) {
    const auto in_run = [&](std::size_t i) {
      const auto& own = flat->parameters;
      return i < pieces_.size() && std::find(own.begin(), own.end(), pieces_[i].parameter) != own.end();
    };
    const auto begin = first;
    while (in_run(first)) ++first;
    if (std::none_of(flat->parameters.begin(), flat->parameters.end(), wanted)) continue;
    const auto own = at::zeros({flat->piece}, flat->own_gradient.options());
    const auto offset_of = [&](std::size_t i) {
      const auto found = std::find(flat->parameters.begin(), flat->parameters.end(), pieces_[i].parameter);
      return flat->offsets[static_cast<std::size_t>(found - flat->parameters.begin())];
    };
    for (std::size_t i = begin; i < first; ++i)
      if (values[i].defined())
        own.narrow(0, offset_of(i) + pieces_[i].begin - flat->begin(), values[i].numel()).copy_(values[i]);
    const auto all = at::empty({flat->padded()}, own.options());
    flat->shard->all_gather(all, own);
    // All of the run's matrices are joined on all processes, also on those that hold no piece of one.
    for (std::size_t k = 0; k < flat->parameters.size(); ++k) {
      const auto parameter = flat->parameters[k];
      if (!wanted(parameter)) continue;
      const PartSpec& part = parts_[parameter];
      const auto box =
          all.narrow(0, flat->offsets[k], part.shape[0] * part.shape[1]).view({part.shape[0], part.shape[1]});
      const auto whole = flat->spread == Spread::tensor ? joined(box, part) : box;
      for (std::size_t i = begin; i < first; ++i)
        if (pieces_[i].parameter == parameter) f(i, whole);
    }
  }
}

Tensor Sharding::joined(const Tensor& box, const PartSpec& part) const {
  const auto group = mesh_->group(Axis::tensor);
  if (group->size() == 1) return box;
  const std::int64_t cut = part.shape[0] == part.whole.shape[0] ? 1 : 0;
  const auto size = part.whole.shape[static_cast<std::size_t>(cut)];
  ensure(part.offset[static_cast<std::size_t>(cut)] == part_begin(size, group->size(), group->rank()),
         "{} is cut in another way", part.whole.name);
  // The cut dimension first, so that a member's part is one run.
  return gather_parts(box.transpose(0, cut), size, group).transpose(0, cut).contiguous();
}

void Sharding::publish_weights() {
  std::vector<WorkPtr> works;
  for (const auto& flat : flats_)
    if (!flat->weights_go && flat->members() > 1)
      works.push_back(flat->shard->all_gather_async(flat->weights, flat->own));
  for (const auto& work : works) work->wait();
}

}  // namespace sinew
