#include "base/async_reader.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/random.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

struct Page {
  alignas(AsyncReader::kAlign) std::byte bytes[2 * AsyncReader::kAlign];
};

TEST(AsyncReader, ReadsWhatTheFileHolds) {
  const test::TempDir dir;
  std::string text(10 * AsyncReader::kAlign + 777, 0);
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(Random(1, 2).bits(i));
  test::spit(dir / "file", text);
  AsyncReader reader(4);
  const int file = reader.open(dir / "file");
  std::vector<Page> buffers(4);
  std::set<std::uint64_t> seen;
  std::uint64_t next = 0;
  while (seen.size() < 10) {
    while (next < 10 && reader.under_way() < 4) {
      if (next >= 4 && seen.count(next - 4) == 0) break;  // its buffer is still being filled
      reader.start(file, next * AsyncReader::kAlign, 2 * AsyncReader::kAlign, buffers[next % 4].bytes, next);
      ++next;
    }
    const auto tag = static_cast<std::uint64_t>(reader.wait());
    const std::size_t at = tag * AsyncReader::kAlign,
                      count = std::min(text.size() - at, 2 * AsyncReader::kAlign);
    EXPECT_EQ(std::memcmp(buffers[tag % 4].bytes, text.data() + at, count), 0) << tag;
    seen.insert(tag);
  }
  EXPECT_EQ(reader.wait(false), -1);
  EXPECT_THROW(reader.open(dir / "none"), IoError);
}

}  // namespace
}  // namespace sinew
