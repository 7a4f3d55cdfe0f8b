#include "train/batch.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <utility>

#include "base/error.hpp"
#include "model/balance.hpp"
#include "parallel/partition_of.hpp"
#include "parallel/pipeline.hpp"

namespace sinew {
namespace {

// Sums of scalar tensors; read once at the end, so that a GPU need not wait at every micro-batch.
class ScalarSum {
 public:
  void add(const at::Tensor& value, double weight) {
    if (!value.defined()) return;
    const at::Tensor part = value.detach().to(at::kDouble) * weight;
    sum_ = sum_.defined() ? sum_ + part : part;
  }
  double value() const { return sum_.defined() ? sum_.item<double>() : 0; }

 private:
  at::Tensor sum_;
};

}  // namespace

BatchTensors batch_tensors(const TokenBatch& batch, std::int64_t first, std::int64_t rows,
                           bool mask_documents, at::Device device) {
  const std::int64_t width = batch.sequence + 1;
  const auto rows_of = [&](const auto& values) {
    auto* const data = const_cast<std::int32_t*>(values.data()) + first * width;
    return at::from_blob(data, {rows, width}, at::kInt);  // read only, copied below
  };
  const at::Tensor ids = rows_of(batch.tokens).to(at::kLong);
  // Copies: of one row both would be views of the same memory.
  BatchTensors out{.tokens = ids.narrow(1, 0, batch.sequence).clone(at::MemoryFormat::Contiguous),
                   .targets = ids.narrow(1, 1, batch.sequence).clone(at::MemoryFormat::Contiguous),
                   .documents = {},
                   .counted = rows * batch.sequence};
  if (mask_documents) {
    const at::Tensor documents = rows_of(batch.documents);
    out.documents = documents.narrow(1, 0, batch.sequence).clone();
    const at::Tensor crosses = out.documents != documents.narrow(1, 1, batch.sequence);
    out.targets.masked_fill_(crosses, -100);
    out.counted -= crosses.sum().item<std::int64_t>();
    out.documents = out.documents.to(device);
  }
  out.tokens = out.tokens.to(device);
  out.targets = out.targets.to(device);
  return out;
}

namespace {

// The losses of the micro-batches this process has worked on, as shares of the whole batch.
struct LossSums {
  ScalarSum total, cross_entropy, balance, z, mtp;
  std::vector<RouterLoad> loads;

  void add(const LossOutput& loss, double share, double row_share) {
    total.add(loss.total, 1);
    cross_entropy.add(loss.cross_entropy, share);
    mtp.add(loss.mtp, share);
    balance.add(loss.balance, row_share);
    z.add(loss.z, row_share);
  }
  BatchLoss value() && {
    BatchLoss out;
    out.total = total.value();
    out.cross_entropy = cross_entropy.value();
    out.balance = balance.value();
    out.z = z.value();
    out.mtp = mtp.value();
    out.loads = std::move(loads);
    return out;
  }
};

// One process's rows of a batch, cut into micro-batches.
struct OwnRows {
  std::int64_t batch_rows = 0;  // of all processes
  std::vector<BatchTensors> parts{};
  std::vector<double> shares{};  // of the batch's targets
  std::int64_t counted = 0;
  double row_share(const BatchTensors& part) const {
    return static_cast<double>(part.tokens.size(0)) / static_cast<double>(batch_rows);
  }
};

OwnRows own_rows(const TokenBatch& batch, std::int64_t micro, bool mask_documents, at::Device device,
                 Mesh* mesh) {
  const std::int64_t replicas = mesh == nullptr ? 1 : mesh->batch()->size(), own = micro / replicas;
  ensure(replicas == 1 || (micro % replicas == 0 && batch.rows % own == 0),
         "{} rows of each replica in micro-batches of {} for {} replicas", batch.rows, micro, replicas);
  OwnRows out{.batch_rows = batch.rows * replicas};
  for (std::int64_t first = 0; first < batch.rows; first += own) {
    const auto rows = std::min(own, batch.rows - first);
    out.parts.push_back(batch_tensors(batch, first, rows, mask_documents, device));
    out.counted += out.parts.back().counted;
  }
  if (replicas > 1) {
    const auto sum = at::full({1}, out.counted, at::TensorOptions(at::kLong).device(device));
    if (mask_documents) {
      mesh->batch()->all_reduce(sum);
    } else {
      sum.mul_(replicas);
    }
    out.counted = sum.item<std::int64_t>();
  }
  for (const auto& part : out.parts)
    out.shares.push_back(static_cast<double>(part.counted) /
                         static_cast<double>(std::max<std::int64_t>(1, out.counted)));
  return out;
}

// A process's stages of the network in the pipeline.
class ModelStages : public StageModule {
 public:
  ModelStages(LanguageModel& model, Optimizer& optimizer, OwnRows& rows)
      : model_(model), optimizer_(optimizer), rows_(rows) {}

  StageFlow empty_flow(int micro_batch) const override {
    const auto& tokens = part(micro_batch).tokens;
    return model_.empty_flow(tokens.size(0), tokens.size(1));
  }
  StageResult forward(int chunk, int micro_batch, const StageFlow& in) override {
    const auto& p = part(micro_batch);
    const double share = rows_.shares[static_cast<std::size_t>(micro_batch)];
    const double row_share = rows_.row_share(p);
    auto out = model_.stage(static_cast<std::size_t>(chunk),
                            {p.tokens, p.targets, p.documents, share, row_share, in});
    sums_.add(out.loss, share, row_share);
    auto& loads = loads_[chunk];
    add_loads(loads, out.loss.loads);
    return {std::move(out.flow), out.loss.total};
  }
  void after_backward(int /*chunk*/, int /*micro_batch*/) override { optimizer_.accumulate(); }

  LossSums sums() && {
    for (auto& [chunk, loads] : loads_) sums_.loads.insert(sums_.loads.end(), loads.begin(), loads.end());
    return std::move(sums_);
  }

 private:
  const BatchTensors& part(int micro_batch) const {
    return rows_.parts[static_cast<std::size_t>(micro_batch)];
  }

  LanguageModel& model_;
  Optimizer& optimizer_;
  OwnRows& rows_;
  LossSums sums_;
  std::map<int, std::vector<RouterLoad>> loads_;  // by chunk
};

// Parts of all processes to the whole: one reduction for numbers, one for all loads.
void sum_over_processes(BatchLoss& loss, const ModelConfig& config, Mesh& mesh, at::Device device) {
  const auto world = mesh.world();
  const auto wide = at::TensorOptions(at::kDouble).device(device);
  const auto numbers =
      at::tensor({loss.total, loss.cross_entropy, loss.balance, loss.z, loss.mtp}, at::kDouble).to(device);
  world->all_reduce(numbers);
  const auto host = numbers.to(at::kCPU);
  const auto* const n = host.data_ptr<double>();
  loss.total = n[0];
  loss.cross_entropy = n[1];
  loss.balance = n[2];
  loss.z = n[3];
  loss.mtp = n[4];
  const auto experts = config.moe.n_routed_experts;
  if (experts == 0) return;
  // Counts are whole numbers far below 2^53: exact as doubles.
  const auto layers = config.num_hidden_layers + config.num_nextn_predict_layers;
  const auto table = at::zeros({layers, 2 * experts + 2}, wide);
  for (const auto& load : loss.loads) {
    auto row = table[load.layer];
    row.narrow(0, 0, experts).copy_(load.counts);
    row.narrow(0, experts, experts).copy_(load.score_sum);
    row[2 * experts] = static_cast<double>(load.dropped);
    row[2 * experts + 1] = 1;
  }
  world->all_reduce(table);
  loss.loads.clear();
  for (std::int64_t l = 0; l < layers; ++l) {
    const auto row = table[l];
    if (row[2 * experts + 1].item<double>() == 0) continue;
    loss.loads.push_back({.layer = l,
                          .counts = row.narrow(0, 0, experts).to(at::kLong),
                          .score_sum = row.narrow(0, experts, experts).to(at::kFloat),
                          .dropped = static_cast<std::int64_t>(row[2 * experts].item<double>())});
  }
}

}  // namespace

BatchLoss forward_backward(LanguageModel& model, Optimizer& optimizer, const TokenBatch& batch,
                           std::int64_t micro, bool mask_documents, at::Device device, Mesh* mesh) {
  auto rows = own_rows(batch, micro, mask_documents, device, mesh);
  LossSums sums;
  if (mesh != nullptr && mesh->extent(Axis::pipeline) > 1) {
    ModelStages stages(model, optimizer, rows);
    run_pipeline(schedule_of(mesh->layout(), rows.parts.size()), mesh->group(Axis::pipeline), stages);
    sums = std::move(stages).sums();
  } else {
    for (std::size_t i = 0; i < rows.parts.size(); ++i) {
      auto& part = rows.parts[i];
      const double row_share = rows.row_share(part);
      const LossOutput loss =
          model.loss(part.tokens, part.targets, part.documents, rows.shares[i], row_share);
      loss.total.backward();
      optimizer.accumulate();
      sums.add(loss, rows.shares[i], row_share);
      add_loads(sums.loads, loss.loads);
      part = {};
    }
  }
  optimizer.finish_gradients();
  BatchLoss out = std::move(sums).value();
  if (mesh != nullptr) sum_over_processes(out, model.config(), *mesh, device);
  return out;
}

}  // namespace sinew
