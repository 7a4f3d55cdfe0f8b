#include "base/async_reader.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/error.hpp"

#ifdef SINEW_URING
#include <liburing.h>
#endif

namespace sinew {
namespace {

struct File {
  int fd;
  std::uint64_t size;
  std::string path;
};

struct Read {
  const File* file;
  std::uint64_t offset;
  std::size_t bytes, done = 0;
  std::byte* buffer;
  std::uint64_t tag;
  std::size_t wanted() const {  // up to the end of the file
    return offset >= file->size ? 0 : std::min<std::uint64_t>(bytes, file->size - offset);
  }
};

[[noreturn]] void failed(const Read& read, const std::string& reason) {
  throw IoError(
      fmt::format("{}: reading {} bytes at {} failed: {}", read.file->path, read.bytes, read.offset, reason));
}

// Whoever carries the reads out. A read that has `bytes` left over is started again by the reader.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual void start(Read* read) = 0;
  // The next that came back and its result (bytes, or -errno); null when `block` is false and none has.
  virtual Read* next(bool block, std::int64_t& result) = 0;
  virtual const char* name() const = 0;
};

class ThreadBackend : public Backend {
 public:
  ThreadBackend() : worker_([this] { work(); }) {}
  ~ThreadBackend() override {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    worker_.join();
  }
  void start(Read* read) override {
    {
      const std::lock_guard lock(mutex_);
      waiting_.push_back(read);
    }
    changed_.notify_all();
  }
  Read* next(bool block, std::int64_t& result) override {
    std::unique_lock lock(mutex_);
    if (block) changed_.wait(lock, [this] { return !finished_.empty(); });
    if (finished_.empty()) return nullptr;
    const auto [read, bytes] = finished_.front();
    finished_.pop_front();
    result = bytes;
    return read;
  }
  const char* name() const override { return "threads"; }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
      if (stop_) return;
      Read* const read = waiting_.front();
      waiting_.pop_front();
      lock.unlock();
      const ssize_t got = ::pread(read->file->fd, read->buffer + read->done, read->bytes - read->done,
                                  static_cast<off_t>(read->offset + read->done));
      const std::int64_t result = got >= 0 ? got : -errno;
      lock.lock();
      finished_.emplace_back(read, result);
      changed_.notify_all();
    }
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Read*> waiting_;
  std::deque<std::pair<Read*, std::int64_t>> finished_;
  bool stop_ = false;
  std::thread worker_;  // last: it uses the rest
};

#ifdef SINEW_URING
class UringBackend : public Backend {
 public:
  static std::unique_ptr<UringBackend> make(unsigned depth) {
    auto backend = std::unique_ptr<UringBackend>(new UringBackend);
    if (::io_uring_queue_init(depth, &backend->ring_, 0) != 0) return nullptr;  // old kernel, or forbidden
    backend->begun_ = true;
    return backend;
  }
  ~UringBackend() override {
    if (begun_) ::io_uring_queue_exit(&ring_);
  }
  void start(Read* read) override {
    io_uring_sqe* const entry = ::io_uring_get_sqe(&ring_);
    ensure(entry != nullptr, "more reads than the queue is deep");
    ::io_uring_prep_read(entry, read->file->fd, read->buffer + read->done,
                         static_cast<unsigned>(read->bytes - read->done), read->offset + read->done);
    ::io_uring_sqe_set_data(entry, read);
    const int submitted = ::io_uring_submit(&ring_);
    if (submitted < 0) failed(*read, std::generic_category().message(-submitted));
  }
  Read* next(bool block, std::int64_t& result) override {
    io_uring_cqe* event = nullptr;
    int code = 0;
    do {
      code = block ? ::io_uring_wait_cqe(&ring_, &event) : ::io_uring_peek_cqe(&ring_, &event);
    } while (code == -EINTR);
    if (code == -EAGAIN) return nullptr;
    ensure(code == 0, "io_uring: {}", std::generic_category().message(-code));
    auto* const read = static_cast<Read*>(::io_uring_cqe_get_data(event));
    result = event->res;
    ::io_uring_cqe_seen(&ring_, event);
    return read;
  }
  const char* name() const override { return "io_uring"; }

 private:
  UringBackend() = default;
  io_uring ring_{};
  bool begun_ = false;
};
#endif

std::unique_ptr<Backend> make_backend([[maybe_unused]] unsigned depth) {
#ifdef SINEW_URING
  if (auto uring = UringBackend::make(depth)) return uring;
#endif
  return std::make_unique<ThreadBackend>();
}

}  // namespace

struct AsyncReader::Impl {
  explicit Impl(unsigned most) : reads(most), backend(make_backend(most)) {
    for (Read& read : reads) free.push_back(&read);
  }
  ~Impl() {
    std::int64_t result = 0;  // buffers belong to others: nothing may be written after this
    while (free.size() < reads.size()) free.push_back(backend->next(true, result));
    for (const File& file : files) ::close(file.fd);
  }
  std::deque<File> files;
  std::vector<Read> reads;
  std::vector<Read*> free;
  std::unique_ptr<Backend> backend;
  bool direct = true;
};

AsyncReader::AsyncReader(unsigned depth) : impl_(std::make_unique<Impl>(depth)) {}
AsyncReader::~AsyncReader() = default;
bool AsyncReader::direct() const { return impl_->direct; }
const char* AsyncReader::way() const { return impl_->backend->name(); }
unsigned AsyncReader::under_way() const {
  return static_cast<unsigned>(impl_->reads.size() - impl_->free.size());
}

int AsyncReader::open(const std::filesystem::path& path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  if (fd < 0 && errno == EINVAL) {
    fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    impl_->direct = false;
  }
  struct stat info {};
  if (fd < 0 || ::fstat(fd, &info) != 0) throw IoError(fmt::format("{}: {}", path.string(), system_reason()));
  impl_->files.push_back({fd, static_cast<std::uint64_t>(info.st_size), path.string()});
  return static_cast<int>(impl_->files.size()) - 1;
}

void AsyncReader::start(int file, std::uint64_t offset, std::size_t bytes, std::byte* buffer,
                        std::uint64_t tag) {
  ensure(!impl_->free.empty(), "more reads than the reader is deep");
  ensure(offset % kAlign == 0 && bytes % kAlign == 0, "a read of {} bytes at {}", bytes, offset);
  Read* const read = impl_->free.back();
  impl_->free.pop_back();
  *read = {&impl_->files[static_cast<std::size_t>(file)], offset, bytes, 0, buffer, tag};
  impl_->backend->start(read);
}

std::int64_t AsyncReader::wait(bool block) {
  ensure(!block || under_way() > 0, "nothing is being read");
  for (;;) {
    std::int64_t result = 0;
    Read* const read = under_way() > 0 ? impl_->backend->next(block, result) : nullptr;
    if (read == nullptr) return -1;
    if (result == -EINTR || result == -EAGAIN) {
      impl_->backend->start(read);
      continue;
    }
    if (result > 0) read->done += static_cast<std::size_t>(result);
    const bool whole = read->done >= read->wanted();
    if (result > 0 && !whole && read->done % kAlign == 0) {
      impl_->backend->start(read);
      continue;
    }
    impl_->free.push_back(read);
    if (result < 0) failed(*read, std::generic_category().message(static_cast<int>(-result)));
    if (!whole) failed(*read, "the file has become shorter");
    return static_cast<std::int64_t>(read->tag);
  }
}

}  // namespace sinew
