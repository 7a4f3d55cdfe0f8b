#include "quant/quantize_model.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/progress.hpp"
#include "base/text.hpp"
#include "base/threads.hpp"
#include "quant/allocate.hpp"
#include "quant/gguf_export.hpp"
#include "quant/quantize_rows.hpp"
#include "quant/recipe.hpp"

namespace sinew {
namespace {

// What the allocation chooses from, by rising size.
constexpr std::array kCandidates{BlockFormat::q2_k, BlockFormat::q3_k, BlockFormat::iq4_xs, BlockFormat::q4_k,
                                 BlockFormat::q5_k, BlockFormat::q6_k, BlockFormat::q8_0};

// Bytes of the file that are not tensor data, with every tensor padded to the alignment.
std::uint64_t overhead_bytes(const ModelSource& source) {
  std::uint64_t bytes = source.metadata.bytes().size() + 256;
  for (const SourceTensor& tensor : source.tensors) bytes += tensor.name.size() + 60 + 32;
  return bytes;
}

// Sums that come in from several threads in any order, added up in the order of the rows.
class ErrorSums {
 public:
  explicit ErrorSums(std::size_t tensors) : parts_(tensors) {}
  void add(std::size_t tensor, std::int64_t first, double error, double size) {
    const std::lock_guard lock(mutex_);
    parts_[tensor].push_back({first, error, size});
  }
  double relative(std::size_t tensor) {
    auto& parts = parts_[tensor];
    std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.first < b.first; });
    double error = 0, size = 0;
    for (const Part& part : parts) {
      error += part.error;
      size += part.size;
    }
    return size > 0 ? std::sqrt(error / size) : 0;
  }

 private:
  struct Part {
    std::int64_t first;
    double error, size;
  };
  std::mutex mutex_;
  std::vector<std::vector<Part>> parts_;
};

void squared_sums(const float* values, const float* rounded, std::size_t count, double* error, double* size) {
  for (std::size_t i = 0; i < count; ++i) {
    const double difference = static_cast<double>(rounded[i]) - values[i];
    *error += difference * difference;
    *size += static_cast<double>(values[i]) * values[i];
  }
}

// The formats that make the sum of relative squared errors least within the budget. Without a calibration
// every matrix counts alike, for each adds noise of its own relative error to what passes through it.
std::vector<BlockFormat> allocated_formats(const QuantizeOptions& options, const ModelSource& source) {
  std::vector<TensorChoices> choices(source.tensors.size());
  Progress progress("Measuring tensors", source.tensors.size(), "tensors");
  std::size_t done = 0;
  std::mutex mutex;
  parallel_for(source.tensors.size(), 1, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      const SourceTensor& tensor = source.tensors[i];
      choices[i].formats = candidate_formats(tensor);
      for (const BlockFormat format : choices[i].formats)
        choices[i].costs.push_back(choices[i].formats.size() > 1 ? sampled_error(tensor, format) : 0);
      const std::lock_guard lock(mutex);
      progress.update(++done);
    }
  });
  progress.finish();
  return pick_formats(source, choices, byte_budget(options, source));
}

}  // namespace

std::uint64_t tensor_bytes(const SourceTensor& tensor, BlockFormat format) {
  return static_cast<std::uint64_t>(tensor.rows.rows) *
         block_bytes(format, static_cast<std::size_t>(tensor.rows.cols));
}

std::vector<BlockFormat> candidate_formats(const SourceTensor& tensor) {
  if (!quantizable(tensor)) return {BlockFormat::f32};
  std::vector<BlockFormat> out;
  for (const BlockFormat candidate : kCandidates) {
    const BlockFormat format = fitting_format(candidate, tensor.rows.cols);
    if (std::find(out.begin(), out.end(), format) == out.end()) out.push_back(format);
  }
  return out;
}

double weights_of(const ModelSource& source) {
  double all = 0;
  for (const SourceTensor& tensor : source.tensors) all += static_cast<double>(tensor.elements());
  return all;
}

std::uint64_t byte_budget(const QuantizeOptions& options, const ModelSource& source) {
  if (options.size) {
    const std::uint64_t overhead = overhead_bytes(source);
    return *options.size > overhead ? *options.size - overhead : 0;
  }
  return static_cast<std::uint64_t>(*options.bits * weights_of(source) / 8);
}

std::vector<BlockFormat> pick_formats(const ModelSource& source, const std::vector<TensorChoices>& choices,
                                      std::uint64_t budget) {
  std::vector<std::vector<FormatChoice>> items(choices.size());
  std::uint64_t least = 0;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    std::uint64_t smallest = std::numeric_limits<std::uint64_t>::max();
    for (std::size_t k = 0; k < choices[i].formats.size(); ++k) {
      items[i].push_back({tensor_bytes(source.tensors[i], choices[i].formats[k]), choices[i].costs[k]});
      smallest = std::min(smallest, items[i].back().bytes);
    }
    least += smallest;
  }
  const std::vector<std::size_t> picks = allocate(items, budget);
  const auto bits = [&](std::uint64_t bytes) { return 8 * static_cast<double>(bytes) / weights_of(source); };
  require(!picks.empty(),
          "the model cannot be made as small as {} ({:.2f} bits a weight): rows that are not whole blocks of "
          "a format "
          "stay wide; give at least --bits {:.2f}",
          human_bytes(static_cast<double>(budget)), bits(budget), std::ceil(100 * bits(least)) / 100);
  std::vector<BlockFormat> out;
  for (std::size_t i = 0; i < picks.size(); ++i) out.push_back(choices[i].formats[picks[i]]);
  return out;
}

double sampled_error(const SourceTensor& tensor, BlockFormat format) {
  constexpr std::int64_t kRows = 64;
  const std::int64_t rows = std::min(kRows, tensor.rows.rows), cols = tensor.rows.cols;
  std::vector<float> values(static_cast<std::size_t>(cols)), rounded(values.size());
  std::vector<std::byte> bytes(block_bytes(format, values.size()));
  double error = 0, size = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    tensor.rows.read(i * tensor.rows.rows / rows, 1, values.data());
    quantize_rows(format, values.data(), 1, cols, nullptr, bytes.data());
    dequantize(format, bytes.data(), rounded.data(), rounded.size());
    squared_sums(values.data(), rounded.data(), values.size(), &error, &size);
  }
  return size > 0 ? error / size : 0;
}

QuantizeReport write_quantized(const ModelSource& source, const std::vector<BlockFormat>& formats,
                               const std::filesystem::path& out, const EncodeRows& encode) {
  ErrorSums sums(source.tensors.size());
  export_gguf(
      source, formats, out,
      [&](std::size_t index, const float* rows, std::int64_t first, std::int64_t count, std::byte* bytes) {
        const std::int64_t cols = source.tensors[index].rows.cols;
        if (encode)
          encode(index, rows, first, count, bytes);
        else
          quantize_rows(formats[index], rows, count, cols, nullptr, bytes);
        std::vector<float> rounded(static_cast<std::size_t>(count * cols));
        dequantize(formats[index], bytes, rounded.data(), rounded.size());
        double error = 0, size = 0;
        squared_sums(rows, rounded.data(), rounded.size(), &error, &size);
        sums.add(index, first, error, size);
      });
  QuantizeReport report;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < formats.size(); ++i) {
    const SourceTensor& tensor = source.tensors[i];
    report.tensors.push_back(
        {tensor.name, formats[i], tensor.elements(), tensor_bytes(tensor, formats[i]), sums.relative(i)});
    report.elements += tensor.elements();
    bytes += report.tensors.back().bytes;
  }
  report.file_bytes = std::filesystem::file_size(out);
  report.bits_per_weight =
      8 * static_cast<double>(bytes) / static_cast<double>(std::max<std::int64_t>(1, report.elements));
  return report;
}

QuantizeReport quantize_model(const QuantizeOptions& options) {
  check_quantize_options(options);
  const ModelSource source = open_model_source(options.source, options.gguf);
  const std::vector<BlockFormat> formats =
      options.type.empty() ? allocated_formats(options, source) : recipe_formats(source, options.type);
  const QuantizeReport report = write_quantized(source, formats, options.out, {});
  if (!options.report.empty()) write_file_atomic(options.report, report.json());
  return report;
}

void check_quantize_options(const QuantizeOptions& options, bool another_way) {
  const int ways = (options.type.empty() ? 0 : 1) + (options.bits ? 1 : 0) + (options.size ? 1 : 0) +
                   (another_way ? 1 : 0);
  require(ways == 1, "quantize: give one of --type, --bits, --size and --max-kl");
  require(!options.bits || (*options.bits >= 1 && *options.bits <= 32),
          "quantize: --bits {} is out of range (1 to 32)", options.bits.value_or(0));
  require(options.force || !std::filesystem::exists(options.out), "{}: already there (--force replaces it)",
          options.out.string());
}

std::string QuantizeReport::json() const {
  nlohmann::ordered_json out = {
      {"file_bytes", file_bytes}, {"elements", elements}, {"bits_per_weight", bits_per_weight}};
  out["tensors"] = nlohmann::ordered_json::array();
  for (const TensorReport& tensor : tensors) {
    out["tensors"].push_back({{"name", tensor.name},
                              {"format", block_info(tensor.format).name},
                              {"elements", tensor.elements},
                              {"bytes", tensor.bytes},
                              {"relative_error", tensor.relative_error}});
  }
  return out.dump(2) + "\n";
}

std::uint64_t parse_size(const std::string& text) {
  std::size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  const std::string unit = text.substr(used);
  double factor = 0;
  for (const auto& [name, size] :
       {std::pair{"", 1.0}, std::pair{"K", 1e3}, std::pair{"M", 1e6}, std::pair{"G", 1e9},
        std::pair{"T", 1e12}, std::pair{"KB", 1e3}, std::pair{"MB", 1e6}, std::pair{"GB", 1e9},
        std::pair{"KiB", 1024.0}, std::pair{"MiB", 0x1p20}, std::pair{"GiB", 0x1p30}}) {
    if (unit == name) factor = size;
  }
  require(used > 0 && factor > 0 && value > 0 && value * factor < 1e18,
          "'{}' is no size; write it like 9G, 700M or 4.5GiB", text);
  return static_cast<std::uint64_t>(value * factor);
}

}  // namespace sinew
