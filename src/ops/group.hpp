// The processes that share one operation: what model code calls inside its forward and backward passes.
// comm/communicator.hpp implements it; a null group, or one of size 1, is a process alone.
//
// Every member makes the same calls in the same order, whatever its own data are: a member with nothing to
// send still calls. Sums are taken in the order of ranks, half types in fp32, so that all members get the
// same bits and a repeated run repeats them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace sinew {

// An operation under way. wait() returns when its results are there; the tensors given must live until then
// (a Work holds them itself). Throws Error naming the operation and the rank waited for when that rank fails
// or takes too long. Calling it again does nothing.
class Work {
 public:
  virtual ~Work() = default;
  virtual void wait() = 0;
};
using WorkPtr = std::shared_ptr<Work>;

enum class Reduction { sum, max };

inline constexpr int kTagsOfAChannel = 1 << 10;

class Group {
 public:
  virtual ~Group() = default;
  virtual int rank() const = 0;  // of this process, in the group
  virtual int size() const = 0;

  // x becomes the sum (or maximum) over members, in place. Any numeric type; x is contiguous.
  virtual WorkPtr all_reduce_async(const at::Tensor& x, Reduction reduction = Reduction::sum) = 0;
  // out [size * n, ..] = the members' in [n, ..] in the order of ranks.
  virtual WorkPtr all_gather_async(const at::Tensor& out, const at::Tensor& in) = 0;
  // out [n, ..] = the sum over members of piece rank() of in [size * n, ..].
  virtual WorkPtr reduce_scatter_async(const at::Tensor& out, const at::Tensor& in) = 0;
  // Rows of `in` to the members: in_rows[r] of them, in order, to rank r; out_rows[r] come from it. Counts
  // may be zero.
  virtual WorkPtr all_to_all_async(const at::Tensor& out, const at::Tensor& in,
                                   const std::vector<std::int64_t>& out_rows,
                                   const std::vector<std::int64_t>& in_rows) = 0;
  // Between two members. Messages of one pair and tag arrive in the order they were sent; 0 <= tag < 2^20.
  // Messages of one pair and channel (tag / kTagsOfAChannel) are also received in the order they are sent:
  // NCCL has no tags and takes them so.
  virtual WorkPtr send_async(const at::Tensor& x, int to, int tag) = 0;
  virtual WorkPtr receive_async(const at::Tensor& x, int from, int tag) = 0;
  virtual WorkPtr broadcast_async(const at::Tensor& x, int root) = 0;

  void all_reduce(const at::Tensor& x, Reduction reduction = Reduction::sum) {
    all_reduce_async(x, reduction)->wait();
  }
  void all_gather(const at::Tensor& out, const at::Tensor& in) { all_gather_async(out, in)->wait(); }
  void reduce_scatter(const at::Tensor& out, const at::Tensor& in) { reduce_scatter_async(out, in)->wait(); }
  void all_to_all(const at::Tensor& out, const at::Tensor& in, const std::vector<std::int64_t>& out_rows,
                  const std::vector<std::int64_t>& in_rows) {
    all_to_all_async(out, in, out_rows, in_rows)->wait();
  }
  void send(const at::Tensor& x, int to, int tag) { send_async(x, to, tag)->wait(); }
  void receive(const at::Tensor& x, int from, int tag) { receive_async(x, from, tag)->wait(); }
  void broadcast(const at::Tensor& x, int root) { broadcast_async(x, root)->wait(); }
  virtual void barrier() = 0;
};
using GroupPtr = std::shared_ptr<Group>;

inline int size_of(const GroupPtr& group) { return group == nullptr ? 1 : group->size(); }
inline int rank_of(const GroupPtr& group) { return group == nullptr ? 0 : group->rank(); }

}  // namespace sinew
