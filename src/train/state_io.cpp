#include "train/state_io.hpp"

#include <ATen/ATen.h>

#include <csignal>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/log.hpp"
#include "comm/rendezvous.hpp"
#include "config/model_config.hpp"
#include "storage/boxes.hpp"
#include "storage/checkpoint_manifest.hpp"
#include "train/fault.hpp"

namespace sinew {
namespace {

// The slices of `state` that this process writes; `on_cpu` keeps what they point to.
std::vector<SliceData> slices_of(const std::vector<StateTensor>& state, bool weights,
                                 std::vector<at::Tensor>& on_cpu) {
  std::vector<SliceData> slices;
  on_cpu.resize(state.size());
  for (std::size_t i = 0; i < state.size(); ++i) {
    if (!state[i].written || state[i].name.starts_with("weight/") != weights) continue;
    at::Tensor& copy = on_cpu[i];
    std::int64_t begin = 0;
    for (const Box& box : state[i].boxes) {
      const auto count = box.elements();
      slices.push_back({.name = state[i].name,
                        .dtype = DType::F32,
                        .shape = state[i].shape,
                        .offset = box.offset,
                        .extent = box.extent,
                        .bytes = [&copy, begin, count, tensor = state[i].tensor] {
                          if (!copy.defined())  // no copy of what is there already
                            copy = tensor.to(at::kCPU, at::kFloat).contiguous();
                          return std::as_bytes(
                              std::span(copy.data_ptr<float>() + begin, static_cast<std::size_t>(count)));
                        }});
      begin += count;
    }
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

namespace {

std::vector<CheckpointPart> write_own(const fs::path& prepared, const TrainingState& state,
                                      const Optimizer& optimizer, int rank) {
  const auto tensors = optimizer.state();
  const auto maybe_die = [&](std::size_t) {
    if (fault("kill-save", state.step)) std::raise(SIGKILL);
  };
  std::vector<CheckpointPart> parts;
  for (const bool weights : {true, false}) {
    std::vector<at::Tensor> on_cpu;
    parts.push_back(write_checkpoint_part(prepared, weights ? "weights" : "optimizer", rank,
                                          slices_of(tensors, weights, on_cpu), maybe_die));
  }
  return parts;
}

fs::path save_by_all(const fs::path& root, const TrainingState& state, const Optimizer& optimizer,
                     const std::map<std::string, std::string>& other_files,
                     const RunConfig::Checkpoint& policy, Mesh& mesh) {
  const bool first = mesh.rank() == 0;
  fs::path prepared = checkpoint_path(root, state.step);
  prepared += ".unfinished";
  try {
    together(*mesh.world(), first, [&] { begin_checkpoint(root, state.step); });
    std::string described;
    together(*mesh.world(), true,
             [&] { described = describe_parts(write_own(prepared, state, optimizer, mesh.rank())); });
    const auto all = gather_texts(*mesh.world(), described);
    together(*mesh.world(), first, [&] {
      std::vector<CheckpointPart> parts;
      for (const auto& text : all)
        for (auto& part : parse_parts(text)) parts.push_back(std::move(part));
      if (const auto config = other_files.find("config.json"); config != other_files.end())
        check_complete(parts, parse_model_config(config->second));
      commit_checkpoint(prepared, state, parts, other_files);
      remove_old(root, policy);
    });
  } catch (const IoError&) {
    std::error_code ignored;
    if (first) fs::remove_all(prepared, ignored);
    throw;
  }
  return checkpoint_path(root, state.step);
}

}  // namespace

void check_complete(const std::vector<CheckpointPart>& parts, const ModelConfig& config) {
  struct Held {
    std::vector<std::int64_t> shape;
    std::vector<Box> boxes;
  };
  std::map<std::string, Held> held;
  for (const auto& part : parts)
    for (const auto& tensor : part.tensors) {
      auto& one = held[tensor.name];
      one.shape = tensor.shape;
      for (const auto& slice : tensor.slices)
        one.boxes.push_back({.offset = slice.offset, .extent = slice.shape});
    }
  for (const auto& spec : tensor_specs(config)) {
    for (const char* kind : {"weight/", "first/"}) {
      if (spec.buffer && kind != std::string("weight/")) continue;
      const auto found = held.find(kind + spec.name);
      ensure(found != held.end() && found->second.shape == spec.shape, "no process holds {}{}", kind,
             spec.name);
    }
  }
  for (const auto& [name, one] : held) {
    const auto problem = tiling_problem(one.shape, one.boxes);
    ensure(problem.empty(), "the slices of {} that the processes hold {}", name, problem);
  }
}

fs::path save_checkpoint(const fs::path& root, const TrainingState& state, const Optimizer& optimizer,
                         const std::map<std::string, std::string>& other_files,
                         const RunConfig::Checkpoint& policy, Mesh* mesh) {
  if (mesh != nullptr) return save_by_all(root, state, optimizer, other_files, policy, *mesh);
  const fs::path prepared = begin_checkpoint(root, state.step);
  try {
    const fs::path done =
        commit_checkpoint(prepared, state, write_own(prepared, state, optimizer, 0), other_files);
    remove_old(root, policy);
    return done;
  } catch (const IoError&) {
    std::error_code ignored;
    fs::remove_all(prepared, ignored);
    throw;
  }
}

std::unique_ptr<CheckpointReader> open_for_all(const fs::path& root, Mesh* mesh) {
  std::unique_ptr<CheckpointReader> reader;
  const auto open = [&] {
    remove_unfinished_checkpoints(root);
    reader = open_newest_checkpoint(root, [](const std::string& why) {
      log::warn("damaged checkpoint: {}; trying the one before", why);
    });
  };
  if (mesh == nullptr) {
    open();
    return reader;
  }
  together(*mesh->world(), mesh->rank() == 0, open);
  const auto step =
      at::full({1}, reader ? reader->state().step : -1, at::kLong).to(mesh->endpoint().options().device);
  mesh->world()->broadcast(step, 0);
  const auto chosen = step.item<std::int64_t>();
  if (mesh->rank() != 0 && chosen >= 0)
    reader = std::make_unique<CheckpointReader>(checkpoint_path(root, chosen), FileCheck::sizes);
  return reader;
}

void load_checkpoint(const CheckpointReader& reader, Optimizer& optimizer) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor, shape, boxes, written] : optimizer.state()) {
    const CheckpointTensor* saved = reader.find(name);
    require(saved != nullptr, "{}: holds no {}; was it written by another optimizer or model?",
            reader.path().string(), name);
    require(saved->dtype == DType::F32 && shape == saved->shape, "{}: {} has another shape than the model's",
            reader.path().string(), name);
    const at::Tensor here = at::empty(tensor.sizes(), at::kFloat);
    std::int64_t begin = 0;
    for (const Box& box : boxes) {
      reader.read(*saved, box.offset, box.extent,
                  reinterpret_cast<std::byte*>(here.data_ptr<float>() + begin));
      begin += box.elements();
    }
    tensor.copy_(here);
  }
  check_mapped_files();
  optimizer.set_updates(reader.state().updates);
  optimizer.weights_from_masters();
}

}  // namespace sinew
