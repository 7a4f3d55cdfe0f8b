// SIGINT and SIGTERM as a flag that long work looks at: finish the unit in hand, save, leave.
#pragma once

namespace sinew {

// Installs the handlers. A second SIGINT ends the process at once, with nothing half-written (files
// are renamed into place only when whole).
void catch_stop_signals();

// The signal's number once one came, else 0.
int stop_requested();
void clear_stop_request();

}  // namespace sinew
