// Loader throughput: tokens a second handed out by one thread, with shards in the page cache.
// One JSON line a sequence length; "share_of_step" is of a training step at 100,000 tokens a second, far
// above what a CPU does.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/clock.hpp"
#include "base/files.hpp"
#include "base/random.hpp"
#include "text/dataset.hpp"
#include "text/loader.hpp"
#include "text/shard_writer.hpp"

using namespace sinew;

int main() {
  std::string pattern = (fs::temp_directory_path() / "sinew-bench-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) return 1;
  const fs::path dir = pattern;
  // 32 Mi tokens in documents of 20 to 2000.
  DataSetInfo info;
  info.vocab_size = 32'000;
  info.eos = 0;
  info.tokenizer = "none";
  {
    ShardWriter writer(dir, "train", 2, 8u << 20, {});
    const Random random(1, "bench");
    std::vector<TokenId> document;
    for (std::uint64_t n = 0, d = 0; n < (32u << 20); ++d) {
      document.resize(20 + random.below(d, 1980));
      for (std::size_t i = 0; i < document.size(); ++i)
        document[i] = static_cast<TokenId>((n + i) * 2654435761u % 32'000);
      writer.add(document, document.size() * 4);
      n += document.size();
    }
    info.train = writer.finish();
  }
  write_file_atomic(dir / kDataSetFile, to_json(info).dump());
  for (const std::int64_t sequence : {256, 2048}) {
    const Loader loader({.sources = {{dir, 1}}, .split = Split::train, .sequence = sequence, .seed = 1});
    const std::int64_t rows = 65'536 / sequence;
    std::vector<double> rates;
    std::int64_t sum = 0;
    for (std::uint64_t round = 0; round < 60; ++round) {
      const double begin = clock_seconds();
      const TokenBatch batch = loader.get(round * static_cast<std::uint64_t>(rows), rows);
      const double seconds = clock_seconds() - begin;
      sum += batch.tokens.back();
      rates.push_back(static_cast<double>(rows * sequence) / seconds);
    }
    std::sort(rates.begin(), rates.end());
    const double median = rates[rates.size() / 2];
    fmt::print(
        "{{\"bench\":\"loader\",\"sequence\":{},\"tokens_per_second\":{:.3e},\"p10\":{:.3e},\"p90\":{:.3e},"
        "\"share_of_step\":{:.5f},\"check\":{}}}\n",
        sequence, median, rates[rates.size() / 10], rates[rates.size() * 9 / 10], 1e5 / median, sum);
  }
  fs::remove_all(dir);
  return 0;
}
