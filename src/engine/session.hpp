// A model at work: a cache for its sequences and the forward pass over a batch of them, prefill and decoding
// mixed as they come.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/kv_cache.hpp"
#include "engine/layers.hpp"
#include "engine/model.hpp"
#include "text/tokenizer.hpp"

namespace sinew::engine {

struct SessionOptions {
  KvType kv = KvType::bf16;
  index_t cache_tokens = 4096;  // of all sequences together
  index_t batch_tokens = 512;   // that pass through the layers at once
  LatentForm form = LatentForm::automatic;
};

enum class Logits { none, last, all };  // of an input's tokens

// Tokens that follow those of their sequence.
struct Input {
  Sequence* sequence = nullptr;
  std::span<const TokenId> tokens;
  Logits logits = Logits::last;
  float* hidden =
      nullptr;  // [tokens, hidden]: the final norm's output of each token, for predict(); null: not wanted
};

// Hears the logits [vocab] of token `token` of input number `input`, in rising order of both.
using LogitsSink = std::function<void(std::size_t input, index_t token, std::span<const float> logits)>;

class Session {
 public:
  Session(std::shared_ptr<const Model> model, const SessionOptions& options);

  const Model& model() const { return *model_; }
  const SessionOptions& options() const { return options_; }
  const KvPool& pool() const { return *pool_; }
  Sequence make_sequence() { return Sequence(pool_); }

  // Runs the tokens of all inputs and adds them to their sequences. Throws UserError for ids outside the
  // vocabulary, more positions than the model has, a full cache (nothing is added then) and files that were
  // changed while in use.
  void forward(std::span<const Input> inputs, const LogitsSink& sink);
  // One input; the logits of its last token, valid until the next call.
  std::span<const float> forward(Sequence& sequence, std::span<const TokenId> tokens);

  // Prediction layer `depth` (DeepSeek-V3 section 2.2) at positions first .. of a sequence that holds them:
  // `hidden` [n, hidden] is what forward() (or the depth before) gave there, `next` the token after each.
  // Writes the layer's output [n, hidden] (may be `hidden` itself) and returns the logits of the token after
  // the last of `next`, valid until the next call.
  std::span<const float> predict(std::size_t depth, Sequence& sequence, index_t first,
                                 std::span<const TokenId> next, const float* hidden, float* out);

 private:
  void check(std::span<const Input> inputs) const;
  void run_chunk(std::span<const Input> inputs, const LogitsSink& sink);
  void embed(std::span<const Input> inputs, float* x) const;
  void positions(std::span<const QueryRun> runs, float* cos, float* sin) const;
  void copy_hidden(std::span<const Input> inputs, const float* x) const;
  void output(std::span<const Input> inputs, const float* x, const LogitsSink& sink);

  std::shared_ptr<const Model> model_;
  SessionOptions options_;
  std::shared_ptr<KvPool> pool_;
  std::vector<double> frequencies_;
  double rope_factor_ = 1;
  // Kept between calls, so that decoding allocates nothing.
  LayerMemory memory_;
  std::vector<QueryRun> runs_;
  std::vector<std::size_t> input_of_;  // of each run
  std::vector<index_t> done_;          // tokens of each input that are in its sequence
  std::vector<float> logits_, last_;
};

}  // namespace sinew::engine
