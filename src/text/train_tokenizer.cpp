#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/log.hpp"
#include "base/progress.hpp"
#include "base/signals.hpp"
#include "base/text.hpp"
#include "base/threads.hpp"
#include "text/bpe_training.hpp"
#include "text/byte_level.hpp"

namespace sinew {
namespace {

using nlohmann::ordered_json;

constexpr std::size_t kBatchBytes = std::size_t{8} << 20;  // of text counted at a time, for each thread

std::string byte_level(bool add_prefix_space, bool trim_offsets) {
  return ordered_json{{"type", "ByteLevel"},
                      {"add_prefix_space", add_prefix_space},
                      {"trim_offsets", trim_offsets},
                      {"use_regex", true}}
      .dump();
}

WordCounts count_words(const std::vector<fs::path>& inputs, const std::vector<std::string>& special_tokens,
                       const std::string& json_field) {
  DocumentOptions reading;
  reading.separator = "file";  // white space between documents is text too
  reading.field = json_field;
  DocumentReader reader(corpus_files(inputs), reading);
  Progress progress("Counting words", reader.bytes_total(), "bytes");
  WordCounter counter(special_tokens);
  const std::size_t batch_bytes = kBatchBytes * static_cast<std::size_t>(default_threads());
  std::vector<Document> batch;
  std::size_t size = 0;
  std::uint64_t total = 0;
  Document document;
  for (bool more = true; more;) {
    more = reader.next(document);
    if (more) {
      size += document.text.size();
      batch.push_back(std::move(document));
    }
    if (more && size < batch_bytes) continue;
    counter.count(batch);
    total += size;
    batch.clear();
    size = 0;
    progress.update(reader.bytes_read());
    require(stop_requested() == 0, "stopped: no tokenizer was written");
  }
  progress.finish();
  require(total > 0, "{}: the text is empty", inputs.front().string());
  return counter.take();
}

}  // namespace

// Written by hand, one entry a line: a JSON library's ordered object looks for each key it is given.
std::string write_tokenizer_json(const TrainedBpe& bpe) {
  const auto quoted = [](const std::string& text) { return nlohmann::json(text).dump(); };
  std::string added, vocab, merges;
  std::int64_t id = 0;
  const auto entry = [](std::string& list, const std::string& text) {
    list += (list.empty() ? "\n" : ",\n") + text;
  };
  for (const auto& text : bpe.special_tokens) {
    const ordered_json token = {{"id", id},        {"content", text}, {"single_word", false},
                                {"lstrip", false}, {"rstrip", false}, {"normalized", false},
                                {"special", true}};
    entry(added, "    " + token.dump());
    entry(vocab, fmt::format("      {}: {}", quoted(text), id++));
  }
  for (const auto& token : bpe.tokens)
    entry(vocab, fmt::format("      {}: {}", quoted(bytes_to_chars(token)), id++));
  for (const auto& [left, right] : bpe.merges)
    entry(merges, "      " + quoted(bytes_to_chars(left) + " " + bytes_to_chars(right)));
  return fmt::format(R"({{
  "version": "1.0",
  "truncation": null,
  "padding": null,
  "added_tokens": [{}],
  "normalizer": null,
  "pre_tokenizer": {},
  "post_processor": {},
  "decoder": {},
  "model": {{
    "type": "BPE",
    "dropout": null,
    "unk_token": null,
    "continuing_subword_prefix": null,
    "end_of_word_suffix": null,
    "fuse_unk": false,
    "byte_fallback": false,
    "ignore_merges": false,
    "vocab": {{{}}},
    "merges": [{}]
  }}
}}
)",
                     added, byte_level(false, true), byte_level(true, false), byte_level(true, true), vocab,
                     merges);
}

void train_tokenizer(const std::vector<fs::path>& inputs, const BpeTrainingOptions& options,
                     const std::string& json_field, const fs::path& out) {
  const WordCounts words = count_words(inputs, options.special_tokens, json_field);
  const auto wanted = static_cast<std::uint64_t>(options.vocab_size) - options.special_tokens.size() - 256;
  Progress progress("Merging", wanted, "merges");
  const TrainedBpe bpe = train_bpe(words, options, [&](std::uint64_t done) {
    progress.update(done);
    require(stop_requested() == 0, "stopped: no tokenizer was written");
  });
  progress.finish();
  if (bpe.merges.size() < wanted)
    log::warn("the text has only {} pairs to merge: the vocabulary has {} tokens, not {}",
              with_commas(bpe.merges.size()), with_commas(bpe.tokens.size() + bpe.special_tokens.size()),
              with_commas(wanted));
  write_file_atomic(out, write_tokenizer_json(bpe));
}

}  // namespace sinew
