// What a file or folder that Sinew reads holds, and whether it is sound.
#pragma once

#include <filesystem>
#include <string>

namespace sinew {

struct InspectOptions {
  bool all_tensors = false;  // every tensor on a line of its own, instead of groups of alike ones
};

struct Report {
  std::string text;  // for people
  std::string json;  // the same as one JSON object
};

// `path`: a config.json or the name of a preset, a Hugging Face model directory (names and shapes of all
// tensors are checked against its config, its tokenizer against its vocabulary), a safetensors file or index,
// a GGUF file, a tokenizer file, a data set, a checkpoint or the folder of a
// run (of these every byte is read), metrics.jsonl. Throws UserError, one line, when it is none of these or
// damaged.
Report inspect(const std::filesystem::path& path, const InspectOptions& options = {});

}  // namespace sinew
