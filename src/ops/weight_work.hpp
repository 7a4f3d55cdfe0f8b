// Backward passes cut in two, as zero-bubble pipelines want them (Qi et al. 2024): the gradients of the
// inputs at once, those of the weights later.
#pragma once

#include <functional>
#include <utility>
#include <vector>

namespace sinew {

// The weight gradients that backward passes left to be computed. What a closure holds (inputs, output
// gradients) lives until run().
class WeightWork {
 public:
  void add(std::function<void()> work) { work_.push_back(std::move(work)); }
  bool empty() const { return work_.empty(); }
  void run() {  // in the order they came; then it is empty
    for (auto& work : work_) {
      work();
      work = {};
    }
    work_.clear();
  }
  // Where operations on this thread leave theirs; null: they compute at once.
  static WeightWork*& current() {
    thread_local WeightWork* work = nullptr;
    return work;
  }

 private:
  std::vector<std::function<void()>> work_;
};

// While one lives, backward passes on this thread leave the gradients of matrices (projections, experts,
// dense networks) to `work`, where those go in place (WeightGradient::is_direct); all else is computed at
// once. On devices and in types without fused operations nothing is left: the second half is then empty.
class LeaveWeights {
 public:
  explicit LeaveWeights(WeightWork& work) : before_(WeightWork::current()) { WeightWork::current() = &work; }
  ~LeaveWeights() { WeightWork::current() = before_; }
  LeaveWeights(const LeaveWeights&) = delete;
  LeaveWeights& operator=(const LeaveWeights&) = delete;

 private:
  WeightWork* before_;
};

}  // namespace sinew
