// One process's end of the network: messages to and from any other rank, over c10d's Gloo or NCCL.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "comm/traffic.hpp"
#include "ops/group.hpp"

namespace c10d {
class Store;
}

namespace sinew {

struct EndpointOptions {
  int rank = 0, size = 1;
  int ranks_per_node = 0;             // of link classes: rank r is on node r / ranks_per_node; 0: all on one
  std::int64_t timeout = 600;         // seconds that one operation may wait for a rank
  int generation = 0;                 // endpoints of a new generation never meet messages of an old one
  std::string address = "127.0.0.1";  // this machine's, by which the other ranks reach it
  at::Device device = at::kCPU;
};

// Collectives are made of messages (comm/communicator.cpp), so any list of ranks is a group at no cost, sums
// have one order, any type travels as bytes, and what is counted is what is sent.
class Endpoint {
 public:
  virtual ~Endpoint() = default;
  const EndpointOptions& options() const { return options_; }
  int rank() const { return options_.rank; }
  int size() const { return options_.size; }
  int node_of(int rank) const { return options_.ranks_per_node == 0 ? 0 : rank / options_.ranks_per_node; }
  void set_ranks_per_node(int count) { options_.ranks_per_node = count; }
  TrafficCounters& traffic() { return traffic_; }

  // Any tensor that is contiguous. Messages of one pair and tag keep their order. Both return at once.
  virtual WorkPtr send(const at::Tensor& x, int to, int tag) = 0;
  virtual WorkPtr receive(const at::Tensor& x, int from, int tag) = 0;
  // Around the messages of one collective: NCCL must be told that they go together.
  virtual void begin_batch() {}
  virtual void end_batch() {}

 protected:
  explicit Endpoint(const EndpointOptions& options) : options_(options) {}

 private:
  EndpointOptions options_;
  TrafficCounters traffic_;
};

// Meets the other ranks at `store` (rank 0 to size-1, each once a generation): Gloo for the CPU, NCCL for a
// GPU. Throws Error when they do not all come in time, UserError when this libtorch lacks NCCL.
std::shared_ptr<Endpoint> connect(const c10::intrusive_ptr<c10d::Store>& store,
                                  const EndpointOptions& options);
// A process alone.
std::shared_ptr<Endpoint> alone(at::Device device = at::kCPU);

}  // namespace sinew
