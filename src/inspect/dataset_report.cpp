// A data set of `sinew data`: every byte is checked.
#include "base/error.hpp"
#include "base/text.hpp"
#include "inspect/readers.hpp"
#include "text/dataset.hpp"

namespace sinew {
namespace {

void add_split(ReportBuilder& report, const char* name, const SplitInfo& split) {
  const double each =
      split.tokens > 0 ? static_cast<double>(split.bytes) / static_cast<double>(split.tokens) : 0;
  report.line("  {:<11} {:>15} tokens {:>12} documents {:>12} of text, {:.2f} bytes a token, {} shard{}",
              name, with_commas(split.tokens), with_commas(split.documents),
              human_bytes(static_cast<double>(split.bytes)), each, split.shards.size(),
              split.shards.size() == 1 ? "" : "s");
}

}  // namespace

Report inspect_data_set(const std::filesystem::path& path) {
  const DataSetInfo info = check_data_set(path);
  ReportBuilder report(path, "data set, all checksums hold");
  add_split(report, "train", info.train);
  add_split(report, "validation", info.validation);
  report.line("  {} ids of {} bytes each, end of text {}",
              with_commas(static_cast<std::uint64_t>(info.vocab_size)), info.token_bytes,
              info.eos ? std::to_string(*info.eos) : "none");
  if (info.duplicates > 0) report.line("  {} duplicate documents left out", with_commas(info.duplicates));
  report.json["data_set"] = to_json(info);
  add_tokenizer_facts(report, path / info.tokenizer, info.vocab_size);
  return report.finish();
}

}  // namespace sinew
