// Hugging Face's tokenizer.json (https://github.com/huggingface/tokenizers) with a BPE model.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "text/tokenizer.hpp"

namespace sinew {

// `config` is the text of the tokenizer_config.json beside it, or "": it names BOS and EOS and may
// say whether they are added. `origin` names the file in errors. Throws UserError on what is damaged
// or not supported.
std::unique_ptr<Tokenizer> parse_tokenizer_json(std::string_view json, std::string_view config,
                                                const std::string& origin);

}  // namespace sinew
