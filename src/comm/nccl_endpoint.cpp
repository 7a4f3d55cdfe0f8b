#include "comm/nccl_endpoint.hpp"

#include "base/error.hpp"

#ifdef SINEW_NCCL
#ifndef USE_C10D_NCCL
#define USE_C10D_NCCL 1
#endif
#include <c10/cuda/CUDAFunctions.h>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include <map>
#include <utility>

#include "comm/lost_rank.hpp"
#endif

namespace sinew {

#ifdef SINEW_NCCL
namespace {

using Backend = c10d::ProcessGroupNCCL;
using BackendWork = c10::intrusive_ptr<c10d::Work>;

// Messages that NCCL was given together.
struct Batch {
  BackendWork work;  // of all of them, where libtorch gives one
  bool ended = false, synchronize = false;
};

class NcclMessage : public Work {
 public:
  NcclMessage(BackendWork work, std::shared_ptr<Batch> batch, at::Tensor held, std::string what)
      : work_(std::move(work)), batch_(std::move(batch)), held_(std::move(held)), what_(std::move(what)) {}
  // Makes the current stream wait, not the host.
  void wait() override {
    const auto work = std::exchange(work_, BackendWork());
    const auto batch = std::exchange(batch_, nullptr);
    try {
      if (!batch) {
        if (work) work->wait();
        return;
      }
      ensure(batch->ended, "waiting for a message whose batch is still open");
      if (batch->synchronize) return c10::cuda::device_synchronize();
      if (batch->work) batch->work->wait();
    } catch (const std::exception& error) {
      const std::string text = error.what();
      throw LostRank(fmt::format("{}: {}", what_, text.substr(0, text.find('\n'))));
    }
  }

 private:
  BackendWork work_;
  std::shared_ptr<Batch> batch_;
  at::Tensor held_;
  std::string what_;
};

// Since libtorch 2.1 the end of a batch gives one thing to wait for. Before, what its messages give is
// recorded before they are launched and waits for nothing: then the whole device must be waited for.
template <class B>
void begin_group(B& backend) {
  if constexpr (requires { BackendWork(backend.endCoalescing()); }) {
    backend.startCoalescing();
  } else {
    B::groupStart();
  }
}
template <class B>
void end_group(B& backend, Batch& batch) {
  if constexpr (requires { BackendWork(backend.endCoalescing()); }) {
    batch.work = backend.endCoalescing();
  } else {
    B::groupEnd();
    batch.synchronize = true;
  }
  batch.ended = true;
}

// NCCL knows no tags: what one rank sends another arrives in the order in which it is sent, on a stream that
// does one thing after another. So that a message never waits behind one that the other side expects later,
//   * collectives, which all ranks begin in the same order, share one backend, each a batch of its own;
//   * the others have a backend for each direction between two ranks and each channel, the upper half of the
//   tag
//     (ops/group.hpp), within which order is kept.
class NcclEndpoint : public Endpoint {
 public:
  NcclEndpoint(c10::intrusive_ptr<c10d::Store> store, const EndpointOptions& o)
      : Endpoint(o), store_(std::move(store)), together_(backend("all")) {}

  WorkPtr send(const at::Tensor& x, int to, int tag) override {
    return post(x, tag, rank() < to, fmt::format("to rank {}", to),
                [&](Backend& b, std::vector<at::Tensor>& list) { return b.send(list, to, 0); });
  }
  WorkPtr receive(const at::Tensor& x, int from, int tag) override {
    return post(x, tag, from < rank(), fmt::format("from rank {}", from),
                [&](Backend& b, std::vector<at::Tensor>& list) { return b.recv(list, from, 0); });
  }
  void begin_batch() override {
    ensure(!batch_, "a batch within a batch");
    batch_ = std::make_shared<Batch>();
    empty_ = true;
  }
  void end_batch() override {
    const auto batch = std::exchange(batch_, nullptr);
    if (!empty_) end_group(*together_, *batch);
  }

 private:
  c10::intrusive_ptr<Backend> backend(const std::string& name) const {
    const auto made = Backend::Options::create();
    made->timeout = std::chrono::milliseconds(options().timeout * 1000);
    return c10::make_intrusive<Backend>(c10::make_intrusive<c10d::PrefixStore>(
                                            fmt::format("sinew/{}/{}", options().generation, name), store_),
                                        rank(), size(), made);
  }

  template <class Start>
  WorkPtr post(const at::Tensor& x, int tag, bool upwards, std::string what, Start start) {
    ensure(x.is_contiguous() && x.is_cuda(), "a message that is not contiguous on a GPU");
    std::vector<at::Tensor> list{x.detach()};
    if (batch_) {
      if (std::exchange(empty_, false)) begin_group(*together_);
      auto work = start(*together_, list);
      return std::make_shared<NcclMessage>(std::move(work), batch_, list[0], std::move(what));
    }
    const auto channel = tag / kTagsOfAChannel;
    auto& one = channels_[{channel, upwards}];
    if (!one) one = backend(fmt::format("{}{}", channel, upwards ? "up" : "down"));
    auto work = start(*one, list);
    return std::make_shared<NcclMessage>(std::move(work), nullptr, list[0], std::move(what));
  }

  c10::intrusive_ptr<c10d::Store> store_;
  c10::intrusive_ptr<Backend> together_;
  std::map<std::pair<int, bool>, c10::intrusive_ptr<Backend>> channels_;
  std::shared_ptr<Batch> batch_;
  bool empty_ = true;
};

}  // namespace

std::shared_ptr<Endpoint> connect_nccl(const c10::intrusive_ptr<c10d::Store>& store,
                                       const EndpointOptions& options) {
  // libtorch's classes have other members under another version's header.
  const auto header = fmt::format("{}.{}.", NCCL_MAJOR, NCCL_MINOR);
  const std::string library = c10d::getNcclVersion();
  require(library.starts_with(header),
          "this program was compiled with the header of NCCL {}x, but libtorch holds NCCL {}: build it with "
          "-DSINEW_NCCL_INCLUDE naming the folder of that version's nccl.h",
          header, library);
  return std::make_shared<NcclEndpoint>(store, options);
}
#else
std::shared_ptr<Endpoint> connect_nccl(const c10::intrusive_ptr<c10d::Store>& /*store*/,
                                       const EndpointOptions& options) {
  if (options.size == 1) return alone(options.device);
  fail(
      "{} GPUs speak over NCCL, and this libtorch was built without it: use --device cpu, or a libtorch with "
      "NCCL",
      options.size);
}
#endif

}  // namespace sinew
