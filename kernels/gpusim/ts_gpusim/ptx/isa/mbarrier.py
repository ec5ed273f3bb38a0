# SPDX-License-Identifier: MIT
"""Barriers in memory (PTX ISA 9.7.13.15)."""

TABLE = """
.smem = shared shared::cta
.cluster = shared::cluster
.any = shared shared::cta shared::cluster
.sem = release relaxed
.wait_sem = acquire relaxed
.scope = cta cluster

9.7.13.15.9 Parallel Synchronization and Communication Instructions: mbarrier.init
mbarrier.init{.smem}.b64                                        [mbar], count

9.7.13.15.10 Parallel Synchronization and Communication Instructions: mbarrier.inval
mbarrier.inval{.smem}.b64                                       [mbar]

9.7.13.15.11 Parallel Synchronization and Communication Instructions: mbarrier.expect_tx
mbarrier.expect_tx{.relaxed.scope}{.any}.b64                    [mbar], bytes

9.7.13.15.12 Parallel Synchronization and Communication Instructions: mbarrier.complete_tx
mbarrier.complete_tx{.relaxed.scope}{.any}.b64                  [mbar], bytes

9.7.13.15.13 Parallel Synchronization and Communication Instructions: mbarrier.arrive
mbarrier.arrive{.sem.scope}{.smem}.b64                          state, [mbar]{, count}
mbarrier.arrive{.sem.scope}.cluster.b64                         _, [mbar]{, count}
mbarrier.arrive.expect_tx{.sem.scope}{.smem}.b64                state, [mbar], bytes
mbarrier.arrive.expect_tx{.sem.scope}.cluster.b64               _, [mbar], bytes
mbarrier.arrive.noComplete{.release.cta}{.smem}.b64             state, [mbar], count

9.7.13.15.14 Parallel Synchronization and Communication Instructions: mbarrier.arrive_drop
mbarrier.arrive_drop{.sem.scope}{.smem}.b64                     state, [mbar]{, count}
mbarrier.arrive_drop{.sem.scope}.cluster.b64                    _, [mbar]{, count}
mbarrier.arrive_drop.expect_tx{.sem.scope}{.smem}.b64           state, [mbar], bytes
mbarrier.arrive_drop.expect_tx{.sem.scope}.cluster.b64          _, [mbar], bytes
mbarrier.arrive_drop.noComplete{.release.cta}{.smem}.b64        state, [mbar], count

9.7.13.15.16 Parallel Synchronization and Communication Instructions: mbarrier.test_wait, \
    mbarrier.try_wait
mbarrier.test_wait{.wait_sem.scope}{.smem}.b64                  p, [mbar], state
mbarrier.test_wait.parity{.wait_sem.scope}{.smem}.b64           p, [mbar], parity
mbarrier.try_wait{.wait_sem.scope}{.smem}.b64                   p, [mbar], state{, time}
mbarrier.try_wait.parity{.wait_sem.scope}{.smem}.b64            p, [mbar], parity{, time}

9.7.13.15.17 Parallel Synchronization and Communication Instructions: mbarrier.pending_count
mbarrier.pending_count.b64                                      count, state
"""
