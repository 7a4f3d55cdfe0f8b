// Attention of one token over a cache that lies in memory as the engine keeps it, layer after layer:
//   decode_attention_bench [mla|gqa] [f32|f16|bf16|q8_0|q4_0] [tokens] [repeats] [layers]
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/clock.hpp"
#include "base/threads.hpp"
#include "kernels/chained_tasks.hpp"
#include "kernels/decode_attention.hpp"
#include "kernels/read_bandwidth.hpp"
#include "kernels/workspace.hpp"

using namespace sinew;

int main(int argc, char** argv) {
  const bool mla = argc < 2 || std::strcmp(argv[1], "mla") == 0;
  const BlockFormat format = argc < 3 ? BlockFormat::bf16 : find_block_format(argv[2])->format;
  const index_t tokens = argc < 4 ? 4096 : std::atoll(argv[3]);
  const int repeats = argc < 5 ? 12 : std::atoi(argv[4]);
  const index_t layers = argc > 5 ? std::atoll(argv[5])
                         : mla    ? 27
                                  : 22,
                heads = mla ? 1 : 4, group = mla ? 16 : 8, piece = 512;
  CacheRows cache{.format = format, .key = mla ? 576 : 64, .value = mla ? 512 : 64, .latent = mla};
  cache.key_bytes = block_bytes(format, static_cast<std::size_t>(cache.key));
  cache.value_bytes = block_bytes(format, static_cast<std::size_t>(cache.value));
  const std::size_t keys = kCachePage * cache.key_bytes,
                    part = keys + (mla ? 0 : kCachePage * cache.value_bytes);
  const index_t pages = (tokens + kCachePage - 1) / kCachePage, pieces = (tokens + piece - 1) / piece;
  const std::size_t bytes = part * static_cast<std::size_t>(layers * heads * pages);
  auto* const data = static_cast<std::byte*>(
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ::madvise(data, bytes, MADV_HUGEPAGE);
  std::memset(data, 0, bytes);
  std::vector<float> q(static_cast<std::size_t>(group * cache.key), 0.01F);
  std::vector<const float*> rows;
  for (index_t r = 0; r < group; ++r) rows.push_back(q.data() + r * cache.key);
  const std::size_t results = static_cast<std::size_t>(heads * pieces * decode_rows(group));
  const DecodeKernels& kernels = decode_kernels(active_isa(), format);
  Workspace::Frame frame(thread_workspace());
  auto *const top = frame.take<float>(results), *const sum = frame.take<float>(results);
  auto* const out = frame.take<float>(results * static_cast<std::size_t>(decode_columns(cache.value)));
  auto* const prepared = frame.take<std::byte>(kernels.query_bytes(cache, group));
  kernels.prepare(cache, 0.1F, group, rows.data(), prepared);
  std::vector<std::vector<CachePage>> lists(static_cast<std::size_t>(layers * heads));
  const std::vector<index_t> visible(static_cast<std::size_t>(group), piece);
  std::vector<std::vector<DecodePiece>> work(static_cast<std::size_t>(layers));
  for (index_t layer = 0; layer < layers; ++layer)
    for (index_t head = 0; head < heads; ++head) {
      auto& list = lists[static_cast<std::size_t>(layer * heads + head)];
      for (index_t page = 0; page < pages; ++page) {
        const std::byte* const at =
            data + part * static_cast<std::size_t>((layer * heads + head) * pages + page);
        list.push_back({at, mla ? at : at + keys});
      }
      for (index_t i = 0; i < pieces; ++i) {
        const std::size_t to = static_cast<std::size_t>((head * pieces + i) * decode_rows(group));
        work[static_cast<std::size_t>(layer)].push_back(
            {group, prepared, visible.data(), list.data() + i * piece / kCachePage,
             std::min(piece, tokens - i * piece), &top[to], &sum[to],
             &out[to * static_cast<std::size_t>(decode_columns(cache.value))]});
      }
    }
  std::vector<double> seconds;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    const double start = clock_seconds();
    for (const auto& layer : work)
      chained_tasks(static_cast<index_t>(layer.size()), [&](index_t i, index_t next) {
        kernels.attend(cache, layer[static_cast<std::size_t>(i)],
                       next < 0 ? nullptr : &layer[static_cast<std::size_t>(next)]);
      });
    seconds.push_back(clock_seconds() - start);
  }
  std::sort(seconds.begin(), seconds.end());
  fmt::print(
      "{{\"bench\": \"decode_attention\", \"shape\": \"{}\", \"format\": \"{}\", \"tokens\": {}, \"isa\": "
      "\"{}\", "
      "\"threads\": {}, \"bytes\": {}, \"ms\": {:.3f}, \"ms_best\": {:.3f}, \"gb_per_s\": {:.1f}, "
      "\"read_gb_per_s\": {:.1f}}}\n",
      mla ? "mla" : "gqa", block_info(format).name, tokens, isa_name(active_isa()), default_threads(), bytes,
      seconds[seconds.size() / 2] * 1e3, seconds[0] * 1e3, static_cast<double>(bytes) / seconds[0] / 1e9,
      read_bandwidth().bytes_per_second / 1e9);
}
