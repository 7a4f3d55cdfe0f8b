#include "comm/nccl_endpoint.hpp"

#include "base/error.hpp"

#ifdef SINEW_NCCL
#define USE_C10D_NCCL 1
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

namespace sinew {

#ifdef SINEW_NCCL
namespace {

class NcclMessage : public Work {
 public:
  NcclMessage(c10::intrusive_ptr<c10d::Work> work, at::Tensor held)
      : work_(std::move(work)), held_(std::move(held)) {}
  void wait() override {
    if (!work_) return;
    const auto work = std::move(work_);
    work->wait();  // makes the current stream wait, not the host
  }

 private:
  c10::intrusive_ptr<c10d::Work> work_;
  at::Tensor held_;
};

class NcclEndpoint : public Endpoint {
 public:
  NcclEndpoint(const c10::intrusive_ptr<c10d::Store>& store, const EndpointOptions& o) : Endpoint(o) {
    const auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(o.timeout * 1000);
    backend_ = c10::make_intrusive<c10d::ProcessGroupNCCL>(
        c10::make_intrusive<c10d::PrefixStore>(fmt::format("sinew/{}", o.generation), store), o.rank, o.size,
        options);
  }
  WorkPtr send(const at::Tensor& x, int to, int tag) override {
    std::vector<at::Tensor> list{x.detach()};
    return std::make_shared<NcclMessage>(backend_->send(list, to, tag), list[0]);
  }
  WorkPtr receive(const at::Tensor& x, int from, int tag) override {
    std::vector<at::Tensor> list{x.detach()};
    return std::make_shared<NcclMessage>(backend_->recv(list, from, tag), list[0]);
  }
  void begin_batch() override { c10d::ProcessGroupNCCL::groupStart(); }
  void end_batch() override { c10d::ProcessGroupNCCL::groupEnd(); }

 private:
  c10::intrusive_ptr<c10d::ProcessGroupNCCL> backend_;
};

}  // namespace

std::shared_ptr<Endpoint> connect_nccl(const c10::intrusive_ptr<c10d::Store>& store,
                                       const EndpointOptions& options) {
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
