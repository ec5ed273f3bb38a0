// SPDX-License-Identifier: MIT
// The right to write a host page is exclusive.
// expected-error: use of deleted function .*ts::HostPageLease::HostPageLease.const ts::HostPageLease&
#include "ts/host_tier.h"

ts::HostPageLease second(const ts::HostPageLease& lease) {
  return lease;
}
