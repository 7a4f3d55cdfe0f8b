// Memory for intermediate results that is kept between calls: after the first step no kernel allocates.
#pragma once

#include <cstddef>
#include <vector>

namespace sinew {

// A stack of buffers. Take memory within a Frame; the frame's end gives it back to the workspace, not to the
// system. Pointers stay valid while their frame lives.
class Workspace {
 public:
  Workspace() = default;
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  class Frame {
   public:
    explicit Frame(Workspace& space) : space_(space), block_(space.block_), used_(space.used_) {
      ++space.depth_;
    }
    ~Frame() { space_.leave(block_, used_); }
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;
    // `count` objects, not initialised, aligned to 64 bytes.
    template <class T>
    T* take(std::size_t count) {
      return static_cast<T*>(space_.take(count * sizeof(T)));
    }

   private:
    Workspace& space_;
    std::size_t block_, used_;
  };

  std::size_t bytes() const;  // held

 private:
  struct Block {
    void* data;
    std::size_t size;
  };
  void* take(std::size_t bytes);
  void leave(std::size_t block, std::size_t used);
  void add_block(std::size_t bytes);
  void release();

  std::vector<Block> blocks_;
  std::size_t block_ = 0, used_ = 0;  // the block in use and the bytes taken from it
  std::size_t depth_ = 0;
};

// The calling thread's own.
Workspace& thread_workspace();

}  // namespace sinew
