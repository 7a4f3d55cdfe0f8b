#include "train/batch.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "model/balance.hpp"

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
  BatchTensors out{.tokens = ids.narrow(1, 0, batch.sequence).contiguous(),
                   .targets = ids.narrow(1, 1, batch.sequence).contiguous(),
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

BatchLoss forward_backward(LanguageModel& model, Optimizer& optimizer, const TokenBatch& batch,
                           std::int64_t micro, bool mask_documents, at::Device device) {
  std::vector<BatchTensors> parts;
  std::int64_t counted = 0;
  for (std::int64_t first = 0; first < batch.rows; first += micro) {
    parts.push_back(batch_tensors(batch, first, std::min(micro, batch.rows - first), mask_documents, device));
    counted += parts.back().counted;
  }
  ScalarSum total, cross_entropy, balance, z, mtp;
  BatchLoss out;
  for (auto& part : parts) {
    const double share =
        static_cast<double>(part.counted) / static_cast<double>(std::max<std::int64_t>(1, counted));
    const double row_share = static_cast<double>(part.tokens.size(0)) / static_cast<double>(batch.rows);
    const LossOutput loss = model.loss(part.tokens, part.targets, part.documents, share, row_share);
    loss.total.backward();
    optimizer.accumulate();
    total.add(loss.total, 1);
    cross_entropy.add(loss.cross_entropy, share);
    mtp.add(loss.mtp, share);
    balance.add(loss.balance, row_share);
    z.add(loss.z, row_share);
    add_loads(out.loads, loss.loads);
    part = {};
  }
  out.total = total.value();
  out.cross_entropy = cross_entropy.value();
  out.balance = balance.value();
  out.z = z.value();
  out.mtp = mtp.value();
  return out;
}

}  // namespace sinew
