// Documents out of a corpus of files, one at a time, in an order that depends on the files alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/input_stream.hpp"

namespace sinew {

struct DocumentOptions {
  // Where a text file is cut into documents:
  //   "auto"        at form feeds or "<|endoftext|>" if the file's first MiB has one, else "paragraphs"
  //   "paragraphs"  at a blank line, once the document has kParagraphs bytes
  //   "blank"       at every run of blank lines
  //   "file"        nowhere
  //   other         at this text; \n \t \f \\ are understood
  // A document is what lies between, without line ends at its own ends ("file" keeps them).
  std::string separator = "auto";
  // In .jsonl, .ndjson and .json files (one object a line): the field that holds the text. One that
  // begins with "/" is a JSON pointer.
  std::string field = "text";
  // Longer documents are cut at the last line end (else character) before this size, which bounds memory.
  std::size_t max_document = std::size_t{1} << 20;
};
constexpr std::size_t kParagraphs = 2048;

struct Document {
  std::string text;
  std::size_t file = 0;    // index in DocumentReader::files()
  std::uint64_t line = 0;  // where it begins, from 1
};

// The files of `inputs` in reading order: files as named; for a directory the files under it, sorted by
// path, without hidden ones, .json (never JSONL by convention) and those that look binary. Throws
// UserError when something is missing or nothing is left.
std::vector<std::filesystem::path> corpus_files(const std::vector<std::filesystem::path>& inputs);

class DocumentReader {
 public:
  explicit DocumentReader(std::vector<std::filesystem::path> files, DocumentOptions options = {});

  // The next document that is not empty; false at the end. Throws UserError with file and line.
  bool next(Document& document);

  const std::vector<std::filesystem::path>& files() const { return files_; }
  std::uint64_t bytes_total() const { return bytes_total_; }  // of the files as they are on disk
  std::uint64_t bytes_read() const;

 private:
  bool open_next_file();
  bool fill();                             // more bytes into buffer_; false at the end of the file
  bool take_line(std::string_view& line);  // with its '\n'; a piece of it when very long
  void read_json_line(std::string_view line);
  void read_text_line(std::string_view line);
  void end_text();
  void emit(std::string_view text, std::uint64_t line);

  enum class Cut { paragraphs, blank, file, text, json };

  std::vector<std::filesystem::path> files_;
  DocumentOptions options_;
  std::uint64_t bytes_total_ = 0, bytes_before_ = 0;

  std::unique_ptr<InputStream> stream_;
  std::size_t next_file_ = 0;
  Cut cut_ = Cut::paragraphs;
  std::string separator_;
  std::string buffer_;
  std::size_t at_ = 0;  // first unused byte of buffer_
  std::uint64_t line_ = 0;
  bool whole_line_ = true;  // the last line taken ended in '\n'

  std::string text_;  // the document being gathered
  std::uint64_t text_line_ = 0;
  std::deque<Document> ready_;
};

}  // namespace sinew
