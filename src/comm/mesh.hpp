// The processes of a run as a grid with named axes (config/layout.hpp says how many along each).
//
//   world rank = (((pipeline * data + d) * shard + h) * context + c) * tensor + t
//
// so neighbours in rank, which share a node, lie on the fast axes: tensor, then context, shard, data, and the
// pipeline is the slowest. Experts have an axis of their own, laid over the ranks of one pipeline stage
// whatever the attention's axes are: number s within the stage is expert rank s % expert of replica
// s / expert.
#pragma once

#include <initializer_list>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "comm/communicator.hpp"
#include "config/layout.hpp"

namespace sinew {

enum class Axis { pipeline, data, shard, context, tensor };

class Mesh {
 public:
  // `layout` multiplies to the size of `endpoint` (Layout::check()). Making a mesh sends nothing.
  Mesh(std::shared_ptr<Endpoint> endpoint, const Layout& layout);

  const Layout& layout() const { return layout_; }
  Endpoint& endpoint() const { return *endpoint_; }
  int rank() const { return endpoint_->rank(); }
  int size() const { return endpoint_->size(); }
  int position(Axis axis) const { return position(rank(), axis); }
  int position(int world_rank, Axis axis) const;
  int extent(Axis axis) const;

  // The ranks that differ from this one along `axes` alone, in rising order.
  std::shared_ptr<Communicator> group(std::initializer_list<Axis> axes);
  std::shared_ptr<Communicator> group(Axis axis) { return group({axis}); }
  std::shared_ptr<Communicator> world() {
    return group({Axis::pipeline, Axis::data, Axis::shard, Axis::context, Axis::tensor});
  }
  // All ranks of this pipeline stage.
  std::shared_ptr<Communicator> stage() {
    return group({Axis::data, Axis::shard, Axis::context, Axis::tensor});
  }
  // Ranks that read different rows of a batch; and those that hold the same rows, cut along the sequence.
  std::shared_ptr<Communicator> batch() { return group({Axis::data, Axis::shard}); }
  std::shared_ptr<Communicator> row() { return group({Axis::context, Axis::tensor}); }

  // Ranks that hold one replica of the experts between them.
  std::shared_ptr<Communicator> expert();
  // Ranks that hold the same experts. Their state is spread over `expert_shard` of them and the same on
  // `expert_data`: as the shard axis asks, experts are never left unsharded because they are experts.
  std::shared_ptr<Communicator> expert_replicas();
  std::shared_ptr<Communicator> expert_shard();
  std::shared_ptr<Communicator> expert_data();
  // World ranks that hold the embedding in different stages of the pipeline, this one among them.
  std::shared_ptr<Communicator> embedding(const std::vector<int>& ranks);
  // The expert group's ranks on this node, and those with this one's place on each node: the two hops of
  std::shared_ptr<Communicator> expert_in_node();
  std::shared_ptr<Communicator> expert_across_nodes();

 private:
  std::shared_ptr<Communicator> make(std::vector<int> ranks, const std::string& name, int id);
  int stage_number() const;                                  // within the stage
  std::vector<int> of_stage(const std::vector<int>&) const;  // numbers within the stage -> world ranks

  std::shared_ptr<Endpoint> endpoint_;
  Layout layout_;
  std::map<std::string, std::shared_ptr<Communicator>> made_;
};

}  // namespace sinew
