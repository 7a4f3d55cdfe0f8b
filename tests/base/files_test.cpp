#include "base/files.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "support/support.hpp"

namespace sinew {

TEST(AtomicFile, ReplacesOnlyOnCommit) {
  const test::TempDir dir;
  write_file_atomic(dir / "a", "old");
  {
    AtomicFile file(dir / "a");
    file.write("new");
  }
  EXPECT_EQ(read_file(dir / "a"), "old");
  AtomicFile file(dir / "a");
  file.write("new");
  file.commit();
  EXPECT_EQ(read_file(dir / "a"), "new");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()), 1)
      << "temporary files left";
}

TEST(AtomicFile, FullDiskIsAnIoErrorThatNamesTheFile) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "/dev/full not here";
  const test::TempDir dir;
  fs::create_symlink("/dev/full", dir / ("x.tmp" + std::to_string(::getpid())));
  AtomicFile file(dir / "x");
  file.write(std::string(1 << 16, 'a'));
  try {
    file.commit();
    FAIL() << "a full disk went unnoticed";
  } catch (const IoError& error) {
    EXPECT_NE(std::string(error.what()).find("No space left"), std::string::npos);
  }
  EXPECT_FALSE(fs::exists(dir / "x"));
}

TEST(ReadFile, MissingAndTooLarge) {
  const test::TempDir dir;
  EXPECT_THROW(read_file(dir / "none"), IoError);
  EXPECT_THROW(read_file(dir.path()), IoError);
  test::spit(dir / "big", "12345");
  EXPECT_THROW(read_file(dir / "big", 4), UserError);
  EXPECT_EQ(read_file(dir / "big", 5), "12345");
}

TEST(MappedFile, MapsAndMoves) {
  const test::TempDir dir;
  test::spit(dir / "f", "hello");
  MappedFile a(dir / "f");
  const MappedFile b = std::move(a);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(b.data()), b.size()), "hello");
  test::spit(dir / "empty", "");
  EXPECT_EQ(MappedFile(dir / "empty").size(), 0u);
}

}  // namespace sinew
