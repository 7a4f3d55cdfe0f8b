#include "schedule/builders.hpp"

#include <algorithm>

namespace sinew::build {
namespace {

// Published interleaved schedules want a multiple of `ranks` micro-batches, DualPipe-V at least twice as
// many as ranks. Micro-batches do not depend on each other, so leaving out the surplus keeps a schedule
// valid.
std::vector<Action> without_surplus(std::vector<Action> list, int micro_batches) {
  std::erase_if(list, [&](const Action& action) { return action.micro_batch >= micro_batches; });
  return list;
}

}  // namespace

std::vector<Action> gpipe(int micro_batches, int group) {
  std::vector<Action> list;
  for (int first = 0; first < micro_batches; first += group) {
    const int end = std::min(first + group, micro_batches);
    for (int m = first; m < end; ++m) list.push_back({Pass::forward, m, 0});
    for (int m = first; m < end; ++m) list.push_back({Pass::backward, m, 0});
  }
  return list;
}

std::vector<Action> one_f_one_b(int ranks, int rank, int micro_batches) {
  const int warmup = std::min(ranks - rank - 1, micro_batches);
  std::vector<Action> list;
  for (int m = 0; m < warmup; ++m) list.push_back({Pass::forward, m, 0});
  for (int m = 0; m + warmup < micro_batches; ++m) {
    list.push_back({Pass::forward, m + warmup, 0});
    list.push_back({Pass::backward, m, 0});
  }
  for (int m = micro_batches - warmup; m < micro_batches; ++m) list.push_back({Pass::backward, m, 0});
  return list;
}

// Groups of `ranks` micro-batches go through chunk 0, then chunk 1, and so on; backward takes the chunks
// in reverse.
std::vector<Action> interleaved(int ranks, int rank, int micro_batches, int chunks) {
  if (chunks == 1) return one_f_one_b(ranks, rank, micro_batches);
  const int whole = (micro_batches + ranks - 1) / ranks * ranks;
  const int total = whole * chunks;
  const auto unit = [&](int k, bool forward) {
    const int group = k / (ranks * chunks), inside = k % (ranks * chunks);
    const int chunk = inside / ranks;
    return Action{forward ? Pass::forward : Pass::backward, group * ranks + inside % ranks,
                  forward ? chunk : chunks - 1 - chunk};
  };
  // With one group every forward comes first (Megatron-LM does the same).
  const int warmup = whole == ranks ? total : std::min(total, (ranks - rank - 1) * 2 + (chunks - 1) * ranks);
  std::vector<Action> list;
  for (int k = 0; k < warmup; ++k) list.push_back(unit(k, true));
  for (int k = 0; k + warmup < total; ++k) {
    list.push_back(unit(k + warmup, true));
    list.push_back(unit(k, false));
  }
  for (int k = total - warmup; k < total; ++k) list.push_back(unit(k, false));
  return without_surplus(std::move(list), micro_batches);
}

namespace {

// The eight phases of DualPipe-V, named as in its reference implementation: F0 is a forward of chunk 0,
// B1 a backward of chunk 1; with `split` a backward leaves its weight gradient for a later W.
class DualPipeV {
 public:
  DualPipeV(int ranks, int rank, int micro_batches) : ranks_(ranks), rank_(rank), total_(micro_batches) {}

  std::vector<Action> list() {
    const int after = ranks_ - rank_ - 1;  // ranks behind this one on the way down the V
    for (int i = 0; i < 2 * after; ++i) forward(0);
    for (int i = 0; i < rank_ + 1; ++i) forward(0), forward(1);
    for (int i = 0; i < after; ++i) backward(1, true), weight(), forward(1);
    for (int i = 0; i < total_ - 2 * ranks_ + rank_ + 1; ++i) {
      forward(0), backward(1, false);
      forward(1), backward(0, false);
    }
    for (int i = 0; i < after; ++i) backward(1, false), forward(1), backward(0, false);
    bool split = false;
    for (int i = 0; i < rank_ + 1; ++i) {
      if (i == (rank_ + 1) / 2 && rank_ % 2 == 1) split = true;
      backward(1, split);
      if (i == (rank_ + 1) / 2 && rank_ % 2 == 0) split = true;
      backward(0, split);
    }
    for (int i = 0; i < after; ++i) weight(), backward(0, true);
    while (next_weight_ < waiting_.size()) weight();
    return std::move(list_);
  }

 private:
  void forward(int chunk) { list_.push_back({Pass::forward, forwards_[chunk]++, chunk}); }
  void backward(int chunk, bool split) {
    const Action action{split ? Pass::backward_input : Pass::backward, backwards_[chunk]++, chunk};
    list_.push_back(action);
    if (split) waiting_.push_back({Pass::backward_weight, action.micro_batch, chunk});
  }
  void weight() {
    if (next_weight_ < waiting_.size()) list_.push_back(waiting_[next_weight_++]);
  }

  int ranks_, rank_, total_;
  int forwards_[2] = {0, 0}, backwards_[2] = {0, 0};
  std::vector<Action> list_, waiting_;
  std::size_t next_weight_ = 0;
};

}  // namespace

std::vector<Action> dualpipe_v(int ranks, int rank, int micro_batches) {
  return without_surplus(DualPipeV(ranks, rank, std::max(micro_batches, 2 * ranks)).list(), micro_batches);
}

namespace {

// One rank of the zero-bubble schedule while it is made, with F = B = W = 1 tick.
struct Maker {
  int forwards = 0, inputs = 0, weights = 0;  // done so far
  std::vector<int> forward_end, input_end;    // tick at which micro-batch m was done
};

}  // namespace

// ZB-H1: as in 1F1B rank r holds at most ranks - r micro-batches between forward and input gradient, and
// no rank holds more than `ranks` between forward and weight gradient. Weight gradients fill the gaps.
std::vector<std::vector<Action>> zero_bubble(int ranks, int micro_batches) {
  std::vector<Maker> makers(ranks);
  std::vector<std::vector<Action>> lists(ranks);
  int unfinished = ranks;
  for (int tick = 0; unfinished > 0; ++tick) {
    for (int rank = 0; rank < ranks; ++rank) {
      Maker& me = makers[rank];
      if (me.weights == micro_batches) continue;
      const auto ready = [&](const std::vector<int>& ends, int m) {
        return static_cast<int>(ends.size()) > m && ends[m] <= tick;
      };
      const bool can_input =
          me.inputs < me.forwards && (rank == ranks - 1 ? me.forward_end[me.inputs] <= tick
                                                        : ready(makers[rank + 1].input_end, me.inputs));
      const bool can_forward = me.forwards < micro_batches && me.forwards - me.inputs < ranks - rank &&
                               me.forwards - me.weights < ranks &&
                               (rank == 0 || ready(makers[rank - 1].forward_end, me.forwards));
      // Forward first: with the input gradient first the ranks behind starve by a tick every few
      // micro-batches and the bubble grows over the paper's (ranks - 1)(F + B - W).
      if (can_forward) {
        lists[rank].push_back({Pass::forward, me.forwards++, 0});
        me.forward_end.push_back(tick + 1);
      } else if (can_input) {
        lists[rank].push_back({Pass::backward_input, me.inputs++, 0});
        me.input_end.push_back(tick + 1);
      } else if (me.weights < me.inputs) {
        lists[rank].push_back({Pass::backward_weight, me.weights++, 0});
        if (me.weights == micro_batches) --unfinished;
      }
    }
  }
  return lists;
}

}  // namespace sinew::build
