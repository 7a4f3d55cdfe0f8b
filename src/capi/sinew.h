/* Sinew's inference engine for C: load a model, run tokens, read logits, draw text.
 *
 * Functions that can fail return NULL or a negative number; sinew_last_error() then says why, for the calling
 * thread. A model may be shared by sessions on different threads; a session belongs to one thread at a time.
 * Structs begin with their size, so that later versions can add fields. */
#ifndef SINEW_H
#define SINEW_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SINEW_API_VERSION 1

typedef struct sinew_model sinew_model;
typedef struct sinew_session sinew_session;

typedef struct {
  size_t size;        /* sizeof(sinew_session_options) */
  int64_t context;    /* tokens the session has room for; 0: 4096, or the model's longest if that is less */
  const char* kv;     /* cache: "f32", "f16", "bf16", "q8", "q4"; NULL: f32 for F32 weights, else bf16 */
  double temperature; /* 0: the likeliest token */
  int64_t top_k;      /* 0: all */
  double top_p;       /* 1: all */
  double min_p;       /* 0: all */
  double repetition_penalty; /* 1: none */
  uint64_t seed;
} sinew_session_options;

int sinew_api_version(void);
const char* sinew_last_error(void); /* "" when nothing has failed on this thread; valid until its next call */

/* A GGUF file or a Hugging Face directory with its tokenizer. Files are mapped and must not be changed. */
sinew_model* sinew_model_load(const char* path);
void sinew_model_free(sinew_model* model); /* after its sessions */
int64_t sinew_model_vocab_size(const sinew_model* model);
int64_t sinew_model_context(const sinew_model* model); /* the most tokens of one text */
/* Whether a token ends a text. */
int sinew_model_is_end(const sinew_model* model, int32_t token);

/* Ids of `bytes` bytes of text, into out[capacity]; with add_special also what a text begins with. Returns
 * how many there are; none is written when that is over `capacity`. */
int64_t sinew_tokenize(const sinew_model* model, const char* text, size_t bytes, int add_special,
                       int32_t* out, size_t capacity);
/* The bytes of `count` tokens, into out[capacity], without a zero at the end. Returns how many there are;
 * none is written when that is over `capacity`. */
int64_t sinew_detokenize(const sinew_model* model, const int32_t* tokens, size_t count, char* out,
                         size_t capacity);

sinew_session_options sinew_session_defaults(void);
/* options NULL: the defaults */
sinew_session* sinew_session_new(sinew_model* model, const sinew_session_options* options);
void sinew_session_free(sinew_session* session);
int64_t sinew_session_length(const sinew_session* session); /* tokens it holds */

/* Runs tokens after those it holds. 0, or negative. */
int sinew_session_feed(sinew_session* session, const int32_t* tokens, size_t count);
/* Logits [vocab_size] of the token after the last one fed; valid until the next feed. NULL before the first.
 */
const float* sinew_session_logits(const sinew_session* session);
/* The next token, drawn from those logits by the session's options. It is not fed. */
int32_t sinew_session_sample(sinew_session* session);
/* Forgets the tokens after the first `length`; feed at least one before the next logits. 0, or negative. */
int sinew_session_truncate(sinew_session* session, int64_t length);

/* Writes text after `prompt`: calls on_text(user, bytes, count) with whole characters as they come, until an
 * end token, max_tokens, a full context, or on_text returns 0. Returns the number of tokens drawn. */
typedef int (*sinew_text_callback)(void* user, const char* bytes, size_t count);
int64_t sinew_generate(sinew_session* session, const char* prompt, int64_t max_tokens,
                       sinew_text_callback on_text, void* user);

#ifdef __cplusplus
}
#endif

#endif
