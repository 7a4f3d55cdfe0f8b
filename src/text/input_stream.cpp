#include "text/input_stream.hpp"

#include <bzlib.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include "base/error.hpp"

namespace sinew {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kBlock = 256 * 1024;

class PlainStream : public InputStream {
 public:
  explicit PlainStream(const fs::path& path) : path_(path) {
    fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) throw IoError(fmt::format("{}: cannot open: {}", path.string(), system_reason()));
    struct stat info {};
    if (::fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode)) {
      ::close(fd_);
      fail("{}: not a regular file; text is read more than once, so save it to a file first", path.string());
    }
  }
  ~PlainStream() override { ::close(fd_); }
  PlainStream(const PlainStream&) = delete;
  PlainStream& operator=(const PlainStream&) = delete;

  std::size_t read(char* out, std::size_t size) override {
    for (;;) {
      const ssize_t n = ::read(fd_, out, size);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw IoError(fmt::format("{}: cannot read: {}", path_.string(), system_reason()));
      consumed_ += static_cast<std::uint64_t>(n);
      return static_cast<std::size_t>(n);
    }
  }
  std::uint64_t consumed() const override { return consumed_; }
  std::string name() const { return path_.string(); }

 private:
  fs::path path_;
  int fd_ = -1;
  std::uint64_t consumed_ = 0;
};

// Feeds blocks of the file to a decoder's `step`, which moves the four counters below.
class DecodedStream : public InputStream {
 public:
  explicit DecodedStream(const fs::path& path) : file_(path), block_(kBlock) {}

  std::size_t read(char* out, std::size_t size) override {
    out_ = out;
    room_ = size;
    while (room_ == size) {  // until there is a byte to give
      // A decoder whose output was full may hold more of it without any new input.
      if (available_ == 0 && !std::exchange(pending_, false) && !refill()) {
        require(between_frames_, "{}: the {} stream is cut short; is the file complete?", file_.name(),
                kind());
        return 0;
      }
      step();
      pending_ = room_ == 0 && !between_frames_;
    }
    return size - room_;
  }
  std::uint64_t consumed() const override { return file_.consumed(); }

 protected:
  virtual void step() = 0;
  virtual const char* kind() const = 0;
  [[noreturn]] void damaged(const char* why) const {
    fail("{}: damaged {} stream near byte {}: {}", file_.name(), kind(), file_.consumed() - available_,
         why != nullptr ? why : "unknown error");
  }
  std::string name() const { return file_.name(); }

  const char* next_ = nullptr;  // compressed bytes not yet used
  std::size_t available_ = 0;
  char* out_ = nullptr;  // where decoded bytes go
  std::size_t room_ = 0;
  bool between_frames_ = false;  // nothing is pending: the file may end here

 private:
  bool pending_ = false;
  bool refill() {
    available_ = file_.read(block_.data(), block_.size());
    next_ = block_.data();
    return available_ > 0;
  }
  PlainStream file_;
  std::vector<char> block_;
};

class GzipStream : public DecodedStream {
 public:
  explicit GzipStream(const fs::path& path) : DecodedStream(path) {
    ensure(inflateInit2(&z_, 15 + 16) == Z_OK, "zlib cannot start");
  }
  ~GzipStream() override { inflateEnd(&z_); }

 private:
  const char* kind() const override { return "gzip"; }
  void step() override {
    if (between_frames_) inflateReset(&z_);
    between_frames_ = false;
    z_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(next_));
    z_.avail_in = static_cast<uInt>(available_);
    z_.next_out = reinterpret_cast<Bytef*>(out_);
    z_.avail_out = static_cast<uInt>(std::min<std::size_t>(room_, 1u << 30));
    const uInt room = z_.avail_out;
    const int code = inflate(&z_, Z_NO_FLUSH);
    if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR) damaged(z_.msg);
    between_frames_ = code == Z_STREAM_END;
    next_ += available_ - z_.avail_in;
    available_ = z_.avail_in;
    out_ += room - z_.avail_out;
    room_ -= room - z_.avail_out;
  }
  z_stream z_{};
};

class ZstdStream : public DecodedStream {
 public:
  explicit ZstdStream(const fs::path& path) : DecodedStream(path), z_(ZSTD_createDStream()) {
    ensure(z_ != nullptr, "zstd cannot start");
  }
  ~ZstdStream() override { ZSTD_freeDStream(z_); }
  ZstdStream(const ZstdStream&) = delete;
  ZstdStream& operator=(const ZstdStream&) = delete;

 private:
  const char* kind() const override { return "zstd"; }
  void step() override {
    ZSTD_inBuffer in{next_, available_, 0};
    ZSTD_outBuffer out{out_, room_, 0};
    const std::size_t code = ZSTD_decompressStream(z_, &out, &in);
    if (ZSTD_isError(code)) damaged(ZSTD_getErrorName(code));
    between_frames_ = code == 0;
    next_ += in.pos;
    available_ -= in.pos;
    out_ += out.pos;
    room_ -= out.pos;
  }
  ZSTD_DStream* z_;
};

class Bzip2Stream : public DecodedStream {
 public:
  explicit Bzip2Stream(const fs::path& path) : DecodedStream(path) { start(); }
  ~Bzip2Stream() override { BZ2_bzDecompressEnd(&z_); }

 private:
  const char* kind() const override { return "bzip2"; }
  void start() { ensure(BZ2_bzDecompressInit(&z_, 0, 0) == BZ_OK, "bzip2 cannot start"); }
  void step() override {
    if (between_frames_) {
      BZ2_bzDecompressEnd(&z_);
      z_ = {};
      start();
    }
    between_frames_ = false;
    z_.next_in = const_cast<char*>(next_);
    z_.avail_in = static_cast<unsigned>(available_);
    z_.next_out = out_;
    z_.avail_out = static_cast<unsigned>(std::min<std::size_t>(room_, 1u << 30));
    const unsigned room = z_.avail_out;
    const int code = BZ2_bzDecompress(&z_);
    if (code != BZ_OK && code != BZ_STREAM_END)
      damaged(code == BZ_DATA_ERROR_MAGIC ? "not bzip2"
              : code == BZ_MEM_ERROR      ? "out of memory"
                                          : "wrong data");
    between_frames_ = code == BZ_STREAM_END;
    next_ += available_ - z_.avail_in;
    available_ = z_.avail_in;
    out_ += room - z_.avail_out;
    room_ -= room - z_.avail_out;
  }
  bz_stream z_{};
};

}  // namespace

std::unique_ptr<InputStream> open_input(const fs::path& path) {
  const fs::path ending = path.extension();
  if (ending == ".gz") return std::make_unique<GzipStream>(path);
  if (ending == ".zst") return std::make_unique<ZstdStream>(path);
  if (ending == ".bz2") return std::make_unique<Bzip2Stream>(path);
  return std::make_unique<PlainStream>(path);
}

fs::path without_compression(const fs::path& path) {
  const fs::path ending = path.extension();
  if (ending != ".gz" && ending != ".zst" && ending != ".bz2") return path;
  return fs::path(path).replace_extension();
}

}  // namespace sinew
