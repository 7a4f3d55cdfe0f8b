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

json parse_bounded(const std::string& text, const std::string& origin) {
  int depth = 0;
  const auto bounded = [&](int, json::parse_event_t event, json&) {
    if (event == json::parse_event_t::object_start || event == json::parse_event_t::array_start) ++depth;
    if (event == json::parse_event_t::object_end || event == json::parse_event_t::array_end) --depth;
    require(depth <= 32, "{}: nested too deeply", origin);
    return true;
  };
  auto parsed = json::parse(text, bounded, false);
  require(!parsed.is_discarded(), "{}: not valid JSON", origin);
  return parsed;
}

at::Tensor as_tensor(const TokenRows& rows) {
  std::vector<std::int64_t> flat;
  for (const auto& row : rows) flat.insert(flat.end(), row.begin(), row.end());
  return at::tensor(flat, at::kLong).view({static_cast<std::int64_t>(rows.size()), -1});
}

void write_number(AtomicFile& file, float value) {
  file.write(std::isfinite(value) ? fmt::format("{}", value) : std::string("null"));
}

// logits [T, V] as [[..], ..].
void write_rows(AtomicFile& file, const at::Tensor& logits) {
  const auto values = logits.to(at::kCPU, at::kFloat).contiguous();
  const auto* at = values.data_ptr<float>();
  for (std::int64_t t = 0; t < values.size(0); ++t) {
    file.write(t == 0 ? "[[" : ",\n[");
    for (std::int64_t v = 0; v < values.size(1); ++v) {
      if (v > 0) file.write(",");
      write_number(file, *at++);
    }
    file.write("]");
  }
  file.write("]");
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
    write_number(file, static_cast<float>(std::sqrt(square)));
    first = false;
  }
  file.write("},\n\"grad_total_norm\": ");
  write_number(file, static_cast<float>(std::sqrt(squares)));
}

}  // namespace

TokenRows read_token_rows(const fs::path& path) {
  const auto origin = path.string();
  auto parsed = parse_bounded(read_file(path), origin);
  if (parsed.is_object()) {
    require(parsed.contains("input_ids"), "{}: an object without \"input_ids\"", origin);
    parsed = json(parsed["input_ids"]);
  }
  require(parsed.is_array() && !parsed.empty(), "{}: no rows of token ids; write [[id, ..], ..]", origin);
  TokenRows rows;
  for (const auto& row : parsed) {
    require(row.is_array() && !row.empty(), "{}: row {} is not a list of token ids", origin, rows.size());
    const auto width = rows.empty() ? row.size() : rows[0].size();
    require(row.size() == width, "{}: row {} has {} tokens, row 0 has {}; all must be equal", origin,
            rows.size(), row.size(), width);
    std::vector<std::int64_t> ids;
    for (const auto& id : row) {
      require(id.is_number_integer() && id >= 0 && id <= INT32_MAX,
              "{}: row {} holds {}, which is not a token id", origin, rows.size(),
              id.dump(-1, ' ', true, json::error_handler_t::replace).substr(0, 40));
      ids.push_back(id.get<std::int64_t>());
    }
    rows.push_back(std::move(ids));
  }
  return rows;
}

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
    write_number(file, result.cross_entropy.item<float>());
    if (options.grad_norms) {
      torch::autograd::backward({result.total}, {});
      write_gradients(file, model);
    }
  }
  file.write("}\n");
  file.commit();
}

}  // namespace sinew
