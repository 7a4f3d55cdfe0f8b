#include "ops/exchange.hpp"

#include <torch/csrc/autograd/custom_function.h>

#include "base/error.hpp"
#include "ops/fp8_blocks.hpp"
#include "ops/fused.hpp"

namespace sinew {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// Rows under way in one direction.
class Flight {
 public:
  void start(Group& group, const std::vector<std::int64_t>& sent, const std::vector<std::int64_t>& received,
             RowFormat format, const Tensor& rows, const Tensor& extra) {
    const at::NoGradGuard no_grad;
    std::int64_t arriving = 0;
    for (const auto n : received) arriving += n;
    format_ = format;
    type_ = rows.scalar_type();
    const auto post = [&](const Tensor& in) {
      auto shape = in.sizes().vec();
      shape[0] = arriving;
      landed_.push_back(at::empty(shape, in.options()));
      works_.push_back(group.all_to_all_async(landed_.back(), in.contiguous(), received, sent));
    };
    if (format == RowFormat::fp8) {
      const auto packed = to_fp8_rows(rows);
      post(packed.codes);
      post(packed.scales);
    } else {
      post(format == RowFormat::bf16 ? rows.to(at::kBFloat16) : rows);
    }
    if (extra.defined()) post(extra);
    has_extra_ = extra.defined();
  }

  RowPair land() {
    const at::NoGradGuard no_grad;
    for (const auto& work : works_) work->wait();
    RowPair out;
    out.rows =
        format_ == RowFormat::fp8 ? from_fp8_rows({landed_[0], landed_[1]}, type_) : landed_[0].to(type_);
    if (has_extra_) out.extra = landed_.back();
    landed_.clear();
    works_.clear();
    return out;
  }

 private:
  RowFormat format_ = RowFormat::exact;
  at::ScalarType type_ = at::kFloat;
  bool has_extra_ = false;
  std::vector<Tensor> landed_;
  std::vector<WorkPtr> works_;
};

}  // namespace

struct Exchange::Trip {
  GroupPtr group;
  std::vector<std::int64_t> sent, received;
  RowFormat there, back;
  Flight forth, home;
};

namespace {

struct Held : torch::CustomClassHolder {
  std::shared_ptr<Exchange::Trip> trip;
};
using HeldPtr = c10::intrusive_ptr<Held>;

std::int64_t total(const std::vector<std::int64_t>& counts) {
  std::int64_t sum = 0;
  for (const auto n : counts) sum += n;
  return sum;
}

Exchange::Trip& trip_of(AutogradContext* ctx) {
  return *c10::static_intrusive_pointer_cast<Held>(ctx->saved_data["trip"].toCapsule())->trip;
}

// Outputs stand for what will have arrived: they carry the shape and the graph, finish() the values.
struct Start : torch::autograd::Function<Start> {
  static variable_list forward(AutogradContext* ctx, const Tensor& rows, const OptionalTensor& extra,
                               const HeldPtr& held) {
    auto& trip = *held->trip;
    ctx->saved_data["trip"] = c10::IValue::make_capsule(held);
    ctx->saved_data["extra"] = extra.has_value();
    trip.forth.start(*trip.group, trip.sent, trip.received, trip.there, rows, tensor_of(extra));
    const auto arriving = total(trip.received);
    variable_list out{at::empty({1}, rows.options()).expand({arriving, rows.size(1)})};
    if (extra.has_value()) out.push_back(at::empty({1}, extra->options()).expand({arriving, extra->size(1)}));
    return out;
  }
  static variable_list backward(AutogradContext* ctx, variable_list /*grads*/) {
    auto landed = trip_of(ctx).home.land();
    return {landed.rows, ctx->saved_data["extra"].toBool() ? landed.extra : Tensor(), Tensor()};
  }
};

struct Finish : torch::autograd::Function<Finish> {
  static variable_list forward(AutogradContext* ctx, const Tensor& rows, const OptionalTensor& extra,
                               const HeldPtr& held) {
    ctx->saved_data["trip"] = c10::IValue::make_capsule(held);
    ctx->saved_data["extra"] = extra.has_value();
    ctx->saved_data["width"] = rows.size(1);
    if (extra.has_value()) ctx->saved_data["extra_width"] = extra->size(1);
    const auto landed = held->trip->forth.land();
    variable_list out{landed.rows};
    if (extra.has_value()) out.push_back(landed.extra);
    return out;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto& trip = trip_of(ctx);
    const bool extra = ctx->saved_data["extra"].toBool();
    trip.home.start(*trip.group, trip.received, trip.sent, trip.back, grads[0], extra ? grads[1] : Tensor());
    // Start::backward has the values; these carry the graph on.
    return {grads[0], extra ? grads[1] : Tensor(), Tensor()};
  }
};

}  // namespace

Exchange::Exchange(GroupPtr group, std::vector<std::int64_t> sent, std::vector<std::int64_t> received,
                   RowFormat there, RowFormat back)
    : trip_(std::make_shared<Trip>()) {
  trip_->group = std::move(group);
  trip_->sent = std::move(sent);
  trip_->received = std::move(received);
  trip_->there = there;
  trip_->back = back;
}

RowPair Exchange::start(const Tensor& rows, const Tensor& extra) {
  ensure(rows.dim() == 2 && (!extra.defined() || extra.dim() == 2), "rows that travel are matrices");
  auto held = c10::make_intrusive<Held>();
  held->trip = trip_;
  const auto out = Start::apply(rows, optional_of(extra), held);
  return {out[0], out.size() > 1 ? out[1] : Tensor()};
}

RowPair Exchange::finish(const RowPair& arriving) {
  auto held = c10::make_intrusive<Held>();
  held->trip = trip_;
  const auto out = Finish::apply(arriving.rows, optional_of(arriving.extra), held);
  return {out[0], out.size() > 1 ? out[1] : Tensor()};
}

}  // namespace sinew
