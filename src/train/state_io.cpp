#include "train/state_io.hpp"

#include <ATen/ATen.h>

#include <csignal>

#include "base/error.hpp"
#include "base/log.hpp"
#include "train/fault.hpp"

namespace sinew {
namespace {

std::vector<SliceData> slices_of(const std::vector<StateTensor>& state, bool weights,
                                 std::vector<at::Tensor>& on_cpu) {
  std::vector<SliceData> slices;
  on_cpu.resize(state.size());
  for (std::size_t i = 0; i < state.size(); ++i) {
    if (state[i].name.starts_with("weight/") != weights) continue;
    const auto shape = state[i].tensor.sizes().vec();
    at::Tensor& copy = on_cpu[i];
    slices.push_back(
        {.name = state[i].name,
         .dtype = DType::F32,
         .shape = shape,
         .offset = std::vector<std::int64_t>(shape.size(), 0),
         .extent = shape,
         .bytes = [&copy, tensor = state[i].tensor] {
           copy = tensor.to(at::kCPU, at::kFloat).contiguous();  // no copy of what is there already
           return std::as_bytes(std::span(copy.data_ptr<float>(), static_cast<std::size_t>(copy.numel())));
         }});
  }
  return slices;
}

void remove_old(const fs::path& root, const RunConfig::Checkpoint& policy) {
  for (const std::int64_t step :
       checkpoints_to_remove(list_checkpoints(root), policy.keep_last, policy.keep_every))
    if (!remove_checkpoint(root, step))
      log::warn("{}: cannot remove this old checkpoint", checkpoint_path(root, step).string());
}

}  // namespace

fs::path save_checkpoint(const fs::path& root, const TrainingState& state, const Optimizer& optimizer,
                         const std::map<std::string, std::string>& other_files,
                         const RunConfig::Checkpoint& policy) {
  const auto tensors = optimizer.state();
  const auto maybe_die = [&](std::size_t) {
    if (fault("kill-save", state.step)) std::raise(SIGKILL);
  };
  const fs::path prepared = begin_checkpoint(root, state.step);
  try {
    std::vector<CheckpointPart> parts;
    for (const bool weights : {true, false}) {
      std::vector<at::Tensor> on_cpu;
      parts.push_back(write_checkpoint_part(prepared, weights ? "weights" : "optimizer", 0,
                                            slices_of(tensors, weights, on_cpu), maybe_die));
    }
    const fs::path done = commit_checkpoint(prepared, state, parts, other_files);
    remove_old(root, policy);
    return done;
  } catch (const IoError&) {
    std::error_code ignored;
    fs::remove_all(prepared, ignored);
    throw;
  }
}

void load_checkpoint(const CheckpointReader& reader, Optimizer& optimizer) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : optimizer.state()) {
    const CheckpointTensor* saved = reader.find(name);
    require(saved != nullptr, "{}: holds no {}; was it written by another optimizer or model?",
            reader.path().string(), name);
    require(saved->dtype == DType::F32 && tensor.sizes().equals(saved->shape),
            "{}: {} has another shape than the model's", reader.path().string(), name);
    const at::Tensor whole = at::empty(tensor.sizes(), at::kFloat);
    reader.read_all(*saved, reinterpret_cast<std::byte*>(whole.data_ptr<float>()));
    tensor.copy_(whole);
  }
  check_mapped_files();
  optimizer.set_updates(reader.state().updates);
  optimizer.weights_from_masters();
}

}  // namespace sinew
