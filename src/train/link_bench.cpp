// How fast the groups of a layout carry what its state and activations send.
#include <ATen/ATen.h>

#include <algorithm>
#include <functional>

#include "base/clock.hpp"
#include "config/traffic_formulas.hpp"
#include "parallel/partition_of.hpp"
#include "train/part_bench.hpp"

namespace sinew {
namespace {

constexpr int kTimes = 3;  // calls of a round, each on memory of its own

// What one call does; returns what is to be done when it is over.
using Call = std::function<std::function<void()>()>;

// One operation of one group at two sizes.
struct Link {
  std::shared_ptr<Communicator> group;
  std::string operation;
  double bytes[2] = {0, 0};  // that a process sends in a call
  std::vector<Call> calls[2];
  double sums[2] = {0, 0};  // s

  // Begun two at a time, as the trainer begins them.
  void round(bool counts) {
    for (int size = 0; size < 2; ++size) {
      group->barrier();
      const double start = clock_seconds();
      std::function<void()> before;
      for (const Call& call : calls[size]) {
        auto next = call();
        if (before) before();
        before = std::move(next);
      }
      if (before) before();
      if (counts) sums[size] += (clock_seconds() - start) / kTimes;
    }
  }
  LinkRate rate(double rounds) const {
    const double small = sums[0] / rounds, large = sums[1] / rounds;
    const double per = bytes[1] > bytes[0] ? std::max(0.0, (large - small) / (bytes[1] - bytes[0])) : 0;
    return {std::max(0.0, small - per * bytes[0]), per};
  }
};

at::Tensor numbers(std::int64_t elements, at::ScalarType type = at::kFloat) {
  return at::zeros({elements}, type);
}

std::function<void()> waiting(const WorkPtr& work) {
  return [work] { work->wait(); };
}

}  // namespace

struct LinkBench::Impl {
  PartShape shape;
  std::shared_ptr<Mesh> mesh;
  std::map<std::pair<std::size_t, Spread>, std::int64_t> runs;
  std::vector<Link> links;
  int rounds = -1;

  Impl(const ModelConfig& config, const PartShape& s, const std::shared_ptr<Mesh>& m) : shape(s), mesh(m) {
    for (const PartSpec& part : part_specs(config, partition_of(mesh, config, shape.tokens))) {
      if (part.whole.buffer) continue;
      std::int64_t elements = 1;
      for (const auto d : part.shape) elements *= d;
      runs[{part.unit, part.spread}] += elements;
    }
    state(Spread::whole, mesh->group(Axis::shard), mesh->group({Axis::data, Axis::context, Axis::tensor}));
    state(Spread::tensor, mesh->group(Axis::shard), mesh->group({Axis::data, Axis::context}));
    state(Spread::expert, mesh->expert_shard(), mesh->expert_data());
    const auto& l = mesh->layout();
    if (l.pipeline > 1) pipeline(stage_flow_bytes(config, l, {shape.rows, shape.tokens, 1}, false));
    const auto world = mesh->world();
    add(
        world, "all_reduce", 5, [](std::int64_t) { return 0.0; },
        [world](std::int64_t e) -> Call {
          return [world, x = numbers(e, at::kDouble)] { return waiting(world->all_reduce_async(x)); };
        });
  }

  // The largest run that lies so, over all processes: the embedding is not on all of them.
  std::int64_t largest(Spread spread) const {
    std::int64_t most = 0;
    for (const auto& [key, elements] : runs)
      if (key.second == spread) most = std::max(most, elements);
    const auto x = at::full({1}, most, at::kLong);
    mesh->world()->all_reduce(x, Reduction::max);
    return std::min<std::int64_t>(x.item<std::int64_t>(), 1 << 24);
  }

  void add(const std::shared_ptr<Communicator>& group, const char* operation, std::int64_t most,
           const std::function<double(std::int64_t)>& bytes, const std::function<Call(std::int64_t)>& make) {
    Link link;
    link.group = group;
    link.operation = operation;
    const std::int64_t sizes[2] = {std::min<std::int64_t>(1024, std::max<std::int64_t>(1, most / 8)), most};
    for (int i = 0; i < 2; ++i) {
      link.bytes[i] = bytes(sizes[i]);
      for (int k = 0; k < kTimes; ++k) link.calls[i].push_back(make(sizes[i]));
    }
    links.push_back(std::move(link));
  }

  void state(Spread spread, const std::shared_ptr<Communicator>& shard,
             const std::shared_ptr<Communicator>& copies) {
    const std::int64_t n = shard->size(), whole = largest(spread);
    if (whole == 0) return;
    const std::int64_t piece = (whole + n - 1) / n;
    if (n > 1) {
      gathers(shard, piece);
      scatters(shard, piece);
    }
    if (const std::int64_t m = copies->size(); m > 1)
      add(
          copies, "all_reduce", piece,
          [=](std::int64_t e) { return static_cast<double>(all_reduce_bytes(e, m, copies->rank(), 4)); },
          [=](std::int64_t e) -> Call {
            return [=, x = numbers(e)] { return waiting(copies->all_reduce_async(x)); };
          });
  }

  // Weights into memory that comes and goes with zero 3.
  void gathers(const std::shared_ptr<Communicator>& shard, std::int64_t piece) {
    const std::int64_t n = shard->size();
    const auto width = static_cast<std::int64_t>(at::elementSize(shape.type));
    const bool goes = mesh->layout().zero == 3;
    add(
        shard, "all_gather", piece,
        [=](std::int64_t e) { return static_cast<double>(all_gather_bytes(e, n, width)); },
        [=, this](std::int64_t e) -> Call {
          const auto in = numbers(e, shape.type), kept = goes ? at::Tensor() : numbers(e * n, shape.type);
          return [=] {
            const auto out = goes ? at::empty({e * n}, in.options()) : kept;
            return waiting(shard->all_gather_async(out, in));
          };
        });
  }

  // Gradients; with zero 2 and 3 their memory comes and goes, and each micro-batch adds to the piece.
  void scatters(const std::shared_ptr<Communicator>& shard, std::int64_t piece) {
    const std::int64_t n = shard->size();
    const bool goes = mesh->layout().zero >= 2;
    add(
        shard, "reduce_scatter", piece,
        [=](std::int64_t e) { return static_cast<double>(reduce_scatter_bytes(e, n, 4)); },
        [=](std::int64_t e) -> Call {
          const auto own = numbers(e), kept = goes ? at::Tensor() : numbers(e * n);
          return [=]() -> std::function<void()> {
            if (!goes) return waiting(shard->reduce_scatter_async(own, kept));
            const auto in = numbers(e * n), out = at::empty({e}, own.options());
            const auto work = shard->reduce_scatter_async(out, in);
            return [=] {
              work->wait();
              at::Tensor(own).add_(out);
            };
          };
        });
  }

  // Messages between neighbours of a pipeline that pair up: there and back, half of the time of both.
  void pipeline(std::int64_t elements) {
    const auto group = mesh->group(Axis::pipeline);
    const int partner = group->rank() ^ 1;
    add(
        group, "send", elements,
        [this](std::int64_t e) {
          return static_cast<double>(e) * static_cast<double>(at::elementSize(shape.type));
        },
        [=, this](std::int64_t e) -> Call {
          const auto out = numbers(e, shape.type), in = numbers(e, shape.type);
          return [=]() -> std::function<void()> {
            const bool first = group->rank() < partner;
            if (partner >= group->size()) return [] {};
            if (first) group->send(out, partner, 0);
            group->receive(in, partner, 0);
            if (!first) group->send(out, partner, 0);
            return [] {};
          };
        });
  }

  // The mean over a group, so that all of it plan the same; half a round trip is one message.
  LinkRate agreed(const Link& link) const {
    const LinkRate own = link.rate(std::max(1, rounds));
    const auto x = at::tensor({own.start, own.per_byte}, at::kDouble);
    link.group->all_reduce(x);
    const double members = link.operation == "send" ? link.group->size() / 2 * 2 * 2 : link.group->size();
    return {x[0].item<double>() / members, x[1].item<double>() / members};
  }
};

LinkBench::LinkBench(const ModelConfig& config, const PartShape& shape, const std::shared_ptr<Mesh>& mesh)
    : impl_(std::make_unique<Impl>(config, shape, mesh)) {}
LinkBench::~LinkBench() = default;

void LinkBench::round() {
  const bool counts = impl_->rounds++ >= 0;
  for (Link& link : impl_->links) link.round(counts);
}

StepLinks LinkBench::mean() const {
  StepLinks out;
  for (const Link& link : impl_->links) out[{link.group->name(), link.operation}] = impl_->agreed(link);
  return out;
}

StepLinks bench_links(const ModelConfig& config, const PartShape& shape, const std::shared_ptr<Mesh>& mesh) {
  LinkBench bench(config, shape, mesh);
  for (int i = 0; i < 4; ++i) bench.round();
  return bench.mean();
}

}  // namespace sinew
