// Throughput of tokenizers. Usage: tokenizer_bench [TOKENIZER TEXT]; without arguments, a tokenizer
// trained on made-up words and the text it was trained on.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/files.hpp"
#include "base/random.hpp"
#include "base/threads.hpp"
#include "text/bpe_training.hpp"
#include "text/tokenizer.hpp"
#include "text/tokenizer_json.hpp"

namespace {

using namespace sinew;

// Words of two to ten letters, the n-th as frequent as 1/n (Zipf), and some punctuation.
std::string made_up_text(std::size_t bytes) {
  const Random random(1, "bench text");
  std::vector<std::string> words;
  std::uint64_t n = 0;
  for (int w = 0; w < 30000; ++w) {
    std::string word;
    for (std::uint64_t left = 2 + random.below(n++, 9); left > 0; --left)
      word += static_cast<char>('a' + random.below(n++, 26));
    words.push_back(word);
  }
  std::string text;
  while (text.size() < bytes) {
    const double u = random.uniform(n++);
    text += words[static_cast<std::size_t>(std::pow(static_cast<double>(words.size()), u)) - 1];
    text += n % 17 == 0 ? ",\n" : " ";
  }
  return text;
}

void report(const char* what, const std::string& kind, int threads, std::size_t bytes, std::size_t tokens,
            std::vector<double> times) {
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2];
  fmt::print(
      "{{\"bench\":\"tokenizer\",\"what\":\"{}\",\"tokenizer\":\"{}\",\"threads\":{},\"MB_per_s\":{:.1f},"
      "\"Mtokens_per_s\":{:.2f},\"best_s\":{:.4f},\"median_s\":{:.4f},\"worst_s\":{:.4f}}}\n",
      what, kind, threads, static_cast<double>(bytes) / 1e6 / median,
      static_cast<double>(tokens) / 1e6 / median, times.front(), median, times.back());
}

}  // namespace

int main(int argc, char** argv) {
  std::string text = argc > 2 ? read_file(argv[2]) : made_up_text(16 << 20);
  std::unique_ptr<Tokenizer> tokenizer;
  if (argc > 2) {
    tokenizer = load_tokenizer(argv[1]);
  } else {
    BpeTrainingOptions options;
    options.vocab_size = 16384;
    TrainedBpe bpe;
    const double time = seconds_of([&] {
      WordCounter counter(options.special_tokens);
      std::vector<Document> documents;
      for (std::size_t at = 0; at < text.size(); at += 1 << 20)
        documents.push_back({text.substr(at, 1 << 20), 0, 0});
      counter.count(documents);
      bpe = train_bpe(counter.take(), options);
    });
    report("train", "byte-level BPE", default_threads(), text.size(), bpe.merges.size(), {time});
    tokenizer = parse_tokenizer_json(write_tokenizer_json(bpe), "", "trained");
  }
  std::vector<std::string_view> documents;  // of 8 KiB, as a corpus has them
  for (std::size_t at = 0; at < text.size(); at += 8192)
    documents.push_back(std::string_view(text).substr(at, 8192));
  std::vector<TokenId> ids;
  std::vector<double> whole, one, decode;
  std::size_t tokens = 0;
  for (int round = 0; round < 5; ++round) {
    whole.push_back(seconds_of([&] { ids = tokenizer->encode(text); }));
    one.push_back(seconds_of([&] {
      tokens = 0;
      for (const auto document : documents) tokens += tokenizer->encode(document).size();
    }));
    decode.push_back(seconds_of([&] { tokenizer->decode(ids); }));
  }
  report("encode one text", tokenizer->kind(), default_threads(), text.size(), ids.size(), whole);
  report("encode documents of 8 KiB", tokenizer->kind(), 1, text.size(), tokens, one);
  report("decode", tokenizer->kind(), 1, text.size(), ids.size(), decode);
  return 0;
}
