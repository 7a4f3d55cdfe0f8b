// Text that a network writes while it is trained, whatever its layout.
#pragma once

#include "comm/mesh.hpp"
#include "model/generate.hpp"

namespace sinew {

// generate() for a network of which each process may hold a part. With a mesh all processes call it with the
// same arguments and all get the same text. Where one process holds whole rows and all stages, text grows by
// a cache; else every token runs the text again through the pipeline.
Generation sample_text(LanguageModel& model, const std::vector<TokenId>& prompt,
                       const GenerateOptions& options, std::span<const std::int64_t> ends, at::Device device,
                       Mesh* mesh, const std::function<bool(TokenId)>& each = {});

}  // namespace sinew
