// Wall time by class of operation, for benchmarks.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "base/clock.hpp"

namespace sinew {

enum class OpClass { embedding, projection, norm, attention, gate, experts, dense_ffn, loss, count };

constexpr std::array<std::string_view, static_cast<std::size_t>(OpClass::count)> kOpNames{
    "embedding", "projections",          "norms",        "attention", "gate",
    "experts",   "dense and shared ffn", "head and loss"};

// Seconds of the fused operations, forward and backward.
struct OpTimes {
  struct Pair {
    double forward = 0, backward = 0;
  };
  std::array<Pair, static_cast<std::size_t>(OpClass::count)> seconds{};
};

// While one lives, operations of this thread add to `times`.
class OpTimesScope {
 public:
  explicit OpTimesScope(OpTimes& times) : before_(current()) { current() = &times; }
  ~OpTimesScope() { current() = before_; }
  OpTimesScope(const OpTimesScope&) = delete;
  OpTimesScope& operator=(const OpTimesScope&) = delete;
  static OpTimes*& current() {
    thread_local OpTimes* times = nullptr;
    return times;
  }

 private:
  OpTimes* before_;
};

// One operation's time, while somebody asks for it.
class OpTimer {
 public:
  OpTimer(OpClass kind, bool backward) : times_(OpTimesScope::current()), kind_(kind), backward_(backward) {
    if (times_ != nullptr) start_ = clock_seconds();
  }
  ~OpTimer() {
    if (times_ == nullptr) return;
    auto& pair = times_->seconds[static_cast<std::size_t>(kind_)];
    (backward_ ? pair.backward : pair.forward) += clock_seconds() - start_;
  }
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;

 private:
  OpTimes* times_;
  OpClass kind_;
  bool backward_;
  double start_ = 0;
};

}  // namespace sinew
