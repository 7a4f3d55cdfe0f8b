#include "comm/mesh.hpp"

#include <algorithm>
#include <array>

#include "base/error.hpp"

namespace sinew {
namespace {

constexpr std::array<Axis, 5> kAxes{Axis::pipeline, Axis::data, Axis::shard, Axis::context, Axis::tensor};
constexpr std::array<const char*, 5> kNames{"pipeline", "data", "shard", "context", "tensor"};

// Ids of groups, the same on every rank; those of sets of axes are the sets as bits, below 32.
constexpr int kExpertId = 32, kExpertReplicasId = 33, kExpertShardId = 34, kExpertDataId = 35,
              kExpertInNodeId = 36, kExpertAcrossId = 37, kEmbeddingId = 38;

}  // namespace

Mesh::Mesh(std::shared_ptr<Endpoint> endpoint, const Layout& layout)
    : endpoint_(std::move(endpoint)), layout_(layout) {
  ensure(layout_.size() == endpoint_->size(), "a layout of {} processes for {}", layout_.size(),
         endpoint_->size());
}

int Mesh::extent(Axis axis) const {
  switch (axis) {
    case Axis::pipeline:
      return static_cast<int>(layout_.pipeline);
    case Axis::data:
      return static_cast<int>(layout_.data);
    case Axis::shard:
      return static_cast<int>(layout_.shard);
    case Axis::context:
      return static_cast<int>(layout_.context);
    case Axis::tensor:
      break;
  }
  return static_cast<int>(layout_.tensor);
}

int Mesh::position(int world_rank, Axis axis) const {
  for (auto a = kAxes.rbegin(); a != kAxes.rend(); ++a) {
    if (*a == axis) return world_rank % extent(*a);
    world_rank /= extent(*a);
  }
  return 0;
}

std::shared_ptr<Communicator> Mesh::make(std::vector<int> ranks, const std::string& name, int id) {
  auto& made = made_[name];
  if (!made) made = std::make_shared<Communicator>(endpoint_, std::move(ranks), name, id);
  return made;
}

std::shared_ptr<Communicator> Mesh::group(std::initializer_list<Axis> axes) {
  const auto among = [&](Axis axis) { return std::find(axes.begin(), axes.end(), axis) != axes.end(); };
  std::string name;
  int id = 0;
  for (std::size_t i = 0; i < kAxes.size(); ++i) {
    if (!among(kAxes[i])) continue;
    id |= 1 << i;
    if (!name.empty()) name += '+';
    name += kNames[i];
  }
  std::vector<int> ranks;
  for (int r = 0; r < size(); ++r) {
    const bool mate = std::all_of(kAxes.begin(), kAxes.end(), [&](Axis axis) {
      return among(axis) || position(r, axis) == position(axis);
    });
    if (mate) ranks.push_back(r);
  }
  return make(std::move(ranks), id == 31 ? "world" : name, id);
}

int Mesh::stage_number() const { return rank() % static_cast<int>(layout_.stage_size()); }

std::vector<int> Mesh::of_stage(const std::vector<int>& numbers) const {
  const int first = rank() - stage_number();
  std::vector<int> ranks;
  for (const int number : numbers) ranks.push_back(first + number);
  return ranks;
}

std::shared_ptr<Communicator> Mesh::expert() {
  const int size = static_cast<int>(layout_.expert), first = stage_number() / size * size;
  std::vector<int> numbers;
  for (int i = 0; i < size; ++i) numbers.push_back(first + i);
  return make(of_stage(numbers), "expert", kExpertId);
}

// The ranks of one expert rank are `replicas` apart by `expert`; `expert_shard` neighbours among them share
// the state.
std::shared_ptr<Communicator> Mesh::expert_replicas() {
  const int size = static_cast<int>(layout_.expert), replicas = static_cast<int>(layout_.expert_replicas());
  std::vector<int> numbers;
  for (int i = 0; i < replicas; ++i) numbers.push_back(i * size + stage_number() % size);
  return make(of_stage(numbers), "expert_replicas", kExpertReplicasId);
}

std::shared_ptr<Communicator> Mesh::expert_shard() {
  const int size = static_cast<int>(layout_.expert), shard = static_cast<int>(layout_.expert_shard());
  const int replica = stage_number() / size, first = replica / shard * shard;
  std::vector<int> numbers;
  for (int i = 0; i < shard; ++i) numbers.push_back((first + i) * size + stage_number() % size);
  return make(of_stage(numbers), "expert_shard", kExpertShardId);
}

std::shared_ptr<Communicator> Mesh::expert_data() {
  const int size = static_cast<int>(layout_.expert), shard = static_cast<int>(layout_.expert_shard());
  const int replicas = static_cast<int>(layout_.expert_replicas()), replica = stage_number() / size;
  std::vector<int> numbers;
  for (int i = replica % shard; i < replicas; i += shard) numbers.push_back(i * size + stage_number() % size);
  return make(of_stage(numbers), "expert_data", kExpertDataId);
}

std::shared_ptr<Communicator> Mesh::embedding(const std::vector<int>& ranks) {
  return make(ranks, "embedding", kEmbeddingId);
}

std::shared_ptr<Communicator> Mesh::expert_in_node() {
  std::vector<int> ranks;
  for (const int r : expert()->ranks())
    if (endpoint_->node_of(r) == endpoint_->node_of(rank())) ranks.push_back(r);
  return make(std::move(ranks), "expert_in_node", kExpertInNodeId);
}

std::shared_ptr<Communicator> Mesh::expert_across_nodes() {
  const int in_node = expert_in_node()->size(), place = expert_in_node()->rank();
  std::vector<int> ranks;
  const auto& all = expert()->ranks();
  for (std::size_t i = 0; i < all.size(); ++i)
    if (static_cast<int>(i) % in_node == place) ranks.push_back(all[i]);
  return make(std::move(ranks), "expert_across_nodes", kExpertAcrossId);
}

}  // namespace sinew
