#include "model/logits_report.hpp"

#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/files.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

using nlohmann::json;

at::Tensor as_tensor(const TokenRows& rows) {
  std::vector<std::int64_t> flat;
  for (const auto& row : rows) flat.insert(flat.end(), row.begin(), row.end());
  return at::tensor(flat, at::kLong).view({static_cast<std::int64_t>(rows.size()), -1});
}

void write_rows(AtomicFile& file, const at::Tensor& logits) {
  const auto values = logits.to(at::kCPU, at::kFloat).contiguous();
  for (std::int64_t t = 0; t < values.size(0); ++t)
    write_json_row(file,
                   {values.data_ptr<float>() + t * values.size(1), static_cast<std::size_t>(values.size(1))},
                   t == 0, t + 1 == values.size(0));
}

void write_gradients(AtomicFile& file, const LanguageModel& model) {
  file.write(",\n\"grad_norms\": {");
  double squares = 0;
  bool first = true;
  for (const auto& parameter : model.parameters()) {
    if (parameter.buffer) continue;
    const auto& grad = parameter.tensor.grad();
    const double square = grad.defined() ? ordered_sum(grad.to(at::kDouble).square()).item<double>() : 0;
    squares += square;
    file.write(fmt::format("{}\n{}: ", first ? "" : ",", json(parameter.name).dump()));
    write_json_number(file, static_cast<float>(std::sqrt(square)));
    first = false;
  }
  file.write("},\n\"grad_total_norm\": ");
  write_json_number(file, static_cast<float>(std::sqrt(squares)));
}

}  // namespace

void write_logits_report(LanguageModel& model, const TokenRows& rows, const LogitsReportOptions& options,
                         at::Device device, const fs::path& out) {
  const bool loss = options.loss || options.grad_norms;
  require(!loss || rows[0].size() > 1, "the loss needs rows of two tokens or more");
  const auto tokens = as_tensor(rows).to(device);
  AtomicFile file(out);
  file.write("{\"logits\": [");
  {
    const at::NoGradGuard no_grad;
    for (std::int64_t b = 0; b < tokens.size(0); ++b) {
      if (b > 0) file.write(",\n");
      write_rows(file, model.logits(tokens.narrow(0, b, 1))[0]);
    }
  }
  file.write("]");
  if (loss) {
    auto targets = at::full_like(tokens, -100);
    targets.narrow(1, 0, tokens.size(1) - 1).copy_(tokens.narrow(1, 1, tokens.size(1) - 1));
    const at::AutoGradMode mode(options.grad_norms);
    BalanceOptions plain;
    plain.mtp_weight = 0;
    model.set_balance(plain);
    const auto result = model.loss(tokens, targets);
    file.write(",\n\"loss\": ");
    write_json_number(file, result.cross_entropy.item<float>());
    if (options.grad_norms) {
      torch::autograd::backward({result.total}, {});
      write_gradients(file, model);
    }
  }
  file.write("}\n");
  file.commit();
}

}  // namespace sinew
