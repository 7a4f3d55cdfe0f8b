#include "parallel/pipeline.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <map>
#include <utility>

#include "base/error.hpp"
#include "base/spans.hpp"
#include "ops/weight_work.hpp"
#include "schedule/progress.hpp"

namespace sinew {
namespace {

using at::Tensor;

// One message of several tensors.
struct Parcel {
  StageFlow tensors;
  std::vector<WorkPtr> work;
};

class Run {
 public:
  Run(const Schedule& schedule, GroupPtr pipeline, StageModule& module)
      : schedule_(schedule), pipeline_(std::move(pipeline)), module_(module), rank_(rank_of(pipeline_)) {
    ensure(schedule.ranks == size_of(pipeline_), "a schedule of {} ranks on a pipeline of {}", schedule.ranks,
           size_of(pipeline_));
  }

  PipelineStatistics train() {
    known_ = known_progress(schedule_, rank_);
    const auto& actions = schedule_.actions[static_cast<std::size_t>(rank_)];
    for (std::size_t i = 0; i < actions.size(); ++i) {
      now_ = i;
      expect(actions, i);
      const Action& action = actions[i];
      switch (action.pass) {
        case Pass::forward:
          forward(action);
          break;
        case Pass::backward:
          backward(action, nullptr);
          finish(action);
          break;
        case Pass::backward_input:
          backward(action, &states_.at(key(action)).later);
          break;
        case Pass::backward_weight:
          weights(action);
          break;
      }
    }
    flush();
    ensure(states_.empty() && handed_.empty(), "a pipeline step ended with {} micro-batches under way",
           states_.size());
    return statistics_;
  }

  void evaluate() {
    const at::NoGradGuard no_grad;
    evaluating_ = true;
    const auto& all = schedule_.actions[static_cast<std::size_t>(rank_)];
    std::vector<Action> actions;
    for (const Action& action : all)
      if (action.pass == Pass::forward) actions.push_back(action);
    for (std::size_t i = 0; i < actions.size(); ++i) {
      expect(actions, i);
      forward(actions[i]);
      states_.clear();
    }
    flush();
  }

 private:
  using Key = std::pair<std::int32_t, std::int32_t>;  // stage, micro-batch

  // A micro-batch between its forward pass through a stage and the end of its backward pass.
  struct State {
    StageFlow in;
    StageResult out;
    WeightWork later;
    bool input_done = false;
  };

  int stage(const Action& action) const { return schedule_.stage_of(rank_, action.chunk); }
  Key key(const Action& action) const { return {stage(action), action.micro_batch}; }

  // Of the message between `stage` and the one before it, up or down: a channel each, in which micro-batches
  // follow each other on both sides. Tags repeat only after so many micro-batches that none of the first ones
  // is under way.
  static int tag(int stage, std::int32_t micro_batch, bool forward, std::size_t tensor) {
    const int channel = (stage * 2 + (forward ? 0 : 1)) % ((1 << 20) / kTagsOfAChannel);
    const int message = (micro_batch * 2 + static_cast<int>(tensor)) % kTagsOfAChannel;
    return channel * kTagsOfAChannel + message;
  }

  // Where the flow into an action comes from: the stage before (forward) or after (backward); none at the
  // ends.
  struct Source {
    int stage = -1, rank = -1;
    bool forward = true;
  };
  Source source(const Action& action) const {
    const int own = stage(action);
    if (action.pass == Pass::forward)
      return own == 0 ? Source{} : Source{own - 1, schedule_.rank_of(own - 1), true};
    if (action.pass == Pass::backward_weight || own + 1 == schedule_.stages()) return {};
    return {own + 1, schedule_.rank_of(own + 1), false};
  }

  // Begins to receive what the next actions wait for, so that it is there when they come.
  void expect(const std::vector<Action>& actions, std::size_t now) {
    constexpr std::size_t kAhead = 4;
    for (std::size_t i = std::max(now, expected_); i < std::min(actions.size(), now + kAhead); ++i) {
      const auto from = source(actions[i]);
      if (from.stage >= 0 && from.rank != rank_)
        coming_[{{stage(actions[i]), actions[i].micro_batch}, from.forward}] = receive(actions[i], from);
      expected_ = i + 1;
    }
  }

  Parcel receive(const Action& action, const Source& from) {
    Parcel parcel{module_.empty_flow(action.micro_batch), {}};
    for (std::size_t i = 0; i < parcel.tensors.size(); ++i)
      parcel.work.push_back(pipeline_->receive_async(
          parcel.tensors[i], from.rank,
          tag(from.forward ? stage(action) : from.stage, action.micro_batch, from.forward, i)));
    return parcel;
  }

  StageFlow take(const Action& action) {
    const auto from = source(action);
    if (from.stage < 0) return {};
    const std::pair<Key, bool> name{key(action), from.forward};
    if (from.rank == rank_) {
      auto found = handed_.find(name);
      ensure(found != handed_.end(), "stage {} has nothing for micro-batch {}", from.stage,
             action.micro_batch);
      auto flow = std::move(found->second);
      handed_.erase(found);
      return flow;
    }
    auto found = coming_.find(name);
    const Span span(SpanKind::bubble, from.forward ? "wait for activations" : "wait for gradients",
                    action.micro_batch);
    for (const auto& work : found->second.work) work->wait();
    auto flow = std::move(found->second.tensors);
    coming_.erase(found);
    if (!evaluating_) release();
    return flow;
  }

  // Forgets what was sent and has certainly arrived by the action that is under way.
  void release() {
    std::erase_if(sent_, [this](const Sent& sent) {
      if (known_[now_][static_cast<std::size_t>(sent.to)] <= sent.taken_at) return false;
      for (const auto& work : sent.work) work->wait();
      return true;
    });
  }

  // The place of the action of rank `to` that takes the message.
  int taken_at(int to, const Key& key, bool forward) const {
    const auto& list = schedule_.actions[static_cast<std::size_t>(to)];
    const auto found = std::find_if(list.begin(), list.end(), [&](const Action& a) {
      return a.micro_batch == key.second && schedule_.stage_of(to, a.chunk) == key.first &&
             a.pass != Pass::backward_weight && (a.pass == Pass::forward) == forward;
    });
    return static_cast<int>(found - list.begin());
  }

  // To the stage after (activations) or before (gradients).
  void give(const Action& action, StageFlow flow, bool forward) {
    const int own = stage(action), to = forward ? own + 1 : own - 1;
    if (to < 0 || to == schedule_.stages()) return;
    const int rank = schedule_.rank_of(to);
    if (rank == rank_) {
      handed_[{{to, action.micro_batch}, forward}] = std::move(flow);
      return;
    }
    Sent sent{rank, evaluating_ ? 0 : taken_at(rank, {to, action.micro_batch}, forward), {}};
    for (std::size_t i = 0; i < flow.size(); ++i)
      sent.work.push_back(pipeline_->send_async(flow[i].contiguous(), rank,
                                                tag(forward ? to : own, action.micro_batch, forward, i)));
    sent_.push_back(std::move(sent));
  }

  void forward(const Action& action) {
    State state;
    for (const Tensor& x : take(action))
      state.in.push_back(x.detach().requires_grad_(at::GradMode::is_enabled()));
    const Span span(SpanKind::compute, "forward", action.micro_batch);
    state.out = module_.forward(action.chunk, action.micro_batch, state.in);
    StageFlow flow;
    for (const Tensor& x : state.out.flow) flow.push_back(x.detach());
    give(action, std::move(flow), true);
    states_[key(action)] = std::move(state);
    ++held_;
    statistics_.peak_held = std::max(statistics_.peak_held, held_);
    statistics_.peak_unfinished = std::max(statistics_.peak_unfinished, static_cast<int>(states_.size()));
  }

  void backward(const Action& action, WeightWork* later) {
    const auto gradients = take(action);
    const Span span(SpanKind::compute, later == nullptr ? "backward" : "backward of inputs",
                    action.micro_batch);
    State& state = states_.at(key(action));
    std::vector<Tensor> roots, seeds;
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      if (!state.out.flow[i].requires_grad()) continue;
      roots.push_back(state.out.flow[i]);
      seeds.push_back(gradients[i]);
    }
    if (state.out.loss.defined() && state.out.loss.requires_grad()) {
      roots.push_back(state.out.loss);
      seeds.push_back(at::ones_like(state.out.loss));
    }
    if (!roots.empty()) {
      if (later != nullptr) {
        const LeaveWeights scope(*later);
        torch::autograd::backward(roots, seeds);
      } else {
        torch::autograd::backward(roots, seeds);
      }
    }
    StageFlow before;
    for (Tensor& x : state.in) before.push_back(x.grad().defined() ? x.grad() : at::zeros_like(x));
    give(action, std::move(before), false);
    state.in.clear();
    state.out = {};
    --held_;
  }

  void weights(const Action& action) {
    {
      const Span span(SpanKind::compute, "backward of weights", action.micro_batch);
      states_.at(key(action)).later.run();
    }
    finish(action);
  }

  void finish(const Action& action) {
    states_.erase(key(action));
    module_.after_backward(action.chunk, action.micro_batch);
  }

  void flush() {
    const Span span(SpanKind::communication, "last sends");
    for (const auto& sent : sent_)
      for (const auto& work : sent.work) work->wait();
    sent_.clear();
  }

  const Schedule& schedule_;
  GroupPtr pipeline_;
  StageModule& module_;
  int rank_, held_ = 0;
  std::size_t expected_ = 0;  // actions whose messages are being received
  std::map<Key, State> states_;
  std::map<std::pair<Key, bool>, StageFlow> handed_;  // to another stage of this rank; true: activations
  std::map<std::pair<Key, bool>, Parcel> coming_;
  // To another rank, whose action `taken_at` takes it.
  struct Sent {
    int to, taken_at;
    std::vector<WorkPtr> work;
  };
  std::vector<Sent> sent_;
  std::vector<std::vector<int>> known_;  // known_progress()
  std::size_t now_ = 0;                  // the action under way
  bool evaluating_ = false;
  PipelineStatistics statistics_;
};

}  // namespace

PipelineStatistics run_pipeline(const Schedule& schedule, const GroupPtr& pipeline, StageModule& module) {
  return Run(schedule, pipeline, module).train();
}

void run_pipeline_forward(const Schedule& schedule, const GroupPtr& pipeline, StageModule& module) {
  Run(schedule, pipeline, module).evaluate();
}

}  // namespace sinew
