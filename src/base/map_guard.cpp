#include "base/map_guard.hpp"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <mutex>
#include <string>

#include "base/error.hpp"

namespace sinew::map_guard {
namespace {

// The handler reads only the atomics; the rest belongs to `mutex`. Slots are never freed, so a handler may
// look at one while it is being reused: the map it looks for is alive, since a thread has just touched it.
struct Slot {
  std::atomic<std::uintptr_t> begin{0}, end{0};
  std::atomic<bool> lost{false};
  int fd = -1;
  struct stat opened {};
  std::string path;
};

constexpr int kSlots = 8192;
std::array<Slot, kSlots> slots;
std::atomic<int> used{0};  // slots ever used
std::mutex mutex;
struct sigaction previous {};

void on_bus_error(int /*signal*/, siginfo_t* info, void* /*context*/) {
  const int saved_errno = errno;
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const bool fault = info->si_code > 0;  // from the kernel, not from kill() or raise()
  const int count = fault ? used.load() : 0;
  for (int i = 0; i < count; ++i) {
    Slot& slot = slots[static_cast<std::size_t>(i)];
    const std::uintptr_t end = slot.end.load();
    if (address < slot.begin.load() || address >= end) continue;
    const std::uintptr_t from = address / page * page, to = (end + page - 1) / page * page;
    void* const zeros = ::mmap(reinterpret_cast<void*>(from), to - from, PROT_READ,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    if (zeros == MAP_FAILED) break;
    slot.lost = true;
    errno = saved_errno;
    return;
  }
  errno = saved_errno;
  // Not ours: the access faults again, or the signal comes again, and meets the handler before us.
  ::sigaction(SIGBUS, &previous, nullptr);
  if (!fault) ::raise(SIGBUS);
}

void install_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    ::sigaction(SIGBUS, &action, &previous);
  });
}

void check_locked(const Slot& slot) {
  if (slot.lost) throw IoError(fmt::format("{}: was cut short or became unreadable while in use", slot.path));
  struct stat now {};
  const bool same = ::fstat(slot.fd, &now) == 0 && now.st_size == slot.opened.st_size &&
                    now.st_mtim.tv_sec == slot.opened.st_mtim.tv_sec &&
                    now.st_mtim.tv_nsec == slot.opened.st_mtim.tv_nsec;
  if (!same) throw IoError(fmt::format("{}: was changed by another program while in use", slot.path));
}

}  // namespace

int add(const void* begin, std::size_t size, int fd, const std::filesystem::path& path) {
  install_handler();
  const std::lock_guard lock(mutex);
  int number = 0;
  while (number < kSlots && slots[static_cast<std::size_t>(number)].fd >= 0) ++number;
  if (number == kSlots) {
    ::close(fd);
    fail("{}: more than {} files are mapped at once", path.string(), kSlots);
  }
  Slot& slot = slots[static_cast<std::size_t>(number)];
  ::fstat(fd, &slot.opened);
  slot.fd = fd;
  slot.path = path.string();
  slot.lost = false;
  slot.begin = reinterpret_cast<std::uintptr_t>(begin);
  slot.end = reinterpret_cast<std::uintptr_t>(begin) + size;
  if (number >= used) used = number + 1;
  return number;
}

void remove(int number) {
  const std::lock_guard lock(mutex);
  Slot& slot = slots[static_cast<std::size_t>(number)];
  slot.begin = slot.end = 0;
  ::close(slot.fd);
  slot.fd = -1;
}

void check(int number) {
  const std::lock_guard lock(mutex);
  check_locked(slots[static_cast<std::size_t>(number)]);
}

void check_all() {
  const std::lock_guard lock(mutex);
  for (int i = 0; i < used; ++i) {
    const Slot& slot = slots[static_cast<std::size_t>(i)];
    if (slot.fd >= 0) check_locked(slot);
  }
}

}  // namespace sinew::map_guard
