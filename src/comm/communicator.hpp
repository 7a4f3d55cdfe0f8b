// Collectives over a list of ranks.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/endpoint.hpp"
#include "ops/group.hpp"

namespace sinew {

class Communicator : public Group {
 public:
  // `ranks` of the world, this process's among them, the same list on every member. `name` is what counters
  // and errors call it ("expert"); `id` (0 .. 255) tells groups apart that share two ranks: the same on all
  // members, different for different lists that share two ranks.
  Communicator(std::shared_ptr<Endpoint> endpoint, std::vector<int> ranks, std::string name, int id);

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(ranks_.size()); }
  const std::vector<int>& ranks() const { return ranks_; }  // in the world
  const std::string& name() const { return name_; }
  Endpoint& endpoint() const { return *endpoint_; }

  WorkPtr all_reduce_async(const at::Tensor& x, Reduction reduction = Reduction::sum) override;
  WorkPtr all_gather_async(const at::Tensor& out, const at::Tensor& in) override;
  WorkPtr reduce_scatter_async(const at::Tensor& out, const at::Tensor& in) override;
  WorkPtr all_to_all_async(const at::Tensor& out, const at::Tensor& in,
                           const std::vector<std::int64_t>& out_rows,
                           const std::vector<std::int64_t>& in_rows) override;
  WorkPtr send_async(const at::Tensor& x, int to, int tag) override;
  WorkPtr receive_async(const at::Tensor& x, int from, int tag) override;
  WorkPtr broadcast_async(const at::Tensor& x, int root) override;
  void barrier() override;

 private:
  WorkPtr post_send(const at::Tensor& x, int to, int tag, Traffic& traffic) const;
  WorkPtr post_receive(const at::Tensor& x, int from, int tag) const;
  // One message from and to each other member: out[r] comes from r, in[r] goes to it; empty ones do not.
  WorkPtr exchange(const char* operation, const std::vector<at::Tensor>& out,
                   const std::vector<at::Tensor>& in, std::function<void()> finish, int tag = -1);
  std::string what(const char* operation) const;
  int next_tag();
  void count(const char* operation, const Traffic& traffic) const;

  std::shared_ptr<Endpoint> endpoint_;
  std::vector<int> ranks_;
  std::string name_;
  int id_, rank_ = 0, sequence_ = 0;
};

}  // namespace sinew
