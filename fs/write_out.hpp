#pragma once

#include "fs/preflight.hpp"

namespace tally::fs {

/// Has what is delayed allocated, on the filesystem of the source and on those mounted below it: a
/// file that is dirty when it is counted takes other blocks once it is written back, and no request
/// tells of these. Waits for the devices. What an error here means for the data is not ours to
/// tell, and whoever counts can do without. Thread-safe.
void write_out(const Place& place);

}  // namespace tally::fs
