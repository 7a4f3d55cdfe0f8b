// Rows of token ids out of JSON files, and rows of numbers into them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "base/files.hpp"

namespace sinew {

using TokenRows = std::vector<std::vector<std::int64_t>>;

// Rows of token ids from a JSON file: [batch][T], or an object that holds them as "input_ids". Throws
// UserError naming the file for anything else, rows of different lengths included.
TokenRows read_token_rows(const std::filesystem::path& path);

// The shortest decimals that read back as the same float; null for what is no number.
void write_json_number(AtomicFile& file, float value);
// One row of a list of rows: "[[1,2],\n[3,4]]".
void write_json_row(AtomicFile& file, std::span<const float> row, bool first, bool last);

}  // namespace sinew
