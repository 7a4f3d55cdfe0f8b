// The tokenizer inside a GGUF file (ggml's docs/gguf.md, "Tokenizer"): models gpt2 and llama.
#pragma once

#include <memory>

#include "storage/gguf.hpp"
#include "text/tokenizer.hpp"

namespace sinew {

// Throws UserError when the file has no tokenizer, or one that is not supported.
std::unique_ptr<Tokenizer> make_gguf_tokenizer(const Gguf& file);

}  // namespace sinew
