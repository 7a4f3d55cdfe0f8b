#include "ops/fused.hpp"

#include <ATen/Parallel.h>
#include <malloc.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <string_view>

#include "base/error.hpp"
#include "base/threads.hpp"
#include "ops/openmp_threads.hpp"

namespace sinew {
namespace {

thread_local bool use_aten = false;

// Buffers by weight: a table with open addressing, so that a look at one costs one line of memory. After the
// gigabytes of a step nothing of it is in a cache.
class BufferTable {
 public:
  using Key = const c10::TensorImpl*;

  void prefetch(Key weight) const {
    if (!slots_.empty()) __builtin_prefetch(slots_.data() + place(weight));
  }
  const at::Tensor& find(Key weight) const {  // undefined where there is none
    static const at::Tensor none;
    return slots_.empty() ? none : slots_[probe(weight)].buffer;
  }
  // An undefined buffer: the weight has none any more.
  void set(Key weight, const at::Tensor& buffer) {
    if (2 * (used_ + 1) > slots_.size()) resize();
    Slot& slot = slots_[probe(weight)];
    used_ += slot.weight == nullptr ? 1 : 0;
    slot = {weight, buffer};
  }

 private:
  struct Slot {
    Key weight = nullptr;
    at::Tensor buffer;
  };
  std::size_t place(Key weight) const {
    const auto hash = (reinterpret_cast<std::uintptr_t>(weight) >> 4) * 0x9e3779b97f4a7c15ULL;
    return (hash >> 32) & (slots_.size() - 1);
  }
  // The weight's slot, or the empty one where it would stand.
  std::size_t probe(Key weight) const {
    std::size_t i = place(weight);
    while (slots_[i].weight != nullptr && slots_[i].weight != weight) i = (i + 1) & (slots_.size() - 1);
    return i;
  }
  // Room for twice as many; those without a buffer are left out.
  void resize() {
    std::vector<Slot> all(std::bit_ceil(std::max<std::size_t>(64, 4 * (used_ + 1))));
    all.swap(slots_);
    used_ = 0;
    for (const Slot& slot : all)
      if (slot.buffer.defined()) slots_[probe(slot.weight)] = slot, ++used_;
  }

  std::vector<Slot> slots_;  // a power of two of them, at most half full
  std::size_t used_ = 0;     // those with a weight
};

std::mutex buffer_mutex;
BufferTable& buffers() {
  static BufferTable table;
  return table;
}
at::Tensor buffer_of(const at::Tensor& weight) {
  const std::lock_guard lock(buffer_mutex);
  return buffers().find(weight.unsafeGetTensorImpl());
}

// Memory that a step frees the next one takes again: given back to the system in between, each of its pages
// would be cleared and mapped anew (a tenth of a step).
void keep_freed_memory() {
#if defined(__GLIBC__)
  constexpr int kMost = 1 << 30;
  if (::mallopt(M_MMAP_THRESHOLD, kMost) == 0)
    ::mallopt(M_MMAP_THRESHOLD, 32 << 20);  // all that old ones allow
  ::mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
#endif
}

bool start() {
  keep_freed_memory();
#if !defined(__SANITIZE_THREAD__)  // which does not understand libgomp
  at::set_num_threads(default_threads());
  set_loop_runner(run_on_openmp);
#endif
  const char* const choice = std::getenv("SINEW_OPS");
  return choice == nullptr || std::string_view(choice) != "aten";
}

}  // namespace

bool fused(const at::Tensor& x) {
  static const bool allowed = start();
  return allowed && !use_aten && x.is_cpu() &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

AtenPath::AtenPath() : before_(use_aten) { use_aten = true; }
AtenPath::~AtenPath() { use_aten = before_; }

GradientBuffers::~GradientBuffers() {
  const std::lock_guard lock(buffer_mutex);
  for (const auto& [weight, buffer] : added_)
    if (buffers().find(weight.unsafeGetTensorImpl()).is_same(buffer))
      buffers().set(weight.unsafeGetTensorImpl(), {});
}

void GradientBuffers::add(const at::Tensor& weight, const at::Tensor& buffer) {
  ensure(buffer.scalar_type() == at::kFloat && buffer.is_contiguous() && buffer.sizes() == weight.sizes(),
         "a gradient buffer is not fp32 or not shaped like its weight");
  const std::lock_guard lock(buffer_mutex);
  buffers().set(weight.unsafeGetTensorImpl(), buffer);
  added_.emplace_back(weight, buffer);
}

std::vector<at::Tensor> gradient_buffers(at::TensorList weights) {
  std::vector<at::Tensor> out;
  out.reserve(weights.size());
  const std::lock_guard lock(buffer_mutex);
  for (const auto& weight : weights) buffers().prefetch(weight.unsafeGetTensorImpl());
  for (const auto& weight : weights) out.push_back(buffers().find(weight.unsafeGetTensorImpl()));
  return out;
}

bool WeightGradient::is_direct(const at::Tensor& weight) { return is_direct(weight, buffer_of(weight)); }
bool WeightGradient::is_direct(const at::Tensor& weight, const at::Tensor& buffer) {
  if (!weight.is_leaf()) return false;
  const at::Tensor& grad = weight.grad();
  if (!grad.defined()) return buffer.defined();
  return grad.scalar_type() == at::kFloat && grad.is_contiguous();
}

WeightGradient::WeightGradient(const at::Tensor& weight) {
  const at::Tensor buffer = buffer_of(weight);
  *this = WeightGradient(weight, is_direct(weight, buffer), buffer);
}

WeightGradient::WeightGradient(const at::Tensor& weight, bool direct, const at::Tensor& buffer)
    : direct_(direct) {
  if (!direct) {
    sum_ = at::empty(weight.sizes(), weight.options().dtype(at::kFloat).requires_grad(false));
    return;
  }
  accumulate_ = weight.grad().defined();
  if (!accumulate_) weight.mutable_grad() = buffer;
  sum_ = weight.grad();
}

void WeightGradient::zero() {
  sum_.zero_();
  accumulate_ = true;
}

}  // namespace sinew
