#include "base/log.hpp"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace sinew::log {
namespace {

spdlog::logger& logger() {
  static const auto instance = [] {
    auto made = spdlog::stderr_color_mt("sinew");
    made->set_pattern("%^%l%$: %v");
    return made;
  }();
  return *instance;
}

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::debug:
      return spdlog::level::debug;
    case Level::info:
      return spdlog::level::info;
    case Level::warn:
      return spdlog::level::warn;
    case Level::error:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

}  // namespace

void set_level(Level level) { logger().set_level(to_spdlog(level)); }

void also_to(const std::string& path) {
  const auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path, true);
  sink->set_pattern("%Y-%m-%d %H:%M:%S %l: %v");
  logger().sinks().push_back(sink);
  logger().flush_on(spdlog::level::debug);
}

void write(Level level, std::string_view message) { logger().log(to_spdlog(level), "{}", message); }

}  // namespace sinew::log
