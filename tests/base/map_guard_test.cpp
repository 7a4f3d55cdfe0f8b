#include "base/map_guard.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <thread>

#include "base/error.hpp"
#include "base/files.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

constexpr std::size_t kSize = 1 << 20;

int sum(const MappedFile& file) {
  int total = 0;
  for (const std::byte byte : file.bytes()) total += std::to_integer<int>(byte);
  return total;
}

std::string message(const MappedFile& file) {
  try {
    file.check();
  } catch (const IoError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST(MapGuard, AFileCutShortReadsAsZerosAndIsNoticed) {
  const test::TempDir dir;
  test::spit(dir / "f", std::string(kSize, '\1'));
  const MappedFile file(dir / "f");
  EXPECT_EQ(sum(file), static_cast<int>(kSize));
  EXPECT_EQ(message(file), "");
  ASSERT_EQ(::truncate((dir / "f").c_str(), 100000), 0);
  EXPECT_EQ(sum(file), 100000);  // would be SIGBUS without the guard
  EXPECT_EQ(message(file), (dir / "f").string() + ": was cut short or became unreadable while in use");
  EXPECT_THROW(check_mapped_files(), IoError);
}

TEST(MapGuard, AFileCutShortIsNoticedBeforeItsLostPagesAreRead) {
  const test::TempDir dir;
  test::spit(dir / "f", std::string(kSize, '\1'));
  const MappedFile file(dir / "f");
  ASSERT_EQ(::truncate((dir / "f").c_str(), 100000), 0);
  EXPECT_EQ(message(file), (dir / "f").string() + ": was changed by another program while in use");
}

TEST(MapGuard, AFileWrittenInPlaceIsNoticed) {
  const test::TempDir dir;
  test::spit(dir / "f", std::string(kSize, '\1'));
  const MappedFile file(dir / "f");
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // past the granularity of file times
  std::FILE* writer = std::fopen((dir / "f").c_str(), "r+");
  std::fputc('\2', writer);
  std::fclose(writer);
  EXPECT_NE(message(file), "");
}

TEST(MapGuard, AFileReplacedOrRemovedStaysWhole) {
  const test::TempDir dir;
  test::spit(dir / "f", std::string(kSize, '\1'));
  MappedFile first(dir / "f");
  const MappedFile file = std::move(first);
  write_file_atomic(dir / "f", "new");
  EXPECT_EQ(sum(file), static_cast<int>(kSize));
  EXPECT_EQ(message(file), "");
  fs::remove(dir / "f");
  EXPECT_EQ(sum(file), static_cast<int>(kSize));
  EXPECT_EQ(message(file), "");
  EXPECT_NO_THROW(check_mapped_files());
}

TEST(MapGuard, ManyThreadsMeetTheLostPagesAtOnce) {
  const test::TempDir dir;
  test::spit(dir / "f", std::string(kSize, '\1'));
  const MappedFile file(dir / "f");
  ASSERT_EQ(::truncate((dir / "f").c_str(), 0), 0);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) threads.emplace_back([&] { EXPECT_EQ(sum(file), 0); });
  for (auto& thread : threads) thread.join();
  EXPECT_THROW(file.check(), IoError);
}

// A bus error that is none of ours still ends the process.
TEST(MapGuard, OtherBusErrorsKeepTheirMeaning) {
  const test::TempDir dir;
  test::spit(dir / "f", "x");
  const MappedFile file(dir / "f");
  EXPECT_DEATH(::raise(SIGBUS), "");
}

}  // namespace sinew
