#include "text/documents.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/text.hpp"

namespace sinew {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kRead = 256 * 1024;
constexpr std::size_t kPeek = std::size_t{1} << 20;      // what "auto" looks at; a text line's largest piece
constexpr std::size_t kJsonLine = std::size_t{1} << 28;  // longer is not JSONL
constexpr std::string_view kEndOfText = "<|endoftext|>";

bool looks_binary(const fs::path& path) {
  char head[8192];
  const std::size_t n = open_input(path)->read(head, sizeof head);
  return std::find(head, head + n, '\0') != head + n;
}

void add_directory(const fs::path& directory, std::vector<fs::path>& files) {
  std::vector<fs::path> found;
  std::error_code error;
  fs::recursive_directory_iterator at(directory, error), end;
  for (; !error && at != end; at.increment(error)) {
    const bool hidden = at->path().filename().native().starts_with('.');
    if (hidden && at->is_directory()) at.disable_recursion_pending();
    std::error_code gone;  // a link to nowhere is no file
    if (!hidden && at->is_regular_file(gone)) found.push_back(at->path());
  }
  if (error)
    throw IoError(fmt::format("{}: cannot read the directory: {}", directory.string(), error.message()));
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.native() < b.native(); });
  for (auto& file : found) {
    if (without_compression(file).extension() == ".json") {
      log::debug("{}: skipped, .json is no text (name the file to read it as JSON lines)", file.string());
    } else if (looks_binary(file)) {
      log::warn("{}: skipped, it looks binary", file.string());
    } else {
      files.push_back(std::move(file));
    }
  }
}

// \n, \t, \f and \\ in a separator given on a command line.
std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char next = text[i] == '\\' && i + 1 < text.size() ? text[i + 1] : '\0';
    const auto plain = std::string_view("ntf\\").find(next);
    if (next == '\0' || plain == std::string_view::npos) {
      out += text[i];
    } else {
      out += "\n\t\f\\"[plain];
      ++i;
    }
  }
  return out;
}

bool blank(std::string_view line) { return line.find_first_not_of(" \t\r\n") == std::string_view::npos; }

// Where to cut a text longer than `limit`: after its last line end before it, else between characters.
std::size_t cut_point(std::string_view text, std::size_t limit) {
  const auto newline = text.rfind('\n', limit - 1);
  if (newline != std::string_view::npos) return newline + 1;
  std::size_t cut = limit;
  while (cut > 0 && limit - cut < 4 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
  return cut > 0 && limit - cut < 4 ? cut : limit;
}

std::string field_names(const nlohmann::json& object, std::string_view wanted) {
  std::vector<std::string> names;
  for (const auto& [name, value] : object.items())
    if (value.is_string()) names.push_back(name);
  if (names.empty()) return "; it has no text fields";
  const std::string near = did_you_mean(wanted, names);
  if (names.size() > 8) names.resize(8);
  return near + "; its text fields: " + join(names, ", ") + " (choose one with --field)";
}

}  // namespace

std::vector<fs::path> corpus_files(const std::vector<fs::path>& inputs) {
  std::vector<fs::path> files;
  for (const auto& input : inputs) {
    std::error_code error;
    const auto status = fs::status(input, error);
    require(fs::exists(status), "{}: no such file or directory", input.string());
    if (fs::is_directory(status)) {
      const std::size_t before = files.size();
      add_directory(input, files);
      require(files.size() > before, "{}: no text files in this directory", input.string());
    } else {
      require(fs::is_regular_file(status),
              "{}: not a regular file; text is read more than once, so save it to a file first",
              input.string());
      files.push_back(input);
    }
  }
  require(!files.empty(), "no input files given");
  return files;
}

DocumentReader::DocumentReader(std::vector<fs::path> files, DocumentOptions options)
    : files_(std::move(files)), options_(std::move(options)) {
  require(!options_.separator.empty(),
          "--separator: an empty text separates nothing; use \"file\" to keep files whole");
  require(options_.max_document >= 16, "the longest document must be at least 16 bytes");
  separator_ = unescape(options_.separator);
  for (const auto& file : files_) {
    std::error_code error;
    const auto size = fs::file_size(file, error);
    if (error) throw IoError(fmt::format("{}: cannot open: {}", file.string(), error.message()));
    bytes_total_ += size;
  }
}

std::uint64_t DocumentReader::bytes_read() const {
  return bytes_before_ + (stream_ ? stream_->consumed() : 0);
}

bool DocumentReader::next(Document& document) {
  while (ready_.empty()) {
    if (!stream_ && !open_next_file()) return false;
    std::string_view line;
    if (take_line(line)) {
      cut_ == Cut::json ? read_json_line(line) : read_text_line(line);
    } else {
      end_text();
      bytes_before_ += stream_->consumed();
      stream_.reset();
    }
  }
  document = std::move(ready_.front());
  ready_.pop_front();
  return true;
}

bool DocumentReader::open_next_file() {
  if (next_file_ == files_.size()) return false;
  const fs::path& path = files_[next_file_++];
  stream_ = open_input(path);
  buffer_.clear();
  at_ = 0;
  line_ = 0;
  whole_line_ = true;
  while (buffer_.size() < kPeek && fill()) {
  }
  const std::string_view head = buffer_;
  require(!head.starts_with("\xFF\xFE") && !head.starts_with("\xFE\xFF"),
          "{}: looks like UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)", path.string());
  if (head.starts_with("\xEF\xBB\xBF")) at_ = 3;
  const fs::path kind = without_compression(path).extension();
  const std::string& want = options_.separator;
  const auto cut_at = [&](std::string_view text) {
    separator_ = text;
    return Cut::text;
  };
  if (kind == ".jsonl" || kind == ".ndjson" || kind == ".json")
    cut_ = Cut::json;
  else if (want == "file")
    cut_ = Cut::file;
  else if (want == "blank")
    cut_ = Cut::blank;
  else if (want == "paragraphs")
    cut_ = Cut::paragraphs;
  else if (want != "auto")
    cut_ = Cut::text;
  else if (head.find('\f') != std::string_view::npos)
    cut_ = cut_at("\f");
  else if (head.find(kEndOfText) != std::string_view::npos)
    cut_ = cut_at(kEndOfText);
  else
    cut_ = Cut::paragraphs;
  return true;
}

bool DocumentReader::fill() {
  if (at_ > 0) {
    buffer_.erase(0, at_);
    at_ = 0;
  }
  const std::size_t before = buffer_.size();
  buffer_.resize(before + kRead);
  const std::size_t n = stream_->read(buffer_.data() + before, kRead);
  buffer_.resize(before + n);
  return n > 0;
}

bool DocumentReader::take_line(std::string_view& line) {
  std::size_t searched = 0;
  if (whole_line_) ++line_;
  for (;;) {
    const auto newline = buffer_.find('\n', at_ + searched);
    if (newline != std::string::npos) {
      line = std::string_view(buffer_).substr(at_, newline + 1 - at_);
      whole_line_ = true;
      break;
    }
    searched = buffer_.size() - at_;
    if (cut_ != Cut::json && searched >= kPeek) {
      line = std::string_view(buffer_).substr(at_);
      whole_line_ = false;
      break;
    }
    require(searched < kJsonLine, "{}:{}: a line of over {}; is this JSON lines?",
            files_[next_file_ - 1].string(), line_, human_bytes(kJsonLine));
    if (fill()) continue;
    line = std::string_view(buffer_).substr(at_);
    whole_line_ = true;
    if (line.empty()) return false;
    break;
  }
  at_ += line.size();
  return true;
}

void DocumentReader::read_json_line(std::string_view line) {
  if (blank(line)) return;
  const std::string where = fmt::format("{}:{}", files_[next_file_ - 1].string(), line_);
  nlohmann::json object;
  try {
    object = nlohmann::json::parse(line);
  } catch (const nlohmann::json::exception& error) {
    std::string_view why = error.what();
    if (const auto bracket = why.find("] "); bracket != why.npos) why.remove_prefix(bracket + 2);
    if (const auto colon = why.find(": "); why.starts_with("parse error at") && colon != why.npos)
      why.remove_prefix(colon + 2);
    fail("{}: not JSON: {}", where, why.substr(0, 200));
  }
  require(object.is_object(), "{}: expected a JSON object, found {}", where, object.type_name());
  const std::string& name = options_.field;
  const nlohmann::json* field = nullptr;
  try {
    if (name.starts_with('/')) {
      const nlohmann::json::json_pointer pointer(name);
      if (object.contains(pointer)) field = &object.at(pointer);
    } else if (const auto found = object.find(name); found != object.end()) {
      field = &*found;
    }
  } catch (const nlohmann::json::exception&) {
    fail("--field \"{}\": not a JSON pointer", name);
  }
  require(field != nullptr, "{}: no field \"{}\"{}", where, name, field ? "" : field_names(object, name));
  require(field->is_string(), "{}: field \"{}\" is {}, not text", where, name, field->type_name());
  emit(field->get_ref<const std::string&>(), line_);
}

void DocumentReader::read_text_line(std::string_view line) {
  if (text_.empty()) text_line_ = line_;
  if (cut_ == Cut::text) {
    std::size_t from = text_.size() >= separator_.size() ? text_.size() - separator_.size() + 1 : 0;
    text_ += line;
    for (;;) {
      const auto found = text_.find(separator_, from);
      if (found == std::string::npos) break;
      emit(std::string_view(text_).substr(0, found), text_line_);
      text_.erase(0, found + separator_.size());
      text_line_ = line_;
      from = 0;
    }
  } else if (cut_ != Cut::file && blank(line)) {
    if (cut_ == Cut::blank || text_.size() >= kParagraphs) return end_text();
    if (!text_.empty()) text_ += line;
  } else {
    text_ += line;
  }
  while (text_.size() > options_.max_document) {
    const std::size_t cut = cut_point(text_, options_.max_document);
    emit(std::string_view(text_).substr(0, cut), text_line_);
    text_.erase(0, cut);
    text_line_ = line_;
  }
}

void DocumentReader::end_text() {
  emit(text_, text_line_);
  text_.clear();
}

// Queues a document, in pieces when it is too long.
void DocumentReader::emit(std::string_view text, std::uint64_t line) {
  const bool exact = cut_ == Cut::file || cut_ == Cut::json;
  while (!text.empty()) {
    const std::size_t size =
        text.size() > options_.max_document ? cut_point(text, options_.max_document) : text.size();
    std::string_view piece = text.substr(0, size);
    text.remove_prefix(size);
    if (!exact) {
      if (blank(piece)) continue;
      const auto first = piece.find_first_not_of("\r\n");
      piece = piece.substr(first, piece.find_last_not_of("\r\n") + 1 - first);
    }
    ready_.push_back({std::string(piece), next_file_ - 1, line});
  }
}

}  // namespace sinew
