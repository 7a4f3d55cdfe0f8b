// The kernels of quantized inference alone, against the limits measured in the same process:
//   quant_bench [decode|hot|prefill|experts] [format]    one JSON line a figure; SINEW_THREADS and SINEW_ISA
//   as ever
// Decode: GB/s of weights read and the share of the read bandwidth; prefill: operations a second and the
// share of the 8-bit peak. Weights are random bits, more of them than the caches hold.
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/team.hpp"
#include "base/threads.hpp"
#include "kernels/quant_experts.hpp"
#include "kernels/read_bandwidth.hpp"

namespace {

using namespace sinew;
double best_of(int passes, const std::function<void()>& body) {
  double best = 1e9;
  for (int i = 0; i < passes; ++i) best = std::min(best, seconds_of(body));
  return best;
}

// Memory for packed weights, filled once with bits that are harmless as scales: every fp16 is small.
struct Pool {
  explicit Pool(std::size_t bytes) : size(bytes) {
    data = static_cast<std::byte*>(
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ::madvise(data, bytes, MADV_HUGEPAGE);
    parallel_tasks(static_cast<std::ptrdiff_t>(bytes >> 20), [&](std::ptrdiff_t i) {
      std::memset(data + (i << 20), 0x13 + static_cast<int>(i % 7), 1 << 20);
    });
  }
  ~Pool() { ::munmap(data, size); }
  std::byte* data;
  std::size_t size;
};

std::string_view only;  // this format

void decode(const Pool& pool, bool hot) {
  const index_t cols = 2048, rows = hot ? 448 : 1408;
  std::vector<float> x(4 * cols, 0.3F), y(4 * rows);
  for (const BlockInfo& info : block_formats()) {
    if (!only.empty() && info.name != only) continue;
    if (!packable(info.format)) continue;
    const std::size_t bytes = packed_bytes(info.format, rows, cols), count = (std::size_t{1} << 30) / bytes;
    for (const index_t tokens : {1, 4}) {
      const double seconds = best_of(4, [&] {
        for (std::size_t i = 0; i < count; ++i) {
          const PackedMatrix w{info.format, rows, cols, pool.data + (hot ? 0 : i * bytes)};
          const QuantProduct p{&w, y.data(), rows, nullptr};
          quant_matmul(active_isa(), x.data(), cols, tokens, cols, {&p, 1});
        }
      });
      const double rate = static_cast<double>(bytes * count) / seconds;
      fmt::print(
          "{{\"bench\":\"quant_decode\",\"format\":\"{}\",\"tokens\":{},\"threads\":{},\"isa\":\"{}\","
          "\"gb_per_s\":{:.2f},\"share_of_bandwidth\":{:.3f}}}\n",
          info.name, tokens, default_threads(), isa_name(active_isa()), rate / 1e9,
          rate / read_bandwidth().bytes_per_second);
    }
  }
}

void prefill(const Pool& pool) {
  const index_t cols = 2048, rows = 2048;
  std::vector<float> x(512 * cols, 0.3F), y(512 * rows);
  for (const BlockInfo& info : block_formats()) {
    if (!only.empty() && info.name != only) continue;
    if (!packable(info.format)) continue;
    for (const index_t tokens : {48, 512}) {
      const std::size_t bytes = packed_bytes(info.format, rows, cols),
                        count = (std::size_t{128} << 20) / bytes;
      const double seconds = best_of(4, [&] {
        for (std::size_t i = 0; i < count; ++i) {
          const PackedMatrix w{info.format, rows, cols, pool.data + i * bytes};
          const QuantProduct p{&w, y.data(), rows, nullptr};
          quant_matmul(active_isa(), x.data(), cols, tokens, cols, {&p, 1});
        }
      });
      const double rate =
          2.0 * static_cast<double>(rows * cols * tokens) * static_cast<double>(count) / seconds;
      fmt::print(
          "{{\"bench\":\"quant_prefill\",\"format\":\"{}\",\"tokens\":{},\"threads\":{},\"isa\":\"{}\","
          "\"gop_per_s\":{:.0f},\"share_of_peak\":{:.3f},\"weights_gb_per_s\":{:.1f}}}\n",
          info.name, tokens, default_threads(), isa_name(active_isa()), rate / 1e9, rate / int8_peak(),
          static_cast<double>(bytes * count) / seconds / 1e9);
    }
  }
}

// The experts of a DeepSeek-V2-Lite layer: 64 of width 1408, 6 a token, and a shared one of 2816.
void experts(const Pool& pool) {
  const index_t hidden = 2048, width = 1408, count = 64, top_k = 6;
  const std::size_t up = packed_bytes(BlockFormat::q4_k, width, hidden),
                    down = packed_bytes(BlockFormat::q5_0, hidden, width);
  std::vector<PackedSwiglu> all;
  std::size_t used = 0;
  const auto take = [&](BlockFormat format, index_t rows, index_t cols) {
    const PackedMatrix w{format, rows, cols, pool.data + used};
    used += packed_bytes(format, rows, cols);
    return w;
  };
  while (used + 2 * count * (2 * up + down) < pool.size)
    for (index_t e = 0; e <= count; ++e) {
      const index_t n = e == count ? 2 * width : width;
      const PackedMatrix gate = take(BlockFormat::q4_k, n, hidden),
                         second = take(BlockFormat::q4_k, n, hidden);
      all.push_back({gate, second, take(e == count ? BlockFormat::q4_k : BlockFormat::q5_0, hidden, n)});
    }
  const auto layers = static_cast<index_t>(all.size()) / (count + 1);
  for (const index_t tokens : {1, 512}) {
    std::vector<float> x(static_cast<std::size_t>(tokens * hidden), 0.3F), y(x.size());
    std::vector<std::vector<std::int32_t>> chosen(static_cast<std::size_t>(count));
    for (index_t t = 0; t < tokens; ++t)
      for (index_t k = 0; k < top_k; ++k)
        chosen[static_cast<std::size_t>((t * 17 + k * 11) % count)].push_back(static_cast<std::int32_t>(t));
    double bytes = 0;
    const double seconds = best_of(4, [&] {
      bytes = 0;
      for (index_t layer = 0; layer < layers; ++layer) {
        std::vector<QuantExpertWork> work;
        const PackedSwiglu* const weights = all.data() + layer * (count + 1);
        for (index_t e = 0; e < count; ++e) {
          const auto& list = chosen[static_cast<std::size_t>(e)];
          if (list.empty()) continue;
          work.push_back({weights + e, list.data(), nullptr, static_cast<index_t>(list.size())});
          bytes += static_cast<double>(2 * up + down);
        }
        work.push_back({weights + count, nullptr, nullptr, tokens});
        bytes += static_cast<double>(2 * packed_bytes(BlockFormat::q4_k, 2 * width, hidden) +
                                     packed_bytes(BlockFormat::q4_k, hidden, 2 * width));
        quant_experts(active_isa(), x.data(), hidden, tokens, work, y.data(), hidden);
      }
    });
    const double ops = 2.0 * 3 * static_cast<double>(hidden * width * (top_k + 2) * tokens * layers);
    fmt::print(
        "{{\"bench\":\"quant_experts\",\"tokens\":{},\"threads\":{},\"isa\":\"{}\",\"layers\":{},"
        "\"ms_per_layer\":{:.3f},\"gb_per_s\":{:.2f},\"share_of_bandwidth\":{:.3f},\"gop_per_s\":{:.0f},"
        "\"share_of_peak\":{:.3f}}}\n",
        tokens, default_threads(), isa_name(active_isa()), layers,
        seconds / static_cast<double>(layers) * 1e3, bytes / seconds / 1e9,
        bytes / seconds / read_bandwidth().bytes_per_second, ops / seconds / 1e9,
        ops / seconds / int8_peak());
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view what = argc > 1 ? argv[1] : "all";
  if (argc > 2) only = argv[2];
  const ReadBandwidth reading = read_bandwidth();
  fmt::print(
      "{{\"bench\":\"limits\",\"threads\":{},\"isa\":\"{}\",\"read_gb_per_s\":{:.2f},\"streams\":{},"
      "\"prefetch\":{},\"int8_gop_per_s\":{:.0f}}}\n",
      default_threads(), isa_name(active_isa()), reading.bytes_per_second / 1e9, reading.pattern.streams,
      reading.pattern.far, int8_peak() / 1e9);
  const Pool pool(std::size_t{2} << 30);
  if (what == "decode" || what == "all") decode(pool, false);
  if (what == "hot") decode(pool, true);
  if (what == "prefill" || what == "all") prefill(pool);
  if (what == "experts" || what == "all") experts(pool);
}
