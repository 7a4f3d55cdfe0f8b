// Where the processes of a run meet, and what they tell each other when one of them fails.
#pragma once

#include <c10/util/intrusive_ptr.h>

#include <memory>
#include <string>

#include "comm/communicator.hpp"
#include "comm/launch.hpp"

namespace sinew {

class Rendezvous {
 public:
  // Waits at most `timeout` seconds for rank 0's store.
  Rendezvous(const Launch& launch, std::int64_t timeout);
  ~Rendezvous();
  Rendezvous(const Rendezvous&) = delete;
  Rendezvous& operator=(const Rendezvous&) = delete;

  // A new generation of endpoints may be made at any time by all ranks together.
  std::shared_ptr<Endpoint> connect(const EndpointOptions& options);

  // Leaves word of why this rank gives up; the first one counts.
  void leave_word(const std::string& why);
  // What the first failing rank said ("rank 3: ..."), waiting a moment for it; empty if none did.
  std::string first_word() const;

 private:
  Launch launch_;
  c10::intrusive_ptr<c10d::Store> store_;
};

// Serves a store on this machine for the processes it starts; its port.
class StoreServer {
 public:
  StoreServer();
  ~StoreServer();
  int port() const;

 private:
  c10::intrusive_ptr<c10d::Store> store_;
};

// Texts of all members, by rank, on every one of them.
std::vector<std::string> gather_texts(Communicator& group, const std::string& own);
// Runs `work` where `here`; what it throws there is thrown on all members, so that nobody waits for a process
// that gave up. All must call it.
void together(Communicator& group, bool here, const std::function<void()>& work);

}  // namespace sinew
