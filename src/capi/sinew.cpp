#include "capi/sinew.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>

#include "base/error.hpp"
#include "engine/generate.hpp"
#include "engine/packing.hpp"
#include "text/text_stream.hpp"

using namespace sinew;

struct sinew_model {
  std::shared_ptr<engine::Model> model;
  std::unique_ptr<Tokenizer> tokenizer;
  std::vector<std::int64_t> ends;
};

struct sinew_session {
  sinew_model* model;
  engine::Session session;
  engine::Sequence sequence;
  engine::Sampler sampler;
  std::vector<float> logits;  // empty: none yet
};

namespace {

thread_local std::string last_error;

// body(), or `failed` with the error kept: nothing is thrown through C.
template <class Result, class Body>
Result guarded(Result failed, const Body& body) noexcept {
  try {
    last_error.clear();
    return body();
  } catch (const std::bad_alloc&) {
    last_error = "out of memory";
  } catch (const std::exception& error) {
    last_error = error.what();
  } catch (...) {
    last_error = "unknown error";
  }
  return failed;
}

template <class T>
T& given(T* pointer, const char* name) {
  require(pointer != nullptr, "{} is NULL", name);
  return *pointer;
}

engine::Sampling sampling_of(const sinew_session_options& o) {
  return {.temperature = o.temperature,
          .top_k = o.top_k,
          .top_p = o.top_p,
          .min_p = o.min_p,
          .repetition_penalty = o.repetition_penalty,
          .seed = o.seed};
}

template <class Source, class Element>
std::int64_t copy_out(const Source& source, Element* out, std::size_t capacity) {
  if (source.size() <= capacity) std::copy(source.begin(), source.end(), out);
  return static_cast<std::int64_t>(source.size());
}

}  // namespace

int sinew_api_version(void) { return SINEW_API_VERSION; }
const char* sinew_last_error(void) { return last_error.c_str(); }

sinew_model* sinew_model_load(const char* path) {
  return guarded<sinew_model*>(nullptr, [&] {
    const std::string where = &given(path, "path");
    auto out = std::make_unique<sinew_model>();
    out->model = engine::load_model(where);
    engine::pack_model(*out->model, {.file = engine::PackFile::read});
    out->tokenizer = load_tokenizer(where);
    out->ends = engine::end_tokens(out->model->config, *out->tokenizer);
    return out.release();
  });
}

void sinew_model_free(sinew_model* model) { delete model; }
int64_t sinew_model_vocab_size(const sinew_model* model) { return model->model->config.vocab_size; }
int64_t sinew_model_context(const sinew_model* model) { return model->model->config.max_position_embeddings; }
int sinew_model_is_end(const sinew_model* model, int32_t token) {
  return std::find(model->ends.begin(), model->ends.end(), token) != model->ends.end() ? 1 : 0;
}

int64_t sinew_tokenize(const sinew_model* model, const char* text, size_t bytes, int add_special,
                       int32_t* out, size_t capacity) {
  return guarded<int64_t>(-1, [&] {
    require(text != nullptr || bytes == 0, "text is NULL");
    return copy_out(given(model, "model").tokenizer->encode({text, bytes}, add_special != 0), out, capacity);
  });
}

int64_t sinew_detokenize(const sinew_model* model, const int32_t* tokens, size_t count, char* out,
                         size_t capacity) {
  return guarded<int64_t>(-1, [&] {
    require(tokens != nullptr || count == 0, "tokens is NULL");
    return copy_out(given(model, "model").tokenizer->decode({tokens, count}), out, capacity);
  });
}

sinew_session_options sinew_session_defaults(void) {
  return {sizeof(sinew_session_options), 0, nullptr, 0, 0, 1, 0, 1, 0};
}

sinew_session* sinew_session_new(sinew_model* model, const sinew_session_options* options) {
  return guarded<sinew_session*>(nullptr, [&] {
    sinew_session_options o = sinew_session_defaults();
    if (options != nullptr) std::memcpy(&o, options, std::min(options->size, sizeof o));
    const auto& weights = given(model, "model").model;
    engine::SessionOptions session;
    session.kv = o.kv != nullptr                  ? engine::parse_kv_type(o.kv)
                 : weights->embedding.plain_f32() ? engine::KvType::f32
                                                  : engine::KvType::bf16;
    require(o.context >= 0, "a context of {} tokens", o.context);
    session.cache_tokens =
        std::min<std::int64_t>(o.context > 0 ? o.context : 4096, weights->config.max_position_embeddings);
    engine::Session made(weights, session);
    engine::Sequence sequence = made.make_sequence();
    return new sinew_session{
        model, std::move(made), std::move(sequence), engine::Sampler(sampling_of(o)), {}};
  });
}

void sinew_session_free(sinew_session* session) { delete session; }
int64_t sinew_session_length(const sinew_session* session) { return session->sequence.length(); }

int sinew_session_feed(sinew_session* session, const int32_t* tokens, size_t count) {
  return guarded(-1, [&] {
    sinew_session& s = given(session, "session");
    require(tokens != nullptr && count > 0, "no tokens to run");
    const auto logits = s.session.forward(s.sequence, {tokens, count});
    s.logits.assign(logits.begin(), logits.end());
    for (size_t i = 0; i < count; ++i) s.sampler.accept(tokens[i]);
    return 0;
  });
}

const float* sinew_session_logits(const sinew_session* session) {
  return session->logits.empty() ? nullptr : session->logits.data();
}

int32_t sinew_session_sample(sinew_session* session) {
  return guarded<int32_t>(-1, [&] {
    sinew_session& s = given(session, "session");
    require(!s.logits.empty(), "no tokens have been run");
    return s.sampler.sample(s.logits);
  });
}

int sinew_session_truncate(sinew_session* session, int64_t length) {
  return guarded(-1, [&] {
    sinew_session& s = given(session, "session");
    require(length >= 0 && length <= s.sequence.length(), "truncate to {} of {} tokens", length,
            s.sequence.length());
    s.sequence.truncate(length);
    s.sampler.truncate(static_cast<std::size_t>(length));
    s.logits.clear();
    return 0;
  });
}

int64_t sinew_generate(sinew_session* session, const char* prompt, int64_t max_tokens,
                       sinew_text_callback on_text, void* user) {
  return guarded<int64_t>(-1, [&] {
    sinew_session& s = given(session, "session");
    const std::string text = &given(prompt, "prompt");
    const Tokenizer& tokenizer = *s.model->tokenizer;
    const auto ids = s.sequence.length() == 0 ? prompt_tokens(tokenizer, text, s.model->model->config)
                                              : tokenizer.encode(text);
    TextStream stream(tokenizer);
    const auto say = [&](const std::string& piece) {
      return piece.empty() || on_text == nullptr || on_text(user, piece.data(), piece.size()) != 0;
    };
    const auto made = engine::generate(s.session, s.sequence, ids, s.sampler, max_tokens, s.model->ends,
                                       [&](TokenId id) { return say(stream.push(id)); });
    say(stream.finish());
    s.logits.clear();
    return static_cast<int64_t>(made.tokens.size());
  });
}
