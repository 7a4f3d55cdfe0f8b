#include "text/documents.hpp"

#include <bzlib.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include "base/error.hpp"
#include "base/files.hpp"
#include "support/property.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

using test::spit;
using test::TempDir;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<Document> read_all(const std::vector<fs::path>& inputs, const DocumentOptions& options = {}) {
  DocumentReader reader(corpus_files(inputs), options);
  std::vector<Document> documents;
  for (Document document; reader.next(document);) documents.push_back(document);
  EXPECT_EQ(reader.bytes_read(), reader.bytes_total());
  return documents;
}

std::vector<std::string> texts(const std::vector<fs::path>& inputs, const DocumentOptions& options = {}) {
  std::vector<std::string> all;
  for (auto& document : read_all(inputs, options)) all.push_back(document.text);
  return all;
}

std::vector<std::string> texts_of(const std::string& content, const DocumentOptions& options = {},
                                  const std::string& name = "a.txt") {
  const TempDir dir;
  spit(dir / name, content);
  return texts({dir / name}, options);
}

std::string error_of(const std::string& name, const std::string& content,
                     const DocumentOptions& options = {}) {
  try {
    texts_of(content, options, name);
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

std::string gzip(const std::string& text) {
  z_stream z{};
  deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&z, text.size()) + 64, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  deflate(&z, Z_FINISH);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

std::string zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

std::string bzip2(const std::string& text) {
  auto size = static_cast<unsigned>(text.size() + text.size() / 50 + 1000);
  std::string out(size, '\0');
  BZ2_bzBuffToBuffCompress(out.data(), &size, const_cast<char*>(text.data()),
                           static_cast<unsigned>(text.size()), 9, 0, 0);
  out.resize(size);
  return out;
}

// Text that does not compress to nothing, of any size.
std::string long_text(std::size_t lines) {
  std::string text;
  for (std::size_t i = 0; i < lines; ++i)
    text += fmt::format("line {} of the text {}\n", i, i * 2654435761u % 1000003);
  return text;
}

TEST(Documents, BlankLines) {
  const DocumentOptions blank{.separator = "blank"};
  EXPECT_THAT(texts_of("one\ntwo\n\nthree\n \t\n\n\r\nfour", blank),
              ElementsAre("one\ntwo", "three", "four"));
  EXPECT_THAT(texts_of("one\r\ntwo\r\n\r\nthree\r\n", blank), ElementsAre("one\r\ntwo", "three"));
  EXPECT_THAT(texts_of("\n\n\n", blank), ElementsAre());
}

TEST(Documents, ParagraphsAreJoinedUntilLongEnough) {
  const std::string block(kParagraphs, 'x');
  EXPECT_THAT(texts_of("a\n\nb\n\n" + block + "\n\nc\n\n\nd\n"),
              ElementsAre("a\n\nb\n\n" + block, "c\n\n\nd"));
}

TEST(Documents, AutoFindsFormFeedsAndEndOfText) {
  EXPECT_THAT(texts_of("one\n\nstill one\n\f\ntwo\f\f three"),
              ElementsAre("one\n\nstill one", "two", " three"));
  EXPECT_THAT(texts_of("one\n\nmore\n<|endoftext|>\ntwo<|endoftext|>"), ElementsAre("one\n\nmore", "two"));
}

TEST(Documents, OwnSeparatorMayCrossLines) {
  EXPECT_THAT(texts_of("one\n\n\ntwo\n\nand\n\n\n\nthree", {.separator = "\\n\\n\\n"}),
              ElementsAre("one", "two\n\nand", "three"));
  EXPECT_THAT(texts_of("a--b-c--d", {.separator = "--"}), ElementsAre("a", "b-c", "d"));
}

TEST(Documents, WholeFileIsExactButForTheByteOrderMark) {
  EXPECT_THAT(texts_of("\xEF\xBB\xBF\n\none\n\n\ntwo\n", {.separator = "file"}),
              ElementsAre("\n\none\n\n\ntwo\n"));
}

TEST(Documents, LinesAreCounted) {
  const TempDir dir;
  spit(dir / "a.txt", "one\ntwo\n\n\nthree\n\nfour");
  spit(dir / "b.jsonl", "{\"text\":\"x\"}\n\n{\"text\":\"y\"}\n");
  const auto documents = read_all({dir / "a.txt", dir / "b.jsonl"}, {.separator = "blank"});
  ASSERT_EQ(documents.size(), 5u);
  const auto place = [&](std::size_t i) { return std::pair(documents[i].file, documents[i].line); };
  EXPECT_EQ(place(0), std::pair(std::size_t{0}, std::uint64_t{1}));
  EXPECT_EQ(place(1), std::pair(std::size_t{0}, std::uint64_t{5}));
  EXPECT_EQ(place(2), std::pair(std::size_t{0}, std::uint64_t{7}));
  EXPECT_EQ(place(3), std::pair(std::size_t{1}, std::uint64_t{1}));
  EXPECT_EQ(place(4), std::pair(std::size_t{1}, std::uint64_t{3}));
}

TEST(Documents, JsonLines) {
  EXPECT_THAT(texts_of("{\"text\":\"a\\n\\u00e9\",\"n\":1}\n\n{\"text\":\"\"}\n{\"n\":2,\"text\":\" b \"}",
                       {}, "a.jsonl"),
              ElementsAre("a\n\xC3\xA9", " b "));
  EXPECT_THAT(texts_of("{\"body\":{\"en\":\"a\"}}\n", {.field = "/body/en"}, "a.ndjson"), ElementsAre("a"));
}

TEST(Documents, JsonErrorsNameFileAndLine) {
  EXPECT_THAT(error_of("a.jsonl", "{\"text\":\"a\"}\n{\"text\": oops}\n"), HasSubstr("a.jsonl:2: not JSON"));
  EXPECT_THAT(error_of("a.jsonl", "{\"text\":\"a\"}\n[1]\n"),
              HasSubstr("a.jsonl:2: expected a JSON object, found array"));
  EXPECT_THAT(error_of("a.jsonl", "{\"txt\":\"a\",\"id\":3}\n"),
              HasSubstr("a.jsonl:1: no field \"text\"; did you mean \"txt\"?"));
  EXPECT_THAT(error_of("a.jsonl", "{\"text\":3}\n"),
              HasSubstr("a.jsonl:1: field \"text\" is number, not text"));
  EXPECT_THAT(error_of("a.jsonl", "{\"text\":\"\xFF\"}\n"), HasSubstr("a.jsonl:1: not JSON"));
  EXPECT_THAT(error_of("a.jsonl", std::string(1'000'000, '[')), HasSubstr("a.jsonl:1: not JSON"));
  for (const auto& text : {error_of("a.jsonl", "{"), error_of("b.jsonl", "{\"text\":3}")})
    EXPECT_EQ(text.find('\n'), std::string::npos);
}

TEST(Documents, CompressedStreamsGiveTheSameText) {
  const std::string text = long_text(60'000);  // 2 MB: several blocks of each format
  const DocumentOptions whole{.separator = "file", .max_document = 1 << 24};
  EXPECT_THAT(texts_of(gzip(text), whole, "a.txt.gz"), ElementsAre(text));
  EXPECT_THAT(texts_of(zstd(text), whole, "a.txt.zst"), ElementsAre(text));
  EXPECT_THAT(texts_of(bzip2(text), whole, "a.txt.bz2"), ElementsAre(text));
  EXPECT_THAT(texts_of(gzip("a") + gzip("") + gzip("b"), whole, "a.txt.gz"), ElementsAre("ab"));
  EXPECT_THAT(texts_of(zstd("a") + zstd("") + zstd("b"), whole, "a.txt.zst"), ElementsAre("ab"));
  EXPECT_THAT(texts_of(bzip2("a") + bzip2("b"), whole, "a.txt.bz2"), ElementsAre("ab"));
  const std::string zeros(3'000'000, 'x');  // Output far larger than input: it waits inside the decoder.
  EXPECT_EQ(texts_of(zstd(zeros), whole, "a.txt.zst").at(0).size(), zeros.size());
  EXPECT_EQ(texts_of(gzip(zeros), whole, "a.txt.gz").at(0).size(), zeros.size());
  EXPECT_EQ(texts_of(bzip2(zeros), whole, "a.txt.bz2").at(0).size(), zeros.size());
  EXPECT_THAT(texts_of(gzip("{\"text\":\"a\"}\n"), {}, "a.jsonl.gz"), ElementsAre("a"));
}

TEST(Documents, DamagedStreamsAreErrors) {
  const std::string text = long_text(5000);
  const auto cut = [](std::string s) { return s.substr(0, s.size() / 2); };
  EXPECT_THAT(error_of("a.txt.gz", cut(gzip(text))), HasSubstr("gzip stream is cut short"));
  EXPECT_THAT(error_of("a.txt.zst", cut(zstd(text))), HasSubstr("zstd stream is cut short"));
  EXPECT_THAT(error_of("a.txt.bz2", cut(bzip2(text))), HasSubstr("bzip2 stream is cut short"));
  EXPECT_THAT(error_of("a.txt.gz", text), HasSubstr("damaged gzip stream"));
  EXPECT_THAT(error_of("a.txt.zst", text), HasSubstr("damaged zstd stream"));
  EXPECT_THAT(error_of("a.txt.bz2", text), HasSubstr("damaged bzip2 stream"));
  std::string flipped = gzip(text);
  flipped[flipped.size() / 2] ^= 0x55;
  EXPECT_THAT(error_of("a.txt.gz", flipped), HasSubstr("damaged gzip stream"));
}

TEST(Documents, DirectoriesInSortedOrder) {
  const TempDir dir;
  fs::create_directories(dir / "b/inner");
  fs::create_directories(dir / ".git");
  spit(dir / "b/inner/z.txt", "4");
  spit(dir / "b/a.md", "3");
  spit(dir / "a.txt", "1");
  spit(dir / "a.txt.gz", gzip("2"));
  spit(dir / ".hidden", "no");
  spit(dir / ".git/config", "no");
  spit(dir / "meta.json", "{}");
  spit(dir / "picture", std::string("\x89PNG\0\0", 6));
  EXPECT_THAT(texts({dir.path()}), ElementsAre("1", "2", "3", "4"));
  EXPECT_THAT(texts({dir / "b", dir / "a.txt"}), ElementsAre("3", "4", "1"));
}

TEST(Documents, MissingAndUnusableInputs) {
  const TempDir dir;
  EXPECT_THROW(corpus_files({dir / "nothing.txt"}), UserError);
  EXPECT_THROW(corpus_files({dir.path()}), UserError);  // empty directory
  EXPECT_THROW(corpus_files({}), UserError);
  EXPECT_THROW(read_all({"/dev/null"}), UserError);
  EXPECT_THAT(error_of("a.txt", std::string("\xFF\xFE"
                                            "a\0b\0",
                                            6)),
              HasSubstr("UTF-16"));
}

TEST(Documents, LongDocumentsAreCutWithoutLoss) {
  const std::string text = long_text(1000);
  const auto pieces = texts_of(text, {.separator = "file", .max_document = 1000});
  std::string joined;
  for (const auto& piece : pieces) {
    EXPECT_LE(piece.size(), 1000u);
    EXPECT_EQ(piece.back(), '\n');
    joined += piece;
  }
  EXPECT_EQ(joined, text);
  std::string accents;  // No line end at all: cut between characters.
  for (int i = 0; i < 2000; ++i) accents += "\xE2\x82\xAC";
  joined.clear();
  for (const auto& piece : texts_of(accents, {.separator = "file", .max_document = 1000})) {
    EXPECT_EQ(piece.size() % 3, 0u);
    joined += piece;
  }
  EXPECT_EQ(joined, accents);
}

TEST(Documents, NoByteOfTextIsLostOrAdded) {
  test::check_property("splitting keeps every byte that is not a separator or a line end", [] {
    const auto lines = test::draw_list(test::draw_length(), [] {
      return test::draw_of<std::string>(
          {"", " ", "a", "b c", "\xC3\xA9", "--", "x--y", "\r", std::string(40, 'k')});
    });
    const std::string separator = test::draw_of<std::string>({"blank", "--", "paragraphs", "\\n\\n"});
    std::string content;
    for (const auto& line : lines) content += line + "\n";
    const auto squeeze = [](std::string s) {
      std::erase_if(s, [](char c) { return c == '\n' || c == '\r' || c == '-' || c == ' '; });
      return s;
    };
    std::string joined;
    for (const auto& text : texts_of(content, {.separator = separator, .max_document = 64})) {
      HOLDS(!text.empty());
      HOLDS(text.size() <= 64u);
      joined += text;
    }
    HOLDS(squeeze(joined) == squeeze(content));
  });
}

}  // namespace
}  // namespace sinew
