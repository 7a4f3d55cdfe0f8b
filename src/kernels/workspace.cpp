#include "kernels/workspace.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace sinew {
namespace {

constexpr std::size_t kHuge = std::size_t{2} << 20;

std::size_t up(std::size_t n, std::size_t step) { return (n + step - 1) / step * step; }

}  // namespace

Workspace::~Workspace() { release(); }

std::size_t Workspace::bytes() const {
  std::size_t total = 0;
  for (const Block& block : blocks_) total += block.size;
  return total;
}

void Workspace::release() {
  for (const Block& block : blocks_) std::free(block.data);
  blocks_.clear();
  block_ = used_ = 0;
}

void Workspace::add_block(std::size_t bytes) {
  const std::size_t size = up(bytes, bytes >= kHuge ? kHuge : 4096);
  void* const data = std::aligned_alloc(size >= kHuge ? kHuge : 4096, size);
  if (data == nullptr) throw std::bad_alloc();
  if (size >= kHuge) ::madvise(data, size, MADV_HUGEPAGE);  // a wish: fewer misses of the address cache
  blocks_.push_back({data, size});
}

void* Workspace::take(std::size_t bytes) {
  bytes = up(std::max<std::size_t>(bytes, 1), 64);
  while (block_ < blocks_.size() && used_ + bytes > blocks_[block_].size) {
    ++block_;
    used_ = 0;
  }
  if (block_ == blocks_.size()) add_block(std::max(bytes, std::size_t{1} << 16));
  void* const data = static_cast<char*>(blocks_[block_].data) + used_;
  used_ += bytes;
  return data;
}

void Workspace::leave(std::size_t block, std::size_t used) {
  block_ = block;
  used_ = used;
  if (--depth_ > 0 || blocks_.size() < 2) return;
  const std::size_t total = bytes();  // next time all of it in one piece
  release();
  add_block(total);
}

Workspace& thread_workspace() {
  thread_local Workspace space;
  return space;
}

}  // namespace sinew
