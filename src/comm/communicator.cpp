#include "comm/communicator.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <functional>

#include "base/error.hpp"
#include "base/spans.hpp"
#include "comm/lost_rank.hpp"
#include "config/layout.hpp"
#include "config/traffic_formulas.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

constexpr int kTagBits = 22;  // of a message's number; above them the group's id, below 2^31 in all
constexpr int kUserTag = 1 << (kTagBits - 1);

// Messages under way and what to do when all are there.
class Collective : public Work {
 public:
  Collective(const char* operation, std::string what, std::vector<WorkPtr> messages,
             std::function<void()> finish = {})
      : operation_(operation),
        what_(std::move(what)),
        messages_(std::move(messages)),
        finish_(std::move(finish)) {}
  void wait() override {
    if (messages_.empty() && !finish_) return;
    const Span span(SpanKind::communication, operation_);
    const auto messages = std::move(messages_);
    messages_.clear();
    const auto finish = std::move(finish_);
    finish_ = nullptr;
    try {
      for (const auto& message : messages) message->wait();
    } catch (const LostRank& error) {
      throw LostRank(what_ + " " + error.what());
    } catch (const Error& error) {
      throw Error(what_ + " " + error.what());
    }
    if (finish) finish();
  }

 private:
  const char* operation_;
  std::string what_;
  std::vector<WorkPtr> messages_;
  std::function<void()> finish_;
};

// Sums (maxima) in the order of the list; half types in fp32.
at::Tensor reduce_in_order(const std::vector<at::Tensor>& parts, Reduction reduction) {
  const at::NoGradGuard no_grad;
  auto out = parts[0].to(wide_type(parts[0].scalar_type()), /*non_blocking=*/false, /*copy=*/true);
  for (std::size_t i = 1; i < parts.size(); ++i) {
    if (reduction == Reduction::sum) {
      out.add_(parts[i]);
    } else {
      at::maximum_out(out, out, parts[i].to(out.scalar_type()));
    }
  }
  return out;
}

at::Tensor flat(const at::Tensor& x) {
  ensure(x.is_contiguous(), "a collective takes contiguous tensors");
  return x.detach().view({-1});
}

}  // namespace

Communicator::Communicator(std::shared_ptr<Endpoint> endpoint, std::vector<int> ranks, std::string name,
                           int id)
    : endpoint_(std::move(endpoint)), ranks_(std::move(ranks)), name_(std::move(name)), id_(id) {
  const auto found = std::find(ranks_.begin(), ranks_.end(), endpoint_->rank());
  ensure(found != ranks_.end() && id >= 0 && id < 256, "group {} without rank {}", name_, endpoint_->rank());
  rank_ = static_cast<int>(found - ranks_.begin());
}

int Communicator::next_tag() {
  sequence_ = (sequence_ + 1) % kUserTag;
  return (id_ << kTagBits) | sequence_;
}

void Communicator::count(const char* operation, const Traffic& traffic) const {
  endpoint_->traffic().add(name_, operation, traffic);
}

WorkPtr Communicator::post_send(const at::Tensor& x, int to, int tag, Traffic& traffic) const {
  const auto bytes = static_cast<std::int64_t>(x.nbytes());
  const int world = ranks_[static_cast<std::size_t>(to)];
  (endpoint_->node_of(world) == endpoint_->node_of(endpoint_->rank()) ? traffic.intra_bytes
                                                                      : traffic.inter_bytes) += bytes;
  return endpoint_->send(x, world, tag);
}

WorkPtr Communicator::post_receive(const at::Tensor& x, int from, int tag) const {
  return endpoint_->receive(x, ranks_[static_cast<std::size_t>(from)], tag);
}

std::string Communicator::what(const char* operation) const {
  return fmt::format("rank {}: {} of group {} ({} ranks),", endpoint_->rank(), operation, name_, size());
}

WorkPtr Communicator::exchange(const char* operation, const std::vector<at::Tensor>& out,
                               const std::vector<at::Tensor>& in, std::function<void()> finish, int tag) {
  if (tag < 0) tag = next_tag();
  std::vector<WorkPtr> messages;
  Traffic traffic{.calls = 1};
  endpoint_->begin_batch();
  // Each begins with its right-hand neighbour, so that no rank is everybody's first.
  for (int i = 1; i < size(); ++i) {
    const int to = (rank_ + i) % size(), from = (rank_ - i + size()) % size();
    const auto &arriving = out[static_cast<std::size_t>(from)], &leaving = in[static_cast<std::size_t>(to)];
    if (arriving.numel() > 0) messages.push_back(post_receive(arriving, from, tag));
    if (leaving.numel() > 0) messages.push_back(post_send(leaving, to, tag, traffic));
  }
  endpoint_->end_batch();
  count(operation, traffic);
  return std::make_shared<Collective>(operation, what(operation), std::move(messages), std::move(finish));
}

WorkPtr Communicator::all_to_all_async(const at::Tensor& out, const at::Tensor& in,
                                       const std::vector<std::int64_t>& out_rows,
                                       const std::vector<std::int64_t>& in_rows) {
  const auto pieces = [&](const at::Tensor& x, const std::vector<std::int64_t>& rows) {
    ensure(x.is_contiguous() && static_cast<int>(rows.size()) == size(), "all_to_all of another shape");
    std::vector<at::Tensor> list;
    std::int64_t begin = 0;
    for (const auto count : rows) {
      list.push_back(x.detach().narrow(0, begin, count));
      begin += count;
    }
    ensure(begin == x.size(0), "all_to_all: {} rows for {}", x.size(0), begin);
    return list;
  };
  const auto arriving = pieces(out, out_rows), leaving = pieces(in, in_rows);
  const auto own = static_cast<std::size_t>(rank_);
  const at::NoGradGuard no_grad;
  at::Tensor(arriving[own]).copy_(leaving[own]);
  return exchange("all_to_all", arriving, leaving, {});
}

WorkPtr Communicator::all_gather_async(const at::Tensor& out, const at::Tensor& in) {
  ensure(out.numel() == in.numel() * size() && out.is_contiguous(), "all_gather of another shape");
  const auto whole = flat(out), piece = flat(in);
  std::vector<at::Tensor> arriving, leaving(ranks_.size(), piece);
  for (int r = 0; r < size(); ++r) arriving.push_back(whole.narrow(0, r * piece.numel(), piece.numel()));
  auto& own = arriving[static_cast<std::size_t>(rank_)];
  const at::NoGradGuard no_grad;
  if (own.data_ptr() != piece.data_ptr()) own.copy_(piece);
  return exchange("all_gather", arriving, leaving, {});
}

WorkPtr Communicator::reduce_scatter_async(const at::Tensor& out, const at::Tensor& in) {
  ensure(in.numel() == out.numel() * size() && in.is_contiguous() && out.is_contiguous(),
         "reduce_scatter of another shape");
  const auto whole = flat(in), piece = flat(out);
  const auto n = piece.numel();
  std::vector<at::Tensor> leaving, arriving;
  for (int r = 0; r < size(); ++r) {
    leaving.push_back(whole.narrow(0, r * n, n));
    arriving.push_back(r == rank_ ? leaving.back() : at::empty_like(piece));
  }
  const auto finish = [arriving, piece] {
    const at::NoGradGuard no_grad;
    at::Tensor(piece).copy_(reduce_in_order(arriving, Reduction::sum));
  };
  return exchange("reduce_scatter", arriving, leaving, finish);
}

WorkPtr Communicator::all_reduce_async(const at::Tensor& x, Reduction reduction) {
  const auto whole = flat(x);
  const auto n = whole.numel(), members = static_cast<std::int64_t>(size());
  if (members == 1 || n == 0) {
    count("all_reduce", {.calls = 1});
    return std::make_shared<Collective>("all_reduce", "", std::vector<WorkPtr>{});
  }
  if (n <= kSmallReduction) {  // everything to everybody
    std::vector<at::Tensor> leaving(ranks_.size(), whole), arriving;
    for (int r = 0; r < size(); ++r) arriving.push_back(r == rank_ ? whole : at::empty_like(whole));
    // The messages read `whole` until all of them are gone: wait() sees to that before it is overwritten.
    const auto finish = [arriving, whole, reduction] {
      const at::NoGradGuard no_grad;
      at::Tensor(whole).copy_(reduce_in_order(arriving, reduction));
    };
    return exchange("all_reduce", arriving, leaving, finish);
  }
  const auto piece = [whole, n, members](std::int64_t r) {
    const auto begin = part_begin(n, members, r);
    return whole.narrow(0, begin, part_begin(n, members, r + 1) - begin);
  };
  const auto own = piece(rank_);
  std::vector<at::Tensor> leaving, arriving;
  for (int r = 0; r < size(); ++r) {
    leaving.push_back(piece(r));
    arriving.push_back(r == rank_ ? own : at::empty_like(own));
  }
  // Taken now: by the time of wait() the members may differ in what they began meanwhile.
  const int second = next_tag();
  const auto finish = [this, second, leaving, arriving, own, reduction] {
    {
      const at::NoGradGuard no_grad;
      at::Tensor(own).copy_(reduce_in_order(arriving, reduction));
    }
    exchange("all_reduce", leaving, std::vector<at::Tensor>(ranks_.size(), own), {}, second)->wait();
    count("all_reduce", {.calls = -1});  // the two halves are one call
  };
  return exchange("all_reduce", arriving, leaving, finish);
}

WorkPtr Communicator::send_async(const at::Tensor& x, int to, int tag) {
  ensure(tag >= 0 && tag < (1 << 20) && to != rank_, "send: tag {} to {}", tag, to);
  Traffic traffic{.calls = 1};
  std::vector<WorkPtr> messages;
  if (x.numel() > 0) messages.push_back(post_send(x, to, (id_ << kTagBits) | kUserTag | tag, traffic));
  count("send", traffic);
  return std::make_shared<Collective>("send", what("send"), std::move(messages));
}

WorkPtr Communicator::receive_async(const at::Tensor& x, int from, int tag) {
  ensure(tag >= 0 && tag < (1 << 20) && from != rank_, "receive: tag {} from {}", tag, from);
  std::vector<WorkPtr> messages;
  if (x.numel() > 0) messages.push_back(post_receive(x, from, (id_ << kTagBits) | kUserTag | tag));
  return std::make_shared<Collective>("receive", what("receive"), std::move(messages));
}

WorkPtr Communicator::broadcast_async(const at::Tensor& x, int root) {
  const auto whole = flat(x), nothing = whole.narrow(0, 0, 0);
  std::vector<at::Tensor> leaving(ranks_.size(), rank_ == root ? whole : nothing);
  std::vector<at::Tensor> arriving(ranks_.size(), nothing);
  if (rank_ != root) arriving[static_cast<std::size_t>(root)] = whole;
  return exchange("broadcast", arriving, leaving, {});
}

void Communicator::barrier() {
  const auto token = at::zeros({size()}, at::TensorOptions(at::kByte).device(endpoint_->options().device));
  std::vector<at::Tensor> pieces;
  for (int r = 0; r < size(); ++r) pieces.push_back(token.narrow(0, r, 1));
  const auto sent = at::zeros_like(token);
  std::vector<at::Tensor> leaving(ranks_.size(), sent.narrow(0, 0, 1));
  exchange("barrier", pieces, leaving, {})->wait();
}

}  // namespace sinew
