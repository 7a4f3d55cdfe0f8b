#include "text/loader.hpp"

#include <algorithm>
#include <optional>

#include "base/error.hpp"
#include "base/random.hpp"
#include "text/dataset.hpp"
#include "text/mixture.hpp"

namespace sinew {
namespace {

// One data set: its split as a line of tokens, cut into samples of T + 1 that share their end token
// with the next one's first, so that every token is predicted once an epoch.
struct Source {
  MappedSplit split;
  std::uint64_t samples;
};

Source open_source(const DataSource& source, const DataSetInfo& info, Split which, std::int64_t sequence) {
  const bool train = which == Split::train;
  const SplitInfo& split = train ? info.train : info.validation;
  require(split.tokens > 0, "{}: no {} split; make the data set again{}", source.path.string(),
          train ? "training" : "validation", train ? " from more text" : " with --val-fraction above 0");
  MappedSplit mapped(source.path, info, split);
  const auto length = static_cast<std::uint64_t>(sequence);
  require(mapped.tokens() > length,
          "{}: the {} split has {} tokens, less than one sequence of {} + 1; use a shorter "
          "sequence or more text",
          source.path.string(), train ? "training" : "validation", mapped.tokens(), sequence);
  const std::uint64_t samples = (mapped.tokens() - 1) / length;
  return {std::move(mapped), samples};
}

}  // namespace

struct Loader::Impl {
  LoaderOptions options;
  std::vector<Source> sources;
  std::optional<Mixture> mixture;
  std::uint64_t samples = 0, tokens = 0, bytes = 0;
  std::int64_t vocab_size = 0;
  std::string tokenizer_checksum;

  // Sample n, written to `tokens` and `documents` [T + 1].
  void read(std::uint64_t n, std::span<TokenId> out, std::span<std::int32_t> documents) const {
    const auto [source, ordinal] = (*mixture)(n);
    const Source& from = sources[source];
    const std::uint64_t epoch = ordinal / from.samples;
    const std::uint64_t key = Random(options.seed, "data.order").bits(epoch * sources.size() + source);
    const std::uint64_t sample = Permutation(from.samples, key)(ordinal % from.samples);
    from.split.read(sample * static_cast<std::uint64_t>(options.sequence), out, documents);
  }
};

Loader::Loader(LoaderOptions options) : impl_(std::make_unique<Impl>()) {
  require(options.sequence > 0, "the sequence length must be at least 1, not {}", options.sequence);
  require(!options.sources.empty(), "no data set given; make one with `sinew data` and name it as data.path");
  std::vector<double> weights;
  for (const auto& source : options.sources) {
    const DataSetInfo info = read_data_set(source.path);
    if (impl_->tokenizer_checksum.empty()) impl_->tokenizer_checksum = info.tokenizer_checksum;
    require(info.tokenizer_checksum == impl_->tokenizer_checksum,
            "{}: made with another tokenizer than {}; data sets that are mixed must share one",
            source.path.string(), options.sources.front().path.string());
    impl_->vocab_size = info.vocab_size;
    impl_->sources.push_back(open_source(source, info, options.split, options.sequence));
    impl_->samples += impl_->sources.back().samples;
    impl_->tokens += impl_->sources.back().split.tokens();
    impl_->bytes += options.split == Split::train ? info.train.bytes : info.validation.bytes;
    weights.push_back(source.weight);
  }
  impl_->mixture.emplace(weights);
  impl_->options = std::move(options);
}

Loader::~Loader() = default;

TokenBatch Loader::get(std::uint64_t first, std::int64_t rows) const {
  const std::int64_t length = impl_->options.sequence;
  const auto width = static_cast<std::size_t>(length + 1);
  TokenBatch batch{.rows = rows, .sequence = length, .tokens = {}, .documents = {}};
  batch.tokens.resize(static_cast<std::size_t>(rows) * width);
  batch.documents.resize(batch.tokens.size());
  for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row)
    impl_->read(first + row, std::span(batch.tokens).subspan(row * width, width),
                std::span(batch.documents).subspan(row * width, width));
  return batch;
}

std::uint64_t Loader::samples_per_epoch() const { return impl_->samples; }
std::uint64_t Loader::tokens() const { return impl_->tokens; }
std::uint64_t Loader::bytes() const { return impl_->bytes; }
std::int64_t Loader::vocab_size() const { return impl_->vocab_size; }
std::string Loader::tokenizer_checksum() const { return impl_->tokenizer_checksum; }

}  // namespace sinew
