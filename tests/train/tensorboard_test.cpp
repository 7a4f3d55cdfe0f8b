#include "train/tensorboard.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "support/support.hpp"

namespace sinew {
namespace {

// RFC 3720 B.4, and the check value of the CRC catalogue.
TEST(TensorBoard, Crc32cKnownAnswers) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  std::string rising;
  for (int i = 0; i < 32; ++i) rising += static_cast<char>(i);
  EXPECT_EQ(crc32c(rising), 0x46dd794eu);
  EXPECT_EQ(crc32c(""), 0u);
}

template <class T>
T take(const std::string& text, std::size_t at) {
  T value;
  std::memcpy(&value, text.data() + at, sizeof value);
  return value;
}

std::vector<std::string> frames(const std::string& file) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at < file.size();) {
    const auto length = take<std::uint64_t>(file, at);
    EXPECT_EQ(take<std::uint32_t>(file, at + 8), masked_crc32c(file.substr(at, 8)));
    out.push_back(file.substr(at + 12, length));
    EXPECT_EQ(take<std::uint32_t>(file, at + 12 + length), masked_crc32c(out.back()));
    at += 16 + length;
  }
  return out;
}

TEST(TensorBoard, FramesAndMessagesAreThoseOfTheFormat) {
  const test::TempDir dir;
  EventFile file(dir.path(), 300);
  const std::vector<std::pair<std::string, double>> values{{"loss", 1.5}};
  file.scalars(300, values);
  file.text(301, "sample", "words");
  EXPECT_EQ(file.path().filename().string().find("events.out.tfevents."), 0u);
  const auto events = frames(test::slurp(file.path()));
  ASSERT_EQ(events.size(), 4u);
  for (const auto& event : events) EXPECT_EQ(event[0], '\x09');  // field 1, fixed64: wall_time
  EXPECT_EQ(events[0].substr(9),
            "\x1a\x0d"
            "brain.Event:2");
  EXPECT_EQ(events[1].substr(9),
            std::string("\x10\xac\x02\x3a\x02\x08\x01", 7));  // step 300, session_log START
  EXPECT_EQ(events[2].substr(9),
            std::string("\x10\xac\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\xc0\x3f", 18));
  EXPECT_NE(events[3].find("sample"), std::string::npos);
  EXPECT_NE(events[3].find("words"), std::string::npos);
}

}  // namespace
}  // namespace sinew
