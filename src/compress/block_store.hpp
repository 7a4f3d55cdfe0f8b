// Quantized tensors on their way into a file: written in any order, read back as mapped memory. On disk
// beside the file they are for and without a name, so that nothing is left behind.
#pragma once

#include <cstddef>
#include <filesystem>
#include <vector>

namespace sinew::compress {

class BlockStore {
 public:
  // Room for tensors of these sizes. Throws IoError when the disk has none.
  BlockStore(const std::filesystem::path& beside, const std::vector<std::uint64_t>& bytes);
  ~BlockStore();
  BlockStore(const BlockStore&) = delete;
  BlockStore& operator=(const BlockStore&) = delete;

  std::byte* tensor(std::size_t number) { return data_ + offsets_[number]; }
  // What was written stays, but no longer counts as this process's memory.
  void release();

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::vector<std::size_t> offsets_;
};

}  // namespace sinew::compress
