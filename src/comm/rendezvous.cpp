#include "comm/rendezvous.hpp"

#include <ATen/ATen.h>
#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <chrono>
#include <cstring>
#include <thread>

#include "base/error.hpp"

namespace sinew {
namespace {

constexpr const char* kFailure = "sinew/failure";

std::vector<std::uint8_t> bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

// The address of this machine on the way to `host`.
std::string own_address(const std::string& host, int port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_DGRAM;
  if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0)
    fail("{}: this host is not known here (MASTER_ADDR)", host);
  std::string address = "127.0.0.1";
  const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in own{};
  socklen_t size = sizeof own;
  if (fd >= 0 && ::connect(fd, found->ai_addr, found->ai_addrlen) == 0 &&
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size) == 0) {
    char text[INET_ADDRSTRLEN];
    if (::inet_ntop(AF_INET, &own.sin_addr, text, sizeof text) != nullptr) address = text;
  }
  if (fd >= 0) ::close(fd);
  ::freeaddrinfo(found);
  return address;
}

// Libtorch from 2.4 on wants libuv, which Debian builds it without; plain sockets are in every build.
template <class Options>
void without_libuv(Options& options) {
  if constexpr (requires { options.useLibUV; }) options.useLibUV = false;
}

}  // namespace

Rendezvous::Rendezvous(const Launch& launch, std::int64_t timeout) : launch_(launch) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<std::uint16_t>(launch.port);
  options.isServer = launch.rank == 0 && !launch.store_is_served;
  options.waitWorkers = false;
  options.timeout = std::chrono::seconds(timeout);
  without_libuv(options);
  try {
    store_ = c10::make_intrusive<c10d::TCPStore>(launch.address, options);
  } catch (const std::exception& error) {
    const std::string text = error.what();
    throw Error(fmt::format("rank {}: cannot meet the others at {}:{}: {}", launch.rank, launch.address,
                            launch.port, text.substr(0, text.find('\n'))));
  }
}

Rendezvous::~Rendezvous() = default;

std::shared_ptr<Endpoint> Rendezvous::connect(const EndpointOptions& options) {
  EndpointOptions o = options;
  o.address = own_address(launch_.address, launch_.port);
  return sinew::connect(store_, o);
}

void Rendezvous::leave_word(const std::string& why) {
  try {
    const auto own = fmt::format("rank {}: ", launch_.rank);
    if (store_->add("sinew/failures", 1) == 1)
      store_->set(kFailure, bytes_of(why.starts_with(own) ? why : own + why));
  } catch (const std::exception&) {  // the store went with its process
  }
}

std::string Rendezvous::first_word() const {
  for (int i = 0; i < 20; ++i) {
    try {
      if (store_->check({kFailure})) {
        const auto word = store_->get(kFailure);
        return {word.begin(), word.end()};
      }
    } catch (const std::exception&) {
      return {};
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return {};
}

StoreServer::StoreServer() {
  c10d::TCPStoreOptions options;
  options.port = 0;
  options.isServer = true;
  options.waitWorkers = false;
  without_libuv(options);
  store_ = c10::make_intrusive<c10d::TCPStore>("127.0.0.1", options);
}
StoreServer::~StoreServer() = default;
int StoreServer::port() const { return static_cast<c10d::TCPStore*>(store_.get())->getPort(); }

std::vector<std::string> gather_texts(Communicator& group, const std::string& own) {
  const auto device = group.endpoint().options().device;
  const auto length = at::full({1}, static_cast<std::int64_t>(own.size()), at::kLong).to(device);
  group.all_reduce(length, Reduction::max);
  const auto longest = length.item<std::int64_t>() + 8;
  const auto mine = at::zeros({longest}, at::kByte);
  const auto size = static_cast<std::uint64_t>(own.size());
  std::memcpy(mine.data_ptr(), &size, 8);
  std::memcpy(static_cast<char*>(mine.data_ptr()) + 8, own.data(), own.size());
  const auto gathered = at::empty({longest * group.size()}, at::TensorOptions(at::kByte).device(device));
  group.all_gather(gathered, mine.to(device));
  const auto all = gathered.to(at::kCPU);
  std::vector<std::string> texts;
  for (int r = 0; r < group.size(); ++r) {
    const auto* const text = static_cast<const char*>(all.data_ptr()) + r * longest;
    std::uint64_t count = 0;
    std::memcpy(&count, text, 8);
    texts.emplace_back(text + 8, count);
  }
  return texts;
}

void together(Communicator& group, bool here, const std::function<void()>& work) {
  std::string problem;  // the exit code, then the text
  try {
    if (here) work();
  } catch (const Error& error) {
    problem = fmt::format("{}{}", error.exit_code(), error.what());
  }
  for (const auto& text : gather_texts(group, problem)) {
    if (text.empty()) continue;
    if (text[0] == '2') throw IoError(text.substr(1));
    throw Error(text.substr(1));
  }
}

}  // namespace sinew
