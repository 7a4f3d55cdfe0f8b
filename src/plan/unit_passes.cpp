#include <algorithm>

#include "plan/step_traffic.hpp"

namespace sinew::plan {
namespace {

// Follows parallel/sharding.cpp: weights are gathered when a unit is entered, the next unit's ahead of time,
// and go when it is left; gradients leave when the backward pass has gone through.
class Walk {
 public:
  Walk(const ModelConfig& model, const HeldNetwork& held, std::int64_t sequence)
      : model_(model), held_(held), sequence_(sequence) {
    for (const StateRun& run : held.runs)
      if (run.unit == names_.size()) names_.push_back(run.name);
    there_.assign(names_.size(), false);
    open_.assign(names_.size(), false);
    later_.assign(names_.size(), 0);
    passes_.gathers.assign(names_.size(), 0);
    passes_.scatters.assign(names_.size(), 0);
  }

  void run(const Action& action) {
    const StagePart& part = held_.chunks[static_cast<std::size_t>(action.chunk)];
    switch (action.pass) {
      case Pass::forward:
        forward(part);
        break;
      case Pass::backward:
        backward(part, nullptr);
        end_backward();
        break;
      case Pass::backward_input:
        backward(part, &left_[{action.micro_batch, action.chunk}]);
        break;
      case Pass::backward_weight: {
        auto left = left_.extract({action.micro_batch, action.chunk});
        for (const std::size_t unit : left.mapped()) {
          --later_[unit];
          close_gradients(unit);
        }
        end_backward();
        break;
      }
    }
  }

  const UnitPasses& passes() const { return passes_; }

 private:
  std::size_t unit(const std::string& name) const {
    return static_cast<std::size_t>(std::find(names_.begin(), names_.end(), name) - names_.begin());
  }
  std::size_t layer(std::int64_t index) const { return unit("layer " + std::to_string(index)); }
  std::int64_t depths() const {  // of multi-token prediction that have a token to predict
    return std::min(model_.num_nextn_predict_layers, sequence_ - 1);
  }

  void gather(std::size_t unit) {
    if (unit >= names_.size() || there_[unit]) return;
    there_[unit] = true;
    ++passes_.gathers[unit];
  }
  void enter(std::size_t unit) {
    gather(unit);
    gather(unit + 1);
  }
  void leave(std::size_t unit) { there_[unit] = false; }
  void through(std::size_t unit) {
    enter(unit);
    leave(unit);
  }

  void forward(const StagePart& part) {
    if (part.embedding) through(unit("embedding"));
    for (std::int64_t l = part.first; l < part.end; ++l) through(layer(l));
    if (!part.head) return;
    enter(unit("head"));
    for (std::int64_t d = 0; d < depths(); ++d) {
      through(unit("embedding"));
      through(layer(model_.num_hidden_layers + d));
    }
    leave(unit("head"));
  }

  void open(std::size_t unit) {
    gather(unit);
    if (unit > 0) gather(unit - 1);
    open_[unit] = true;
  }
  void close(std::size_t unit, std::vector<std::size_t>* left) {
    leave(unit);
    if (left == nullptr) return close_gradients(unit);
    ++later_[unit];
    left->push_back(unit);
  }
  void close_gradients(std::size_t unit) {
    if (later_[unit] > 0 || !open_[unit]) return;
    open_[unit] = false;
    ++passes_.scatters[unit];
  }

  void backward(const StagePart& part, std::vector<std::size_t>* left) {
    if (part.head) {
      open(unit("head"));
      for (std::int64_t d = depths(); d-- > 0;) {
        open(layer(model_.num_hidden_layers + d));
        close(layer(model_.num_hidden_layers + d), left);
        open(unit("embedding"));  // no gradient goes on: it is closed at the end
      }
      close(unit("head"), left);
    }
    for (std::int64_t l = part.end; l-- > part.first;) {
      open(layer(l));
      close(layer(l), left);
    }
    if (part.embedding) open(unit("embedding"));
  }
  void end_backward() {
    for (std::size_t unit = 0; unit < names_.size(); ++unit) close_gradients(unit);
    there_.assign(names_.size(), false);
  }

  const ModelConfig& model_;
  const HeldNetwork& held_;
  std::int64_t sequence_;
  std::vector<std::string> names_;
  std::vector<bool> there_, open_;
  std::vector<int> later_;
  std::map<std::pair<std::int32_t, std::int32_t>, std::vector<std::size_t>> left_;  // micro-batch, chunk
  UnitPasses passes_;
};

}  // namespace

UnitPasses unit_passes(const ModelConfig& model, const sinew::Layout& l, const HeldNetwork& held,
                       const StepWork& work, const Place& place) {
  Walk walk(model, held, work.sequence);
  const Schedule schedule = trainer_schedule(l, work.micro_batches);
  for (const Action& action : schedule.actions[static_cast<std::size_t>(place.pipeline)]) walk.run(action);
  return walk.passes();
}

}  // namespace sinew::plan
