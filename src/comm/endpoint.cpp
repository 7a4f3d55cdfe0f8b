#include "comm/endpoint.hpp"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <csignal>

#include "base/error.hpp"
#include "comm/lost_rank.hpp"
#include "comm/nccl_endpoint.hpp"

namespace sinew {
namespace {

using Backend = c10d::ProcessGroupGloo;

class Message : public Work {
 public:
  Message(c10::intrusive_ptr<c10d::Work> work, at::Tensor held, std::int64_t seconds, std::string what)
      : work_(std::move(work)), held_(std::move(held)), seconds_(seconds), what_(std::move(what)) {}

  void wait() override {
    if (!work_) return;
    const auto work = std::move(work_);
    try {
      work->wait(std::chrono::milliseconds(seconds_ * 1000));
    } catch (const std::exception& error) {
      throw LostRank(fmt::format("{}: {}", what_, reason(error.what())));
    }
  }

 private:
  // The first line, without the source position that Gloo puts before it.
  std::string reason(std::string text) const {
    text = text.substr(0, text.find('\n'));
    if (text.find("imeout") != std::string::npos || text.find("imed out") != std::string::npos)
      return fmt::format("nothing came for {} s (layout.timeout)", seconds_);
    if (const auto end = text.find("] "); text.starts_with("[") && end != std::string::npos)
      text = text.substr(end + 2);
    return text;
  }

  c10::intrusive_ptr<c10d::Work> work_;
  at::Tensor held_;
  std::int64_t seconds_;
  std::string what_;
};

class GlooEndpoint : public Endpoint {
 public:
  GlooEndpoint(const c10::intrusive_ptr<c10d::Store>& store, const EndpointOptions& o) : Endpoint(o) {
    const auto prefix = fmt::format("sinew/{}", o.generation);
    const auto options = Backend::Options::create(std::chrono::milliseconds(o.timeout * 1000));
    options->threads = 1;  // all is done by messages, which need none of them
    options->devices.push_back(Backend::createDeviceForHostname(o.address));
    try {
      backend_ = c10::make_intrusive<Backend>(c10::make_intrusive<c10d::PrefixStore>(prefix, store), o.rank,
                                              o.size, options);
    } catch (const std::exception& error) {
      const std::string text = error.what();
      throw Error(fmt::format("rank {}: the {} ranks did not all meet within {} s: {}", o.rank, o.size,
                              o.timeout, text.substr(0, text.find('\n'))));
    }
  }

  WorkPtr send(const at::Tensor& x, int to, int tag) override {
    return post(x, tag, fmt::format("to rank {}", to),
                [&](std::vector<at::Tensor>& list) { return backend_->send(list, to, tag); });
  }
  WorkPtr receive(const at::Tensor& x, int from, int tag) override {
    return post(x, tag, fmt::format("from rank {}", from),
                [&](std::vector<at::Tensor>& list) { return backend_->recv(list, from, tag); });
  }

 private:
  template <class Post>
  WorkPtr post(const at::Tensor& x, int tag, const std::string& what, Post start) {
    ensure(x.is_contiguous() && tag >= 0, "a message that is not contiguous");
    std::vector<at::Tensor> list{x.detach()};
    try {
      return std::make_shared<Message>(start(list), list[0], options().timeout, what);
    } catch (const std::exception& error) {
      const std::string text = error.what();
      throw LostRank(fmt::format("{}: {}", what, text.substr(0, text.find('\n'))));
    }
  }

  c10::intrusive_ptr<Backend> backend_;
};

class Alone : public Endpoint {
 public:
  using Endpoint::Endpoint;
  explicit Alone(const EndpointOptions& options) : Endpoint(options) {}
  WorkPtr send(const at::Tensor& /*x*/, int to, int /*tag*/) override { return nobody(to); }
  WorkPtr receive(const at::Tensor& /*x*/, int from, int /*tag*/) override { return nobody(from); }

 private:
  static WorkPtr nobody(int rank) { throw Error(fmt::format("internal: there is no rank {}", rank)); }
};

}  // namespace

std::shared_ptr<Endpoint> connect(const c10::intrusive_ptr<c10d::Store>& store,
                                  const EndpointOptions& options) {
  ensure(options.rank >= 0 && options.rank < options.size, "rank {} of {}", options.rank, options.size);
  if (options.device.is_cuda()) return connect_nccl(store, options);
  if (options.size == 1) return std::make_shared<Alone>(options);
  // Gloo writes to sockets whose other end may have left: that is to be an error of the write, not the end of
  // this process.
  std::signal(SIGPIPE, SIG_IGN);
  return std::make_shared<GlooEndpoint>(store, options);
}

std::shared_ptr<Endpoint> alone(at::Device device) {
  EndpointOptions options;
  options.device = device;
  return std::make_shared<Alone>(options);
}

}  // namespace sinew
