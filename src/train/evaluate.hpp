// The loss on held-out text.
#pragma once

#include <cstdint>
#include <optional>

#include "comm/mesh.hpp"
#include "model/language_model.hpp"
#include "text/loader.hpp"

namespace sinew {

struct Evaluation {
  double loss = 0;           // nats a token
  double bits_per_byte = 0;  // loss * tokens / (ln 2 * bytes of text): comparable across tokenizers
  std::int64_t tokens = 0;   // targets counted
};

// Over the first `samples` sequences, `rows` at a time; 0: the whole split. Empty when a stop signal came.
// With a mesh all processes call it and share the rows; a signal then waits for the end.
std::optional<Evaluation> evaluate(LanguageModel& model, const Loader& loader, std::int64_t samples,
                                   std::int64_t rows, bool mask_documents, at::Device device,
                                   Mesh* mesh = nullptr);

}  // namespace sinew
