#include "text/shard_writer.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.hpp"

namespace sinew {

using Json = nlohmann::ordered_json;

namespace {

void require_size(const fs::path& path, std::uint64_t size, bool exactly) {
  std::error_code error;
  const auto there = fs::file_size(path, error);
  require(!error && there >= size && (!exactly || there == size),
          "{}: {}; delete the directory and start again", path.string(),
          error          ? "missing"
          : there < size ? "shorter than when the work stopped"
                         : "changed since");
}

}  // namespace

// A file appended to through a buffer, with the checksum of all it holds.
struct ShardWriter::Output {
  fs::path path;
  int fd = -1;
  std::string buffer;
  Hasher hasher;

  // Opens `file` and cuts it back to `size` bytes, which it must have.
  Output(fs::path file, std::uint64_t size) : path(std::move(file)) {
    if (size > 0) require_size(path, size, false);
    fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) throw IoError(fmt::format("{}: cannot create: {}", path.string(), system_reason()));
    if (::ftruncate(fd, static_cast<off_t>(size)) != 0 || ::lseek(fd, 0, SEEK_END) < 0) refuse("cut back");
    if (size > 0) {
      const MappedFile map(path);
      hasher.update(map.data(), map.size());
    }
  }
  ~Output() { ::close(fd); }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  [[noreturn]] void refuse(const char* what) const {
    throw IoError(fmt::format("{}: cannot {}: {}; what was saved before is intact, run again to go on",
                              path.string(), what, system_reason()));
  }
  void write(const std::string& bytes) {
    hasher.update(bytes.data(), bytes.size());
    buffer += bytes;
    if (buffer.size() >= (1u << 20)) flush();
  }
  void flush() {
    for (std::size_t done = 0; done < buffer.size();) {
      const ssize_t n = ::write(fd, buffer.data() + done, buffer.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) refuse("write");
      done += static_cast<std::size_t>(n);
    }
    buffer.clear();
  }
  void sync() {
    flush();
    if (::fsync(fd) != 0) refuse("flush to disk");
  }
};

ShardWriter::ShardWriter(fs::path directory, std::string name, int token_bytes, std::uint64_t shard_tokens,
                         const Json& state)
    : directory_(std::move(directory)),
      name_(std::move(name)),
      token_bytes_(token_bytes),
      shard_tokens_(shard_tokens) {
  if (state.is_null()) return;
  for (const auto& s : state.at("shards")) {
    ShardInfo shard{s.at("file"),  s.at("index"),    s.at("tokens"),        s.at("documents"),
                    s.at("bytes"), s.at("checksum"), s.at("index_checksum")};
    require_size(directory_ / shard.file, shard.tokens * static_cast<std::uint64_t>(token_bytes_), true);
    require_size(directory_ / shard.index, shard.documents * 8, true);
    done_.tokens += shard.tokens;
    done_.documents += shard.documents;
    done_.bytes += shard.bytes;
    done_.shards.push_back(std::move(shard));
  }
  now_.tokens = state.at("tokens");
  now_.documents = state.at("documents");
  now_.bytes = state.at("bytes");
  if (now_.documents > 0) open();
}

ShardWriter::~ShardWriter() = default;

void ShardWriter::open() {
  now_.file = fmt::format("{}-{:05}.bin", name_, done_.shards.size());
  now_.index = fmt::format("{}-{:05}.idx", name_, done_.shards.size());
  tokens_ = std::make_unique<Output>(directory_ / now_.file,
                                     now_.tokens * static_cast<std::uint64_t>(token_bytes_));
  index_ = std::make_unique<Output>(directory_ / now_.index, now_.documents * 8);
}

void ShardWriter::add(std::span<const TokenId> tokens, std::uint64_t text_bytes) {
  if (!tokens_) open();
  const auto width = static_cast<std::size_t>(token_bytes_);
  scratch_.resize(tokens.size() * width);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto id = static_cast<std::uint32_t>(tokens[i]);
    std::memcpy(scratch_.data() + i * width, &id, width);  // little-endian: the low bytes come first
  }
  tokens_->write(scratch_);
  now_.tokens += tokens.size();
  now_.documents += 1;
  now_.bytes += text_bytes;
  scratch_.resize(8);
  std::memcpy(scratch_.data(), &now_.tokens, 8);
  index_->write(scratch_);
  if (now_.tokens >= shard_tokens_) close();
}

void ShardWriter::close() {
  sync();
  now_.checksum = hex64(tokens_->hasher.digest());
  now_.index_checksum = hex64(index_->hasher.digest());
  done_.tokens += now_.tokens;
  done_.documents += now_.documents;
  done_.bytes += now_.bytes;
  done_.shards.push_back(std::exchange(now_, {}));
  tokens_.reset();
  index_.reset();
}

void ShardWriter::sync() {
  if (!tokens_) return;
  tokens_->sync();
  index_->sync();
}

Json ShardWriter::state() const {
  return {{"shards", to_json(done_.shards)},
          {"tokens", now_.tokens},
          {"documents", now_.documents},
          {"bytes", now_.bytes}};
}

SplitInfo ShardWriter::finish() {
  if (tokens_) close();
  return std::move(done_);
}

}  // namespace sinew
